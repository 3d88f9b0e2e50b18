"""From YAML and `key.sub=value` to a checked `Config`, and back; every complaint is one line."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import is_pydantic_dataclass

from mlagent_jax.configuration.checks import check
from mlagent_jax.configuration.schema import Config, ConfigError
from tasks.nearest import closest


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with two of its traps closed: `1e-5` is a number, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping of `node`, refusing a repeated key."""
        seen = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise ConfigError(f"line {key_node.start_mark.line + 1}: the key {key_node.value} is given twice")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@dataclass(frozen=True)
class Key:
    """One setting: its dotted name, its default as YAML text, and what it means."""

    name: str
    default: str
    meaning: str


def keys(section: type = Config, prefix: str = "") -> Iterator[Key]:
    """Yield every setting there is, in the order of the dataclasses."""
    for name, info in section.__pydantic_fields__.items():
        assert info.annotation is not None
        if is_pydantic_dataclass(info.annotation):
            yield from keys(info.annotation, f"{prefix}{name}.")
        else:
            assert info.description, f"{prefix}{name} has no meaning written under it"
            yield Key(f"{prefix}{name}", _inline(_jsonable(info.default)), info.description)


def load_config(path: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Return the configuration of a YAML file with `key.sub=value` overrides; without a file, the quickstart's.

    Keys that the file leaves out have their defaults.

    Raises:
        ConfigError: for an unknown key, a value of the wrong type, or values that do not go together.
        OSError: if the file cannot be read.
    """
    tree = {} if path is None else _parse(path.read_text(), str(path))
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values, got {_inline(tree)[:60]}")
    for override in overrides:
        _override(tree, override)
    names = {key.name for key in keys()}
    for name in _leaves(tree, names):
        if name not in names:
            raise ConfigError(_unknown(name, names))
    try:
        # JSON mode: strict about types, yet a YAML list may stand for a tuple.
        config = TypeAdapter(Config).validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        raise ConfigError(_wrong_value(error)) from None
    check(config)
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """Return the configuration as nested dictionaries of plain values."""
    return _jsonable(asdict(config))


def to_yaml(config: Config) -> str:
    """Return the configuration as YAML that `load_config` reads back as the same."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def _jsonable(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _inline(value: Any) -> str:
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("\n...\n").strip()
    )


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML: {' '.join(str(error).split())}") from None
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def _override(tree: dict[str, Any], override: str) -> None:
    """Set one `key.sub=value` in `tree`."""
    name, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"'{override}' is not understood; give a setting as key.sub=value, such as ppo.num_updates=8")
    *sections, leaf = name.split(".")
    for section in sections:
        inner = tree.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(_unknown(name, {key.name for key in keys()}))
        tree = inner
    tree[leaf] = _parse(text, override)


def _leaves(tree: Mapping[Any, Any], names: set[str], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of the values in `tree`."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if name not in names and any(known.startswith(f"{name}.") for known in names):
            if not isinstance(value, dict):
                inside = ", ".join(known for known in sorted(names) if known.startswith(f"{name}."))
                raise ConfigError(f"{name} is a section, got {_inline(value)[:60]}; it holds the keys {inside}")
            yield from _leaves(value, names, f"{name}.")
        elif name not in names and isinstance(value, dict) and value:
            yield from _leaves(value, names, f"{name}.")  # an unknown section: name the whole key
        else:
            yield name


def _unknown(name: str, names: set[str]) -> str:
    """Return the complaint about a key that does not exist, with the nearest that does."""
    by_leaf: dict[str, str] = {}
    for known in sorted(names):
        by_leaf.setdefault(known.rpartition(".")[2], known)
    near = closest(name, names, cutoff=0.7)
    leaf = closest(name.rpartition(".")[2], by_leaf, cutoff=0.7)
    if near or leaf:
        return f"unknown key {name}; did you mean {near or by_leaf[leaf]}?"
    return f"unknown key {name}; --help lists every key"


def _wrong_value(error: ValidationError) -> str:
    """Return the first complaint of pydantic as: key, got, expected, meaning."""
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    meaning = next((key.meaning for key in keys() if name == key.name or name.startswith(f"{key.name}.")), "")
    expected = first["msg"].removeprefix("Input should be ").replace("a valid array", "a list, such as [a, b]")
    return f"{name}: got {_inline(first['input'])[:80]}, expected {expected} ({meaning})"
