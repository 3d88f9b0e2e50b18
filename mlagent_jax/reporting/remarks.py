"""Say what was counted: how many of how many, and what to do if the share is so large that it matters."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Remark:
    """One line about a share.

    Attributes:
        text: The line.
        is_warning: Whether the share is too large to ignore.
    """

    text: str
    is_warning: bool


@dataclass(frozen=True)
class Rule:
    """A count to remark on.

    Attributes:
        num: The name of the count; names in nested figures are joined by a point, such as `expert.empty`.
        total: The names of the counts whose sum is the whole.
        what: What there are so many of, such as `responses are no valid action`.
        max_share: The largest share that is no reason for a warning.
        advice: The meaning of a larger share, and the remedy.
    """

    num: str
    total: tuple[str, ...]
    what: str
    max_share: float
    advice: str

    def remark(self, counts: Mapping[str, float]) -> Remark | None:
        """Return the line about these counts; None if they do not have this one, or it is 0."""
        num, total = counts.get(self.num, 0), sum(counts.get(name, 0) for name in self.total)
        if not num:
            return None
        text = f"{num:,.0f} of {total:,.0f} {self.what}"
        is_warning = num > self.max_share * total
        return Remark(f"{text}: {self.advice}" if is_warning else text, is_warning)


def remarks(rules: Iterable[Rule], figures: Mapping[str, Any]) -> list[Remark]:
    """Return the lines about those of the figures that a rule is for, in the order of the rules."""
    counts = dict(_flat(figures))
    return [remark for rule in rules if (remark := rule.remark(counts)) is not None]


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, float]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", value
