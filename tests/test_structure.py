"""The shape of the source: import cycles, sizes, and which modules know the configuration and the run directory."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("tasks", "rollout", "mlagent_jax")
COMMANDS = {"train", "compile", "convert", "export", "server", "cli", "__main__"}
TOP = {f"mlagent_jax.{name}" for name in (*COMMANDS, "pipeline", "plans")}
KNOWING = ("mlagent_jax.stages.", "mlagent_jax.configuration.", "mlagent_jax.doctor.")
MAX_LINES, MAX_FUNCTION_LINES, MEDIAN_LINES = 400, 60, range(100, 201)
AGENT_FILES = ("tasks/catalog", "tasks/paper")  # scripts that agents start from, and their data's preparation


def sources(*packages: str, root: Path = ROOT) -> dict[str, Path]:
    """Every module of the packages by its dotted name; a package is named `pkg.__init__`."""
    found = {}
    for package in packages or PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            relative = path.relative_to(root)
            if not str(relative).startswith(AGENT_FILES):
                found[".".join(relative.with_suffix("").parts)] = path
    return found


def imported(tree: ast.Module, modules: Mapping[str, Path]) -> Iterator[str]:
    """The modules among `modules` that a file imports, at its top or in a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            for each in (name, f"{name}.__init__", name.rpartition(".")[0], f"{name.rpartition('.')[0]}.__init__"):
                if each in modules:
                    yield each
                    break


def cycle(edges: Mapping[str, set[str]]) -> list[str]:
    """One cycle of the graph, empty if there is none."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def graph(root: Path = ROOT) -> dict[str, set[str]]:
    """Who imports whom; `__main__.py` files are entry points, which may import from any package."""
    modules = {name: path for name, path in sources(root=root).items() if not name.endswith("__main__")}
    return {name: set(imported(ast.parse(path.read_text()), modules)) - {name} for name, path in modules.items()}


def levels(edges: Mapping[str, set[str]]) -> dict[str, dict[str, set[str]]]:
    """For each folder, who imports whom among its files and subfolders, a subfolder counting as one."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for source, targets in edges.items():
        for target in targets:
            a, b = source.split("."), target.split(".")
            shared = next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
            found[".".join(a[:shared])][a[shared]].add(b[shared])
    return found


def test_no_import_cycle_between_files() -> None:
    assert cycle(graph()) == []


def test_no_import_cycle_between_folders() -> None:
    found = {folder: cycle(edges) for folder, edges in levels(graph()).items()}
    assert {folder: each for folder, each in found.items() if each} == {}


def test_planted_cycles_are_found(tmp_path: Path) -> None:
    for package in PACKAGES:
        (tmp_path / package).mkdir()
    near, far = tmp_path / "rollout" / "near", tmp_path / "rollout" / "far"
    for folder in (near, far):
        folder.mkdir()
    (near / "one.py").write_text("from rollout.far import two\n")
    (far / "two.py").write_text("x = 1\n")
    assert not cycle(levels(graph(tmp_path))["rollout"])
    (far / "three.py").write_text("def f():\n    from rollout.near.one import x\n")
    assert set(cycle(levels(graph(tmp_path))["rollout"])) == {"near", "far"}
    assert cycle(graph(tmp_path)) == []
    (far / "two.py").write_text("import rollout.near.one\n")
    assert cycle(graph(tmp_path)) != []


def test_only_commands_pipeline_and_stages_know_config_and_run_dir() -> None:
    found = set()
    for name, path in sources("rollout", "mlagent_jax").items():
        if name in TOP or name.startswith(KNOWING):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and {"Config", "RunDir"} & {alias.name for alias in node.names}:
                found.add(name)
    assert found == set()


def test_files_and_functions_are_short() -> None:
    lines = {name: len(path.read_text().splitlines()) for name, path in sources().items()}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}
    assert int(median(count for name, count in lines.items() if not name.endswith("__init__"))) in MEDIAN_LINES
    long = {}
    for name, path in sources().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not parses_arguments(node):
                size = (node.end_lineno or 0) - node.lineno + 1
                if size > MAX_FUNCTION_LINES:
                    long[f"{name}.{node.name}"] = size
    assert long == {}


def parses_arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return "add_argument" in ast.unparse(function)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_say_what_they_are_for(package: str) -> None:
    folders = [folder for folder in (ROOT / package).rglob("*") if folder.is_dir() and any(folder.glob("*.py"))]
    inits = [folder / "__init__.py" for folder in folders if not str(folder.relative_to(ROOT)).startswith(AGENT_FILES)]
    missing = [path for path in inits if not path.exists() or not ast.get_docstring(ast.parse(path.read_text()))]
    assert missing == []
