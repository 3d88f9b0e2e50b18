"""Classify an edit of a training script by the differences between the two syntax trees.

Compares the statements that only one of the two scripts has: the calls that were added or removed, the arguments of
calls that stayed, the variables that are assigned, and the classes and functions around them. Runs and imports nothing,
and needs no vocabulary of a coder.
"""

import ast
import copy
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from rollout.dataset.edit_vocabulary import (
    CALLS,
    KEYWORDS,
    LAYERS,
    PRIORITY,
    VARIABLES,
    Category,
    category_of,
)

BODIES = ("body", "orelse", "finalbody", "handlers", "cases")
MODULE_CLASSES = ("Module", "LightningModule", "Model")

Arguments = Mapping[str, str]  # keyword, or place -> source of the value, each call inside it as `_`


@dataclass(frozen=True)
class Statement:
    """A statement without the statements inside it.

    Attributes:
        node: The syntax tree. The body of a compound statement, such as a loop, is replaced by `pass`.
        text: Its source in normal form.
        in_network: Whether it belongs to a class of a neural network.
        function: The function that it belongs to, empty for none.
    """

    node: ast.stmt
    text: str
    in_network: bool
    function: str

    @cached_property
    def calls(self) -> list[tuple[tuple[str, bool], Arguments]]:
        """Its calls, each as (last part of the called name, whether it is an argument of `fit`) and arguments."""
        return _calls_in(self.node)

    @cached_property
    def names(self) -> frozenset[str]:
        """Its variables, or the function around it if it has none."""
        return _variables(self.node) or frozenset({self.function})


def edit_categories(before: str, after: str) -> tuple[Category, ...]:
    """Return the categories of an edit, the primary one first.

    An edit may have several categories, except that `no change`, `cosmetic` and `unparsable` are always the only one,
    as is `other`, for an edit that no rule matches or whose syntax trees are too deep to compare. A script that did not
    parse before the edit is compared as an empty one.
    """
    if before == after:
        return ("no change",)
    try:
        return _compare(before, after)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # Deep chains of calls or operators and integers of thousands of digits parse, but cannot be written as source.
        return ("other",)


def _compare(before: str, after: str) -> tuple[Category, ...]:
    new = _parse(after)
    if new is None:
        return ("unparsable",)
    old = _parse(before) or ast.Module(body=[], type_ignores=[])
    if ast.dump(old) == ast.dump(new) or _differ_in_names_only(old, new):
        return ("cosmetic",)
    removed, added = _changed_statements(old, new)
    if all(isinstance(statement.node, ast.Import | ast.ImportFrom) for statement in (*removed, *added)):
        return ("other",) if not removed and not added else ("cosmetic",)
    found = _categories_of_calls(removed, added) | _categories_of_contexts(removed, added)
    return tuple(category for category in PRIORITY if category in found) or ("other",)


def _parse(source: str) -> ast.Module | None:
    """Return the syntax tree without docstrings, None if the source is not Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [each for each in node.body if not _is_docstring(each)] or [ast.Pass()]
    return tree


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _differ_in_names_only(old: ast.Module, new: ast.Module) -> bool:
    # Counting nodes is cheap, and rules out nearly every edit.
    has_equal_size = sum(1 for _ in ast.walk(old)) == sum(1 for _ in ast.walk(new))
    return has_equal_size and _with_plain_names(old) == _with_plain_names(new)


def _with_plain_names(tree: ast.Module) -> str:
    """Return the tree with the script's own names numbered, so that scripts that differ only in them are equal."""
    own = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    own |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    numbers: dict[str, str] = {}
    renamed = ast.parse(ast.unparse(tree))
    for node in ast.walk(renamed):
        for field in ("id", "arg", "name"):
            name = getattr(node, field, None)
            if name in own and not isinstance(node, ast.keyword | ast.alias):
                setattr(node, field, numbers.setdefault(name, f"name{len(numbers)}"))
    return ast.dump(renamed)


def _changed_statements(old: ast.Module, new: ast.Module) -> tuple[list[Statement], list[Statement]]:
    """Return the statements that only the old script has, and those that only the new one has."""
    before, after = list(_statements(old.body)), list(_statements(new.body))
    return _without(before, after), _without(after, before)


def _without(statements: Sequence[Statement], others: Sequence[Statement]) -> list[Statement]:
    left = Counter(statement.text for statement in others)
    changed = []
    for statement in statements:
        if left[statement.text]:
            left[statement.text] -= 1
        else:
            changed.append(statement)
    return changed


def _statements(body: Sequence[ast.AST], in_network: bool = False, function: str = "") -> Iterator[Statement]:
    for node in body:
        inner = [(name, getattr(node, name)) for name in BODIES if isinstance(getattr(node, name, None), list)]
        network = in_network or isinstance(node, ast.ClassDef) and any(_is_module(base) for base in node.bases)
        if isinstance(node, ast.stmt):
            header = _without_body(node)
            yield Statement(header, ast.unparse(header), network, function)
        scope = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        for _, statements in inner:
            yield from _statements(statements, network, scope)


