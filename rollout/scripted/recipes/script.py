"""A scikit-learn training script as a structure to edit: its assignments, pipeline steps and imports."""

from collections.abc import Callable

import libcst as cst
import libcst.matchers as m

from rollout.scripted.recipes.nodes import Cannot, call_name, code_of, parse_call, relist

# Estimators that wrap another one as their first argument; hyper-parameters belong to the inner one.
WRAPPERS = frozenset(
    {
        "TransformedTargetRegressor",
        "BaggingClassifier",
        "BaggingRegressor",
        "CalibratedClassifierCV",
        "GridSearchCV",
        "TunedThresholdClassifierCV",
    }
)
INNER = ("estimator", "regressor", "base_estimator")  # the keywords of that argument
# Estimators whose names do not end in Classifier or Regressor.
CLASSIFIERS = frozenset(
    {
        "LogisticRegression",
        "SVC",
        "LinearSVC",
        "GaussianNB",
        "MultinomialNB",
        "LinearDiscriminantAnalysis",
    }
)
REGRESSORS = frozenset({"LinearRegression", "Ridge", "Lasso", "ElasticNet", "SVR", "LinearSVR"})
VECTORIZERS = frozenset({"CountVectorizer", "TfidfVectorizer", "HashingVectorizer"})
UNIONS = frozenset({"make_union"})


