"""Read the settings of a `config.json` by an allow-list: a key that nobody reads is refused.

A key that could change the network is either computed here or refused, so a checkpoint never loads as a
different function. Nothing here imports JAX.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlagent_jax.model.config_keys import NO_EFFECT, SUPPORTED
from rollout.storage.checkpoint_files import is_whole
from tasks.quoting import quoted

LARGEST = 2**31 - 1  # of a size; larger ones are no indices
MOST_LAYERS = 10_000
ROPE_KINDS = ("rope_type", "type")  # the key that names the kind of scaling, now and earlier
PLAIN_ROPE = "default"  # the rope_type without scaled frequencies


class Settings:
    """The keys of a `config.json` that have not been read yet, and the file's name for error messages."""

    def __init__(self, raw: Mapping[str, Any], path: Path) -> None:
        self.path = path
        self._left = dict(raw)

    def error(self, key: str, value: object, expected: str) -> ValueError:
        """Return the error for a value of the wrong type or range."""
        return ValueError(f"{self.path}: {key} is {shown(value)}; expected {expected}")

    def unsupported(self, key: str, value: object, remedy: str) -> ValueError:
        """Return the error for a value that states a network that is not computed here."""
        return ValueError(f"{self.path}: {key}={shown(value)} is not supported; {remedy}")

    def size(self, key: str, largest: int = LARGEST) -> int:
        """Return a whole number from 1 to `largest`, which must be given."""
        value = self._left.pop(key, None)
        if not is_whole(value) or not 1 <= value <= largest:
            raise self.error(key, value, f"a whole number from 1 to {largest}")
        return value

    def optional_size(self, key: str) -> int | None:
        """Return a whole number above 0, or None if the key is missing."""
        return self.size(key) if key in self._left else None

    def require_given(self, key: str) -> None:
        """Refuse a checkpoint that leaves out a size."""
        if key not in self._left:
            raise self.error(key, None, "a whole number; state it")

    def number(self, key: str, default: float, allow_zero: bool = False) -> float:
        """Return a finite number above 0, written with a decimal point or an exponent, as transformers requires."""
        value = self._left.pop(key, default)
        if is_whole(value):
            raise self.error(key, value, f"a number such as {default}")
        return self._number(key, value, allow_zero)

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false."""
        value = self._left.pop(key, default)
        if not isinstance(value, bool):
            raise self.error(key, value, "true or false")
        return value

    def token_id(self, key: str, vocab_size: int) -> int | None:
        """Return the id of a token in the vocabulary, None if the key is missing or null."""
        value = self._left.pop(key, None)
        if value is not None and not (is_whole(value) and 0 <= value < vocab_size):
            raise self.error(key, value, f"a token id below vocab_size={vocab_size}, or null")
        return value

    def token_ids(self, key: str, vocab_size: int) -> int | tuple[int, ...] | None:
        """Return the id of a token in the vocabulary, several as a tuple in their order, None if there is none."""
        value = self._left.get(key)
        if not isinstance(value, list):
            return self.token_id(key, vocab_size)
        del self._left[key]
        if not value or not all(is_whole(each) and 0 <= each < vocab_size for each in value):
            raise self.error(key, value, f"token ids below vocab_size={vocab_size}, at least one; or null")
        return tuple(value)

    def rope_theta(self) -> float:
        """Return the rotary base from wherever transformers keeps it.

        transformers 5 writes `rope_parameters`, earlier versions `rope_theta` and `rope_scaling`. There is no default:
        a wrong base is a silent error.
        """
        stated = {"rope_theta": self._left.pop("rope_theta", None)}
        given = {key: self._left.pop(key, None) for key in ("rope_parameters", "rope_scaling")}
        if all(given.values()):  # transformers reads rope_scaling alone, vLLM merges the two
            raise ValueError(f"{self.path}: both rope_parameters and rope_scaling are given; remove rope_scaling")
        for key, parameters in given.items():
            if parameters is not None and not isinstance(parameters, dict):
                raise self.error(key, parameters, "a JSON object or null")
            # The kind of scaling first: its other parameters cannot be removed without it.
            for name, value in sorted((parameters or {}).items(), key=lambda item: item[0] not in ROPE_KINDS):
                if name == "rope_theta":
                    stated[f"{key}.{name}"] = self._number(f"{key}.{name}", value)
                elif name not in ROPE_KINDS:
                    raise self.unsupported(f"{key}.{name}", value, "expected plain rotary frequencies; remove it")
                elif value != PLAIN_ROPE:
                    remedy = f"expected {PLAIN_ROPE!r}; set {key} to null to use the model without scaled frequencies"
                    raise self.unsupported(f"{key}.{name}", value, remedy)
        found = {key: self._number(key, value) for key, value in stated.items() if value is not None}
        if not found:
            raise ValueError(f"{self.path}: neither rope_parameters.rope_theta nor rope_theta is given; state one")
        if len(set(found.values())) > 1:
            text = ", ".join(f"{key}={value:g}" for key, value in found.items())
            raise ValueError(f"{self.path}: {text} contradict each other; keep the one that the model was trained with")
        return next(iter(found.values()))

    def require_full_attention(self, num_layers: int) -> None:
        """Refuse layers with another kind of attention."""
        kinds = self._left.pop("layer_types", None)
        if kinds is not None and kinds != ["full_attention"] * num_layers:
            raise self.unsupported("layer_types", kinds, f"expected 'full_attention' for each of {num_layers} layers")

    def require_architecture(self, name: str) -> None:
        """Refuse a checkpoint whose network has another head than the one for the next token."""
        stated = self._left.pop("architectures", None)
        if stated not in (None, [], [name]):
            raise self.unsupported("architectures", stated, f'expected ["{name}"]; use a checkpoint of that class')

    def finish(self, supported: Mapping[str, tuple[tuple[object, ...], str]]) -> None:
        """Refuse each key that is left, unless it has no effect or a value that is supported.

        Args:
            supported: For keys of this family, the values that are supported and what to do about others, in addition
                to `SUPPORTED`.
        """
        rules = {**SUPPORTED, **supported}
        for key, value in self._left.items():
            if key in rules:
                values, remedy = rules[key]
                if not any(type(value) is type(each) and value == each for each in values):
                    raise self.unsupported(key, value, remedy)
            elif key not in NO_EFFECT and value is not None:
                raise ValueError(
                    f"{self.path}: {quoted(key)}={shown(value)} is an unknown key, and whether it changes the network "
                    "is not known; remove it if it has no effect on the logits"
                )

    def _number(self, key: str, value: object, allow_zero: bool = False) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
            if value > 0 or (allow_zero and value == 0):
                return float(value)
        raise self.error(key, value, "a finite number of 0 or more" if allow_zero else "a finite number above 0")


def shown(value: object) -> str:
    """Return a JSON value on one line, cut if it is long."""
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:50]}..."
