"""Everything that the documentation names exists: links, anchors, commands, files, settings; and its prose is plain."""

import ast
import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from mlagent_jax.configuration.loading import keys

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "deploy").rglob("*.md"),
    ]
)
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
README_WORDS = 900
FORBIDDEN = (
    "anew|dear|mend|whoever|by halves|as it were|goes by|no more than|in hand|put right|at one time|"
    r"\w*colour\w*|\w*favour\w*|behaviour|neighbour\w*|normalis\w+|utilis\w+|generalis\w+|optimis(?:e|ed|es|ing|ation)|licence|centred|"
    "recipe expert|offline expert|offline coder|training tasks|weight sync"
)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^()\s]+)\)")
TOP_FOLDERS = ("tasks", "rollout", "mlagent_jax", "benchmarks", "tests", "configs", "deploy", "docs", "requirements")


def prose(text: str) -> str:
    """Return the text without code, links and comments."""
    text = re.sub(r"<!--.*?-->", " ", FENCE.sub(" ", text), flags=re.DOTALL)
    return re.sub(r"https?://\S+", " ", LINK.sub("]", CODE.sub(" ", text)))


def code(text: str) -> Iterator[str]:
    """Yield the content of every code block, line by line, and of every code span."""
    for block in FENCE.findall(text):
        yield from block.splitlines()[1:-1]
    yield from CODE.findall(FENCE.sub(" ", text))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as a code host and the site make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub(" ", page.read_text()), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_relative_links_and_anchors_exist(page: Path) -> None:
    wrong = []
    for link in LINK.findall(FENCE.sub(" ", page.read_text())):
        if link.startswith(("http:", "https:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.is_relative_to(ROOT) or not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_named_files_exist(page: Path) -> None:
    pattern = re.compile(rf"(?:{'|'.join(TOP_FOLDERS)})/[\w./-]*")
    names = {span for span in CODE.findall(FENCE.sub(" ", page.read_text())) if pattern.fullmatch(span)}
    assert sorted(name for name in names if not (ROOT / name).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_named_modules_and_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    wrong = []
    for line in code(page.read_text()):
        for module in re.findall(r"python -m ((?:mlagent_jax|rollout|tasks|benchmarks)[\w.]*)", line):
            if module != "benchmarks.NAME" and importlib.util.find_spec(module.rstrip(".")) is None:
                wrong.append(module)
        wrong += [target for target in re.findall(r"(?:^|\s)make ([a-z][\w-]*)", line) if target not in targets]
    assert wrong == []


def import_ours(name: str) -> ModuleType | None:
    """Return a module of ours, None if it needs a package of an extra that is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(TOP_FOLDERS):
            raise
        return None


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_examples_in_python_give_functions_the_arguments_that_they_take(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        tree = ast.parse(block)
        functions = {
            alias.name: getattr(module, alias.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(TOP_FOLDERS)
            if (module := import_ours(node.module)) is not None
            for alias in node.names
        }
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in functions:
                keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
                inspect.signature(functions[call.func.id]).bind(*call.args, **keywords)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_named_subcommands_exist(page: Path) -> None:
    commands = pytest.importorskip("mlagent_jax.cli").COMMANDS
    named = {name for line in code(page.read_text()) for name in re.findall(r"\bmlagent (?:-\S+ )*([a-z]+)\b", line)}
    assert named - commands.keys() == set()


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_named_settings_exist(page: Path) -> None:
    known = {key.name for key in keys()}
    sections = {name.split(".")[0] for name in known if "." in name}
    pattern = re.compile(rf"((?:{'|'.join(sections)})\.(?!log|html|json)\w+)(?:=\S+)?")
    spans = (pattern.fullmatch(span) for span in CODE.findall(FENCE.sub(" ", page.read_text())))
    assert {match[1] for match in spans if match} - known == set()


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_prose_uses_plain_words(page: Path) -> None:
    found = re.findall(rf"\b(?:{FORBIDDEN})\b", prose(page.read_text()), re.IGNORECASE)
    assert found == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= README_WORDS


def test_every_page_is_in_the_site_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    listed = re.findall(r"[\w/-]+\.md", navigation)
    assert sorted(listed) == sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))


def test_benchmarks_state_their_command() -> None:
    for path in (ROOT / "benchmarks").glob("*.py"):
        if "argparse" in path.read_text():
            text = ast.get_docstring(ast.parse(path.read_text()))
            assert text is not None and f"python -m benchmarks.{path.stem}" in text, path.name