class Script:
    """A parsed script. Edits happen in place, and `source()` returns the result; the rest stays untouched.

    Raises:
        Cannot: From every method that needs a part which the script lacks.
    """

    def __init__(self, source: str) -> None:
        try:
            self._module = cst.parse_module(source)
        except cst.ParserSyntaxError as error:
            raise Cannot(f"the script does not parse (line {error.raw_line})") from error
        self._body = list(self._module.body)

    @property
    def module(self) -> cst.Module:
        """The current syntax tree."""
        return self._module.with_changes(body=self._body)

    def source(self) -> str:
        """Return the current source."""
        return self.module.code

    def code(self, node: cst.CSTNode) -> str:
        """Return the source text of a node."""
        return code_of(node)

    def _find(self, name: str) -> tuple[int, cst.Assign]:
        for index, line in enumerate(self._body):
            if isinstance(line, cst.SimpleStatementLine) and isinstance(assign := line.body[0], cst.Assign):
                target = assign.targets[0].target
                if len(assign.targets) == 1 and isinstance(target, cst.Name) and target.value == name:
                    return index, assign
        raise Cannot(f"the script has no line '{name} = ...'")

    def expression(self, name: str) -> cst.BaseExpression:
        """Return the value of the first top-level `name = ...`."""
        return self._find(name)[1].value

    def assign(self, name: str, value: cst.BaseExpression | str) -> None:
        """Make the top-level `name = ...` assign `value`; raises Cannot if another line assigns that name too."""
        if sum(_assigned(line).count(name) for line in self._body) > 1:
            raise Cannot(f"the script assigns {name} more than once")
        index, old = self._find(name)
        line = self._body[index]
        assert isinstance(line, cst.SimpleStatementLine)
        value = cst.parse_expression(value) if isinstance(value, str) else value
        self._body[index] = line.with_changes(body=[old.with_changes(value=value), *line.body[1:]])

    def replace(self, matcher: m.BaseMatcherNode, new: Callable[[cst.CSTNode], cst.CSTNode], missing: str) -> None:
        """Replace every node that matches `matcher`; raises Cannot with the message `missing` if nothing changes."""
        before = self.module
        after = m.replace(before, matcher, lambda node, _: new(node))  # type: ignore[arg-type]
        assert isinstance(after, cst.Module)
        if after.code == before.code:
            raise Cannot(missing)
        self._module, self._body = after, list(after.body)

    def holds(self, matcher: m.BaseMatcherNode) -> bool:
        """Return whether any node matches `matcher`."""
        return bool(m.findall(self.module, matcher))

    def _imports(self) -> list[tuple[int, cst.Import | cst.ImportFrom]]:
        """Return the imports before the first assignment or block, each with the index of its line."""
        found: list[tuple[int, cst.Import | cst.ImportFrom]] = []
        for index, line in enumerate(self._body):
            if not isinstance(line, cst.SimpleStatementLine) or isinstance(line.body[0], cst.Assign | cst.AnnAssign):
                break
            if isinstance(first := line.body[0], cst.Import | cst.ImportFrom):
                found.append((index, first))
        return found

    def _first_position(self) -> int:
        """Return the index after the docstring and imports from `__future__`."""
        position = int(bool(self._body) and self.module.get_docstring(clean=False) is not None)
        futures = [index for index, line in self._imports() if _module_name(line) == "__future__"]
        return max([position, *(index + 1 for index in futures)])

    def require(self, module: str, name: str) -> None:
        """Add `from module import name` in alphabetical order, unless it is imported."""
        position = self._first_position()
        for index, line in self._imports():
            found = _module_name(line)
            if isinstance(line, cst.Import) or (found and found < module):
                position = max(position, index + 1)
            if found == module and not isinstance(line, cst.Import):
                old = self._body[index]
                assert isinstance(old, cst.SimpleStatementLine)
                self._body[index] = old.with_changes(body=[_with_import(line, name), *old.body[1:]])
                return
        self._body.insert(position, cst.parse_statement(f"from {module} import {name}"))

    def require_numpy(self) -> None:
        """Add `import numpy as np`, unless it is imported."""
        if not self.imports("numpy", "np"):
            plain = [index for index, line in self._imports() if isinstance(line, cst.Import)]
            position = min(
                [index for index in plain if index >= self._first_position()], default=self._first_position()
            )
            self._body.insert(position, cst.parse_statement("import numpy as np"))

    def imports(self, module: str, name: str) -> bool:
        """Return whether a line imports `module` as `name`."""
        aliases = [alias for _, line in self._imports() if isinstance(line, cst.Import) for alias in line.names]
        return any(alias.evaluated_name == module and (alias.evaluated_alias or module) == name for alias in aliases)

    @property
    def _pipeline(self) -> cst.Call:
        pipeline = self.expression("model")
        if not isinstance(pipeline, cst.Call) or call_name(pipeline) != "make_pipeline":
            raise Cannot("the script has no line 'model = make_pipeline(...)'")
        return pipeline

    @property
    def steps(self) -> list[cst.Call]:
        """The steps of `model = make_pipeline(...)`; the last one is the estimator."""
        arguments = self._pipeline.args
        steps = [a.value for a in arguments if isinstance(a.value, cst.Call) and a.keyword is None and not a.star]
        if not steps or len(steps) != len(arguments):
            raise Cannot("the steps of the pipeline are not all constructors")
        return steps

    def set_steps(self, steps: list[cst.Call]) -> None:
        """Replace the steps of the pipeline, keeping the layout and comments of steps that stay."""
        call = self._pipeline
        if len(steps) == len(call.args):
            new = [argument.with_changes(value=step) for argument, step in zip(call.args, steps, strict=True)]
        else:
            old = {id(argument.value): argument for argument in call.args}
            new = [old.get(id(step), cst.Arg(step)) for step in steps]
        self.assign("model", relist(call, new))

    def step_names(self) -> list[str]:
        """Return the constructor names of the steps."""
        return [call_name(step) for step in self.steps]

    def add_step(self, module: str, code: str, index: int) -> None:
        """Insert the step `code` before step `index`; raises Cannot if there is a step of the same name."""
        step, steps = parse_call(code), self.steps
        if call_name(step) in self.step_names():
            raise Cannot(f"{call_name(step)} is already in the pipeline")
        self.require(module, call_name(step))
        self.set_steps([*steps[:index], step, *steps[index:]])

    @property
    def core(self) -> cst.Call:
        """The innermost estimator of the last step."""
        return unwrap(self.steps[-1])

    def set_core(self, new: cst.Call) -> None:
        """Replace the innermost estimator, keeping its wrappers."""
        self.set_steps([*self.steps[:-1], _rewrap(self.steps[-1], new)])

    def set_estimator(self, new: cst.Call) -> None:
        """Replace the last step, keeping only a transformation of the target around it."""
        last = self.steps[-1]
        if call_name(last) == "TransformedTargetRegressor" and inner_index(last) is not None:
            new = _with_inner(last, new)
        self.set_steps([*self.steps[:-1], new])

    @property
    def vectorizer(self) -> cst.Call:
        """The vectorizer: the first step, or the first part of a union there."""
        first = self.steps[0]
        if call_name(first) in UNIONS and first.args and isinstance(part := first.args[0].value, cst.Call):
            first = part
        if call_name(first) not in VECTORIZERS:
            raise Cannot("the script has no texts")
        return first

    def set_vectorizer(self, new: cst.Call) -> None:
        """Replace the vectorizer."""
        first, old = self.steps[0], self.vectorizer
        if first is not old:
            new = first.with_changes(args=[first.args[0].with_changes(value=new), *first.args[1:]])
        self.set_steps([new, *self.steps[1:]])

    @property
    def is_text(self) -> bool:
        """Whether the pipeline starts from texts."""
        try:
            return bool(self.vectorizer)
        except Cannot:
            self.steps  # noqa: B018  # raises Cannot for a script without steps
            return False

    @property
    def is_classifier(self) -> bool:
        """Whether the estimator predicts classes."""
        name = call_name(self.core)
        if name.endswith("Classifier") or name in CLASSIFIERS:
            return True
        if name.endswith("Regressor") or name in REGRESSORS:
            return False
        raise Cannot(f"{name or 'the estimator'} is not known")

    @property
    def needs_probabilities(self) -> bool:
        """Whether the script asks the model for class probabilities."""
        return self.holds(m.Attribute(attr=m.Name("predict_proba")) | m.SimpleString(value='"predict_proba"'))

    def pick(self, classifier: str, regressor: str) -> str:
        """Return the first argument for a script that predicts classes, else the second."""
        return classifier if self.is_classifier else regressor