def _without_body(node: ast.stmt) -> ast.stmt:
    header = copy.copy(node)
    for name in BODIES:
        if isinstance(getattr(node, name, None), list):
            setattr(header, name, [ast.Pass()] if name == "body" else [])
    return header


def _is_module(base: ast.expr) -> bool:
    return (base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")) in MODULE_CLASSES


def _categories_of_calls(removed: Sequence[Statement], added: Sequence[Statement]) -> set[Category]:
    """Return the categories of added and removed calls, and of changed arguments of calls that stayed."""
    old, new = _calls(removed), _calls(added)
    found: set[Category | None] = set()
    for name, of_fit in {*old, *new}:
        before, after = list(old[name, of_fit]), list(new[name, of_fit])
        for call in list(before):
            if call in after:
                before.remove(call)
                after.remove(call)
        category = category_of(name, CALLS)
        if of_fit and category == "features":  # such as `model.fit(pd.concat([X, shifted]), y)`
            category = "augmentation"
        for one, other in zip(before, after, strict=False):
            found |= {_category_of_argument(key, name, category) for key in _changed_arguments(one, other)}
        if len(before) != len(after):
            found.add(category)
    return {category for category in found if category is not None}


def _changed_arguments(before: Arguments, after: Arguments) -> set[str]:
    return {key for key in {*before, *after} if before.get(key) != after.get(key)}


def _category_of_argument(key: str, name: str, of_call: Category | None) -> Category | None:
    """Return the category of a change to the argument `key` of a call of `name`, whose own category is `of_call`."""
    if LAYERS.fullmatch(name):
        return "model"
    if of_call == "loss" and key.isdigit():  # a metric of other predictions is the same metric
        return None
    known = category_of(key, KEYWORDS)
    # Steps of a vectorizer or scaler that share a keyword with an estimator are still steps.
    if known in ("hyper-parameters", "loss") and of_call not in (None, "model", "training", "loss", "ensembling"):
        return of_call
    if known is not None:
        return known
    return "hyper-parameters" if of_call == "model" else of_call


def _calls(statements: Sequence[Statement]) -> defaultdict[tuple[str, bool], list[Arguments]]:
    """Return the arguments of the calls by (last part of the called name, whether it is an argument of `fit`)."""
    found: defaultdict[tuple[str, bool], list[Arguments]] = defaultdict(list)
    for statement in statements:
        for key, arguments in statement.calls:
            found[key].append(arguments)
    return found


def _calls_in(node: ast.stmt) -> list[tuple[tuple[str, bool], Arguments]]:
    calls = [each for each in ast.walk(node) if isinstance(each, ast.Call)]
    of_fit = {id(inner) for call in calls if _name(call) == "fit" for each in call.args for inner in ast.walk(each)}
    return [((_name(call), id(call) in of_fit), _arguments(call)) for call in calls]


def _arguments(call: ast.Call) -> Arguments:
    arguments = {str(index): _plain(value) for index, value in enumerate(call.args)}
    return arguments | {f"{keyword.arg}": _plain(keyword.value) for keyword in call.keywords}


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


class _WithoutCalls(ast.NodeTransformer):
    def visit_Call(self, node: ast.Call) -> ast.AST:
        return ast.copy_location(ast.Name("_", ast.Load()), node)


def _plain(node: ast.expr) -> str:
    """Return the source of an argument, each call inside it as `_`."""
    return ast.unparse(_WithoutCalls().visit(copy.deepcopy(node)))


def _categories_of_contexts(removed: Sequence[Statement], added: Sequence[Statement]) -> set[Category]:
    """Return the categories of the classes, functions and variables of changed statements.

    The variable of a statement, or the function around a statement without one, counts only if no changed call in the
    statement has a category.
    """
    found: set[Category] = set()
    for statements, others in ((removed, added), (added, removed)):
        by_name: defaultdict[str, list[Statement]] = defaultdict(list)
        for other in others:
            for name in other.names:
                by_name[name].append(other)
        for statement in statements:
            node = statement.node
            if statement.in_network:
                found.add("model")
            elif isinstance(node, ast.FunctionDef) and (category := category_of(node.name, CALLS)) is not None:
                found.add(category)
            elif not isinstance(node, ast.Import | ast.ImportFrom):
                counterparts = {id(other): other for name in statement.names for other in by_name[name]}
                if not _categories_of_calls([statement], list(counterparts.values())):
                    found |= {c for name in statement.names if (c := category_of(name, VARIABLES)) is not None}
    return found


def _variables(node: ast.stmt) -> frozenset[str]:
    """Return the variables that a statement assigns, adds to or loops over; `X` for `X["a"]`."""
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign | ast.For):
        targets = [node.target]
    else:
        return frozenset()
    return frozenset(
        name.id
        for target in targets
        for name in ast.walk(target)
        if isinstance(name, ast.Name) and (isinstance(name.ctx, ast.Store) or _root(target) == name.id)
    )


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
