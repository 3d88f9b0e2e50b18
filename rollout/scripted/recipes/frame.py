"""The tables of a script: the expressions of their features, and how missing values are filled."""

import libcst as cst
import libcst.matchers as m

from rollout.scripted.recipes.nodes import Cannot, code_of, literal, root_name
from rollout.scripted.recipes.script import Script

Node = cst.BaseExpression
COLUMNS = m.Arg(keyword=m.Name("columns")) | m.Arg(keyword=m.Name("axis"))  # `drop` with one of these drops columns


def require_numeric(script: Script) -> None:
    """Raise Cannot if the script works on texts."""
    if script.is_text:
        raise Cannot("the script works on texts, there are no numeric columns")


def table_code(script: Script) -> str:
    """Return the code of all features of `train`, with non-numeric columns: `train.drop(columns=["id", "target"])`.

    The columns to drop come from the script: the target is the column of `y`, and the identifier is the column that `X`
    drops or that the submission contains.
    """
    require_numeric(script)
    if not script.imports("pandas", "pd"):
        raise Cannot("the script does not import pandas as pd")
    features = script.expression("X")
    if _origin(features) != "train" or _origin(script.expression("X_test")) != "test":
        raise Cannot("X and X_test are not made from the tables train and test")
    for call in m.findall(features, m.Call(func=m.Attribute(m.Name("train"), m.Name("drop")))):
        if not m.matches(call, m.Call(args=[m.ZeroOrMore(), COLUMNS, m.ZeroOrMore()])):
            raise Cannot("X drops rows of the table train")
        return code_of(call)
    return f"train.drop(columns=[{identifier(script)}, {_target(script)}])"


def _origin(node: Node) -> str:
    """Return the name of the table that columns are taken from."""
    for call in m.findall(node, m.Call(m.Attribute(m.Name("pd"), m.Name("get_dummies")), [m.Arg(), m.ZeroOrMore()])):
        assert isinstance(call, cst.Call)
        return root_name(call.args[0].value)
    return root_name(node)


def _column(table: str) -> m.Subscript:
    return m.Subscript(value=m.Name(table), slice=[m.SubscriptElement(m.Index(m.DoNotCare()))])


def _index(node: cst.CSTNode) -> Node:
    assert isinstance(node, cst.Subscript)
    inner = node.slice[0].slice
    assert isinstance(inner, cst.Index)
    return inner.value


def _target(script: Script) -> str:
    for node in m.findall(script.expression("y"), _column("train")):
        value = _index(node)
        named = script.expression(value.value) if isinstance(value, cst.Name) else value
        if isinstance(named, cst.SimpleString):
            return code_of(value)
        if isinstance(named, cst.List | cst.Tuple):
            return f"*{code_of(value)}"
    raise Cannot("I do not see which column is the target")


def identifier(script: Script) -> str:
    """Return the name of the identifier column as a quoted literal of the script.

    It is the column of `test` in the submission; if there is none, the only column that is read.
    """
    module = script.module
    new = m.findall(module, m.Assign([m.ZeroOrMore(), m.AssignTarget(_column("test")), m.ZeroOrMore()]))
    skipped = [node for line in new for node in m.findall(line, _column("test"))]  # columns that the script creates
    for places in (_submitted(module), [module]):
        nodes = [node for place in places for node in m.findall(place, _column("test")) if node not in skipped]
        names = {code_of(value) for node in nodes if isinstance(value := _index(node), cst.SimpleString)}
        if len(names) == 1:
            return names.pop()
        if names:
            break
    raise Cannot("I do not see which column is the identifier")


def _submitted(module: cst.Module) -> list[cst.CSTNode]:
    """Return the calls that write tables, and the lines that name a written table."""
    calls = m.findall(module, m.Call(func=m.Attribute(attr=m.Name("to_csv"))))
    tables = {root_name(call) for call in calls if isinstance(call, cst.Call)} - {"", "pd"}
    return [*calls, *(line for line in module.body for table in tables if m.findall(line, m.Name(table)))]


def require_follows(script: Script) -> None:
    """Raise Cannot unless `X_test` takes its columns from `X`."""
    if not m.findall(script.expression("X_test"), m.Attribute(m.Name("X"), m.Name("columns"))):
        raise Cannot("X_test does not take its columns from X")


def fill_code(script: Script) -> str:
    """Return the code that fills missing values of `X`, such as `.fillna(0)`, `` if there is none.

    Raises Cannot unless the fill value is one number, because other columns might lack any other value.
    """
    calls = m.findall(script.expression("X"), m.Call(func=m.Attribute(attr=m.Name("fillna"))))
    fills = {", ".join(code_of(each.value) for each in call.args) for call in calls if isinstance(call, cst.Call)}
    if not fills:
        return ""
    fill = fills.pop()
    if fills or not isinstance(literal(cst.parse_expression(fill)), int | float):
        raise Cannot("the gaps of X are not filled with a number")
    return f".fillna({fill})"


def without_fill(node: Node) -> Node:
    """Return a chain of method calls without those that fill missing values."""
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
        inner = without_fill(node.func.value)
        if node.func.attr.value == "fillna":
            return inner
        return node.with_changes(func=node.func.with_changes(value=inner))
    return node