def _assigned(line: cst.CSTNode) -> list[str]:
    """Return the names that a top-level statement assigns."""
    targets: list[cst.CSTNode] = []
    for statement in line.body if isinstance(line, cst.SimpleStatementLine) else ():
        if isinstance(statement, cst.Assign):
            targets += [target.target for target in statement.targets]
        elif isinstance(statement, cst.AnnAssign | cst.AugAssign):
            targets.append(statement.target)
    parts = [list(t.elements) if isinstance(t, cst.Tuple | cst.List) else [t] for t in targets]
    names = [part.value if isinstance(part, cst.Element) else part for each in parts for part in each]
    return [name.value for name in names if isinstance(name, cst.Name)]


def _module_name(line: cst.Import | cst.ImportFrom) -> str:
    if isinstance(line, cst.Import) or line.module is None or line.relative:
        return ""
    return code_of(line.module)


def _with_import(line: cst.ImportFrom, name: str) -> cst.ImportFrom:
    if isinstance(line.names, cst.ImportStar):
        return line
    names = [alias.evaluated_name for alias in line.names]
    if any(alias.evaluated_name == name and alias.asname is None for alias in line.names):
        return line
    position = sum(other < name for other in names) if names == sorted(names) else len(names)
    new = cst.ImportAlias(cst.Name(name), comma=cst.Comma(whitespace_after=cst.SimpleWhitespace(" ")))
    if line.lpar is not None:  # never the last, so that closing lines and comments stay
        position = min(position, len(names) - 1)
        return line.with_changes(names=[*line.names[:position], new, *line.names[position:]])
    aliases = [a.with_changes(comma=new.comma) for a in (*line.names[:position], new, *line.names[position:])]
    return line.with_changes(names=[*aliases[:-1], aliases[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)])


def inner_index(call: cst.Call) -> int | None:
    """Return the index of the estimator among the arguments of a wrapper, None for other calls."""
    if call_name(call) not in WRAPPERS:
        return None
    for index, argument in enumerate(call.args):
        named = argument.keyword is not None and argument.keyword.value in INNER
        if (named or (index == 0 and argument.keyword is None)) and isinstance(argument.value, cst.Call):
            return index
    return None


def unwrap(call: cst.Call) -> cst.Call:
    """Return the innermost estimator of a call that may be a wrapper."""
    while (index := inner_index(call)) is not None:
        inner = call.args[index].value
        assert isinstance(inner, cst.Call)
        call = inner
    return call


def _with_inner(call: cst.Call, new: cst.Call) -> cst.Call:
    index = inner_index(call)
    assert index is not None
    return call.with_changes(
        args=[*call.args[:index], call.args[index].with_changes(value=new), *call.args[index + 1 :]]
    )


def _rewrap(call: cst.Call, new: cst.Call) -> cst.Call:
    if (index := inner_index(call)) is None:
        return new
    inner = call.args[index].value
    assert isinstance(inner, cst.Call)
    return _with_inner(call, _rewrap(inner, new))
