"""Load a `Config` from YAML and `key.sub=value` settings, and write it as YAML; every error is one line."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import is_pydantic_dataclass

from mlagent_jax.configuration.checks import SIZES, check
from mlagent_jax.configuration.schema import Config, ConfigError
from tasks.nearest import closest
from tasks.quoting import one_line, setting, user_path

# The patterns of numbers, by YAML's types. YAML 1.1 also reads octal numbers, times and dates.
DECIMAL = r"(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
NUMBERS = {
    "int": r"^[-+]?(?:0|[1-9][0-9_]{0,99}|0x[0-9a-fA-F]{1,99})$",
    "float": rf"^(?:[-+]?(?:{DECIMAL}|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN))$",
    "timestamp": "",
}
COMMENT = re.compile(r"\s#")
QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"  # in a checkout; a wheel has no configs/


class _Loader(yaml.SafeLoader):
    """A YAML loader whose numbers are decimal: 1e-5 is one; 010 (octal), 12:30 (base 60) and dates are texts.

    A repeated key is an error, and so is one that is no name.
    """

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in NUMBERS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping of `node`; raise ConfigError for a repeated key, or one that is no name."""
        seen = set()
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"line {line}: a key is a list or a section; expected a name")
            if key_node.value in seen:
                raise ConfigError(f"line {line}: the key {key_node.value} is given twice")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


for _type, _pattern in NUMBERS.items():
    if _pattern:
        _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_type}", re.compile(_pattern), list("-+.0123456789"))


@dataclass(frozen=True)
class Key:
    """A key of the configuration: its dotted name, its default as YAML, and its meaning."""

    name: str
    default: str
    meaning: str


def keys(section: Any = Config, defaults: Any = None, prefix: str = "") -> Iterator[Key]:
    """Yield every key in the order of the dataclasses.

    Args:
        section: The dataclass whose keys are yielded.
        defaults: An instance of `section` with the default values; None for those of the class.
        prefix: The dotted name of the section with a trailing dot; empty for the whole configuration.
    """
    defaults = section() if defaults is None else defaults
    for name in section.__pydantic_fields__:
        default = getattr(defaults, name)
        if is_pydantic_dataclass(type(default)):
            yield from keys(type(default), default, f"{prefix}{name}.")
        else:
            # Pydantic reads the strings of a class itself, not of those that it derives from.
            stated = (getattr(base, "__pydantic_fields__", {}).get(name) for base in section.__mro__)
            meaning = next((field.description for field in stated if field and field.description), None)
            assert meaning, f"{prefix}{name} has no meaning written under it"
            yield Key(f"{prefix}{name}", _inline(_jsonable(default)), " ".join(meaning.split()))


def load_config(path: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Return the configuration of a YAML file with `key.sub=value` overrides.

    A key that the file leaves out has the value of the file named by its key `base`, relative to the file, or else its
    default. A file or the overrides that give `model.path` also reset the sizes of the model to null, the checkpoint's.

    Args:
        path: The YAML file; None for the quickstart's.
        overrides: Settings that replace those of the file.

    Raises:
        ConfigError: If a key is unknown, a value has the wrong type, or values contradict each other.
        OSError: If the file cannot be read.
    """
    changed: dict[str, Any] = {}
    for override in overrides:
        _override(changed, override)
    tree = to_dict(Config())
    for layer in (*read_layers(path or _quickstart()), changed):
        tree = merge(tree, layer)
    try:
        # JSON mode: strict about types, but a YAML list may stand for a tuple.
        config = TypeAdapter(Config).validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        raise ConfigError(_wrong_value(error)) from None
    check(config)
    return config


def read_layers(path: Path) -> list[dict[str, Any]]:
    """Return the settings of a file, preceded by those of its base if it has one.

    Raises:
        ConfigError: If the file is not YAML with keys and values, or its base has a base.
        OSError: If a file cannot be read.
    """
    tree = _read(path)
    if "base" not in tree:
        return [tree]
    name = tree.pop("base")
    if not isinstance(name, str):
        raise ConfigError(f"{path}: base: got {_inline(name)[:60]}, expected a file name, such as quickstart.yaml")
    base = _read(path.parent / user_path(name))
    if "base" in base:
        raise ConfigError(f"{path}: its base {name} has a base itself; expected a file without one")
    return [base, tree]


def merge(tree: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of `tree` replaced by those of `layer`.

    Raises:
        ConfigError: If `layer` has an unknown key.
    """
    names = {key.name for key in keys()}
    for name in _leaves(layer, names):
        if name not in names:
            raise ConfigError(_unknown(name, names))
    if layer.get("model", {}).get("path") is not None:
        tree = _replaced(tree, {"model": dict.fromkeys(SIZES), "tokenizer": {"vocab_size": None}})
    return _replaced(tree, layer)


def to_dict(config: Config) -> dict[str, Any]:
    """Return the configuration as nested dictionaries of plain values."""
    return _jsonable(asdict(config))


def to_yaml(config: Config) -> str:
    """Return the configuration as YAML with every key; `load_config` reads the same configuration from it."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def _quickstart() -> Path:
    if not QUICKSTART.is_file():
        raise ConfigError(f"{QUICKSTART}: no such file; outside a checkout of the project, give --config FILE")
    return QUICKSTART


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    tree = _parse(text, str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values, got {_inline(tree)[:60]}")
    return tree


def _replaced(tree: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return `tree` with the leaves of `layer` in place of its own."""
    found = dict(tree)
    for key, value in layer.items():
        nested = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = _replaced(found[key], value) if nested else value
    return found


def _jsonable(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _inline(value: Any) -> str:
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("\n...\n").strip()
    )


def _parse(text: str, source: str) -> Any:
    try:
        value = yaml.load(text, _Loader)  # a SafeLoader
        json.dumps(value, default=str)
        return value
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{source}: {place}not YAML ({error.problem or error.context}); correct that place") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML ({' '.join(str(error).split())}); correct that place") from None
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{source}: a value holds itself, or is nested too deeply; write it out") from None


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
    value = _parse(text, override)
    if COMMENT.search(text) and not text.lstrip().startswith(("'", '"', "[", "{")):
        remedy = f"if it belongs to the value, give {setting(name, text)}"
        raise ConfigError(f"{override}: a comment begins at ' #'; {remedy}")
    tree[leaf] = value


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
    """Return the error text for an unknown key, with the nearest known one."""
    by_leaf: dict[str, str] = {}
    for known in sorted(names):
        by_leaf.setdefault(known.rpartition(".")[2], known)
    name = one_line(name)
    near = closest(name, names, cutoff=0.7)
    leaf = closest(name.rpartition(".")[2], by_leaf, cutoff=0.7)
    if near or leaf:
        return f"unknown key {name}; did you mean {near or by_leaf[leaf]}?"
    return f"unknown key {name}; --help-keys lists every key"


def _wrong_value(error: ValidationError) -> str:
    """Return pydantic's first error as: key, got, expected, meaning."""
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    meaning = next((key.meaning for key in keys() if name == key.name or name.startswith(f"{key.name}.")), "")
    expected = first["msg"].removeprefix("Input should be ").replace("a valid array", "a list, such as [a, b]")
    return f"{name}: got {_inline(first['input'])[:80]}, expected {expected} ({meaning})"
