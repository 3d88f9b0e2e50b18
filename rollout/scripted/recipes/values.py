"""Read and set the keywords of a script's estimator."""

import libcst as cst
import libcst.matchers as m

from rollout.scripted.recipes.nodes import Cannot, argument, call_name, code_of, keyword, with_keyword
from rollout.scripted.recipes.script import Script, inner_index


def lacks(script: Script, part: str) -> Cannot:
    """Return the error for an estimator that has no `part`, such as a learning rate."""
    return Cannot(f"{call_name(script.core) or 'the model'} has no {part}")


def number(call: cst.Call, name: str, default: float, none: float | None = None) -> float:
    """Return the number of a keyword, `default` if it is absent, `none` if it is None.

    Raises Cannot for other values, such as a variable.
    """
    written = argument(call, name)
    if written is None:
        return default
    if none is not None and code_of(written) == "None":
        return none
    value = keyword(call, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Cannot(f"{name} is not written as a number")
    return value


def set_parameter(script: Script, name: str, value: object) -> None:
    """Set a keyword of the estimator; raises Cannot if that changes nothing, or arguments are positional."""
    if keyword(script.core, name) == value:
        raise Cannot(f"{name} is already {value!r}")
    if any(argument.keyword is None and not isinstance(argument.value, cst.List) for argument in script.core.args):
        raise Cannot(f"the arguments of {call_name(script.core)} have no names")
    if name in searched(script):
        raise Cannot(f"{name} is already searched by cross validation")
    script.set_core(with_keyword(script.core, name, value))


def searched(script: Script) -> frozenset[str]:
    """Return the keywords that a grid search around the estimator sets; raises Cannot if its grid is not literal."""
    call, names = script.steps[-1], frozenset[str]()
    while (index := inner_index(call)) is not None:
        if call_name(call) == "GridSearchCV":
            names |= _grid_names(script, call)
        inner = call.args[index].value
        assert isinstance(inner, cst.Call)
        call = inner
    return names


def _grid_names(script: Script, search: cst.Call) -> frozenset[str]:
    grid = argument(search, "param_grid")
    if grid is None and len(search.args) > 1 and search.args[1].keyword is None:
        grid = search.args[1].value
    if isinstance(grid, cst.Name):
        grid = script.expression(grid.value)
    names: set[str] = set()
    for node in m.findall(grid, m.SimpleString() | m.Arg(keyword=m.Name())) if grid is not None else ():
        if isinstance(node, cst.Arg) and node.keyword is not None:
            names.add(node.keyword.value)
        elif isinstance(node, cst.SimpleString):
            names.add(str(node.evaluated_value).rpartition("__")[2])
    if not names:
        raise Cannot("the grid of the search is not written out")
    return frozenset(names)
