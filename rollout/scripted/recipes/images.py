"""Recipes on the Data axis for images, whose columns are pixels in row order; `unit_rows` is for texts too."""

import libcst as cst
import libcst.matchers as m

from rollout.scripted.recipes.data import IMPUTERS, SCALERS, position_after
from rollout.scripted.recipes.frame import fill_code, require_follows, require_numeric, table_code
from rollout.scripted.recipes.nodes import Cannot, code_of
from rollout.scripted.recipes.recipe import IMAGES, TEXT, Recipe
from rollout.scripted.recipes.script import UNIONS, VECTORIZERS, Script

DIFFERENCES = "make_union(FunctionTransformer(), FunctionTransformer(lambda x: np.diff(np.asarray(x), axis=1)))"
FIT = m.Call(func=m.Attribute(m.Name("model"), m.Name("fit")), args=[m.Arg(m.Name()), m.Arg(m.Name())])


def _unit_rows(script: Script) -> None:
    position = position_after(script, IMPUTERS | SCALERS | VECTORIZERS | UNIONS)
    script.add_step("sklearn.preprocessing", "Normalizer()", position)


def _edges(script: Script) -> None:
    require_numeric(script)
    script.require_numpy()
    script.require("sklearn.preprocessing", "FunctionTransformer")
    script.add_step("sklearn.pipeline", DIFFERENCES, position_after(script, IMPUTERS | SCALERS))


def _shifted(script: Script) -> None:
    table = table_code(script)
    if not script.is_classifier:
        raise Cannot("a shifted image would have another target")

    def with_copies(node: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(node, cst.Call)
        rows, labels = (code_of(argument.value) for argument in node.args)
        shifted = ", ".join(f"{rows}.shift({step}, axis=1, fill_value=0)" for step in (1, -1))
        return cst.parse_expression(f"model.fit(pd.concat([{rows}, {shifted}]), pd.concat([{labels}] * 3))")

    script.replace(FIT, with_copies, "the script has no line 'model.fit(X, y)'")
    if table not in code_of(script.expression("X")):  # neighbors in the table must be neighbors in the image
        require_follows(script)
        script.assign("X", f'{table}.select_dtypes("number"){fill_code(script)}')


RECIPES = (
    Recipe(
        "unit_rows",
        "Data",
        "harmless",
        (*IMAGES, *TEXT),
        (
            "Scale each row to unit length.",
            "Use Normalizer.",
            "Add a step that scales rows to unit length.",
            "Scale the rows to unit length.",
        ),
        (r"unit length", r"normalizer", r"length one"),
        _unit_rows,
    ),
    Recipe(
        "edges",
        "Data",
        "harmless",
        IMAGES,
        (
            "Add differences of pixels.",
            "Use differences of the pixels.",
            "Add the edges.",
            "Add the edges of the image.",
        ),
        (r"differences (of|between) (the )?(neighbou?r\w* )?pixels", r"edges( of the images?)?"),
        _edges,
    ),
    Recipe(
        "shifted_copies",
        "Data",
        "harmless",
        ("image-classification",),
        (
            "Add shifted copies of the images.",
            "Train on shifted copies too.",
            "Use shifted copies of the images.",
            "Train on shifted images too.",
        ),
        (r"shift(ed|ing)?( the)? (copies|images?)( of the images?)?", r"data augmentation", r"augment\w*"),
        _shifted,
    ),
)
