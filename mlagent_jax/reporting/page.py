"""Static pages of results: one file without scripts and without network access."""

from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from mlagent_jax.tracking.progress import duration_text

STYLE = markupsafe.Markup(
    Path(__file__).with_name("page.css").read_text(encoding="utf-8")
)  # for light and dark screens


def render(template: Path, **values: Any) -> str:
    """Return the page of a Jinja template, which puts `style` into its head and has the filters below."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(duration=duration_text, score=score_text, signed=signed, gain=gain_text)
    return environment.from_string(template.read_text(encoding="utf-8")).render(style=STYLE, **values)


def score_text(score: float) -> str:
    """Return a score with four significant digits and a true minus."""
    return f"{score:.4g}".replace("-", "\N{MINUS SIGN}")


def gain_text(gain: float) -> str:
    """Return a gain with its sign and two decimals."""
    return f"{gain:+.2f}".replace("-", "\N{MINUS SIGN}")


def signed(score: float) -> str:
    """Return a difference with its sign."""
    return f"{score:+.3g}".replace("-", "\N{MINUS SIGN}")
