"""A scikit-learn training script as a structure that recipes edit: its assignments, pipeline steps and imports."""

import ast

import libcst as cst

# An estimator that holds another one as its first argument; hyper-parameters are those of the inner one.
WRAPPERS = frozenset(
    {"TransformedTargetRegressor", "BaggingClassifier", "BaggingRegressor", "CalibratedClassifierCV", "GridSearchCV"}
)
# Estimators whose names do not end in what they are.
CLASSIFIERS = frozenset({"LogisticRegression", "SVC", "LinearSVC", "GaussianNB", "MultinomialNB"})
REGRESSORS = frozenset({"LinearRegression", "Ridge", "Lasso", "SVR"})
VECTORIZERS = frozenset({"CountVectorizer", "TfidfVectorizer"})


class Cannot(Exception):
    """An edit that does not fit the script; the text says why, to the agent."""


def parse_call(code: str) -> cst.Call:
    """Returns the call written as `code`, such as `Ridge(alpha=1.0)`."""
    node = cst.parse_expression(code)
    assert isinstance(node, cst.Call), f"not a call: {code}"
    return node


def call_name(node: cst.BaseExpression) -> str:
    """Returns the name that a call calls, `` for anything else."""
    return node.func.value if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) else ""


def keyword(call: cst.Call, name: str) -> object:
    """Returns the literal value of a keyword argument; None if it is absent or no literal."""
    for argument in call.args:
        if argument.keyword is not None and argument.keyword.value == name:
            try:
                return ast.literal_eval(cst.Module(body=[]).code_for_node(argument.value))
            except ValueError:
                return None
    return None


def with_keyword(call: cst.Call, name: str, value: object) -> cst.Call:
    """Returns `call` with the keyword argument `name` set to the literal `value`, in its old place or at the end."""
    new = cst.parse_expression(repr(value).replace("'", '"'))
    arguments = list(call.args)
    for index, argument in enumerate(arguments):
        if argument.keyword is not None and argument.keyword.value == name:
            arguments[index] = argument.with_changes(value=new)
            return call.with_changes(args=arguments)
    tight = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
    return call.with_changes(args=_separated([*arguments, cst.Arg(new, cst.Name(name), equal=tight)]))


def _separated(arguments: list[cst.Arg]) -> list[cst.Arg]:
    comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    arguments = [
        a if isinstance(a.comma, cst.Comma) and i < len(arguments) - 1 else a.with_changes(comma=comma)
        for i, a in enumerate(arguments)
    ]
    return [*arguments[:-1], arguments[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)]


class Script:
    """A parsed script; edits are made in place and `source()` writes them out, everything else untouched.

    Raises:
        Cannot: from every reading or edit whose part of the script is missing.
    """

    def __init__(self, source: str) -> None:
        try:
            self._module = cst.parse_module(source)
        except cst.ParserSyntaxError as error:
            raise Cannot(f"the script does not parse (line {error.raw_line})") from error
        self._body = list(self._module.body)

    def source(self) -> str:
        """Returns the script's source as it now stands."""
        return self._module.with_changes(body=self._body).code

    def code(self, node: cst.CSTNode) -> str:
        """Returns the source text of a node."""
        return self._module.code_for_node(node)

    def _find(self, name: str) -> tuple[int, cst.Assign]:
        for index, line in enumerate(self._body):
            if isinstance(line, cst.SimpleStatementLine) and isinstance(assign := line.body[0], cst.Assign):
                target = assign.targets[0].target
                if isinstance(target, cst.Name) and target.value == name:
                    return index, assign
        raise Cannot(f"the script has no line '{name} = ...'")

    def expression(self, name: str) -> cst.BaseExpression:
        """Returns what the first top-level `name = ...` assigns."""
        return self._find(name)[1].value

    def assign(self, name: str, value: cst.BaseExpression | str) -> None:
        """Makes the first top-level `name = ...` assign `value`."""
        index, old = self._find(name)
        line = self._body[index]
        assert isinstance(line, cst.SimpleStatementLine)
        value = cst.parse_expression(value) if isinstance(value, str) else value
        self._body[index] = line.with_changes(body=[old.with_changes(value=value), *line.body[1:]])

    def replace_text(self, old: str, new: str) -> None:
        """Replaces every `old` by `new`; raises Cannot when there is none."""
        source = self.source()
        if old not in source:
            raise Cannot(f"the script has no '{old}'")
        self._module = cst.parse_module(source.replace(old, new))
        self._body = list(self._module.body)

    def require(self, module: str, name: str) -> None:
        """Makes sure that `from module import name` stands among the imports, in alphabetical place."""
        place = 0
        for index, line in enumerate(self._body):
            first = line.body[0] if isinstance(line, cst.SimpleStatementLine) else None
            if isinstance(first, cst.Import):
                place = index + 1
            if not isinstance(first, cst.ImportFrom) or first.module is None or isinstance(first.names, cst.ImportStar):
                continue
            found = self.code(first.module)
            if found == module:
                names = sorted({self.code(alias.name) for alias in first.names} | {name})
                self._body[index] = cst.parse_statement(f"from {module} import {', '.join(names)}")
                return
            if found < module:
                place = index + 1
        self._body.insert(place, cst.parse_statement(f"from {module} import {name}"))

    def require_numpy(self) -> None:
        """Makes sure that `import numpy as np` stands among the imports."""
        if "import numpy as np" not in self.source():
            self._body.insert(0, cst.parse_statement("import numpy as np"))

    @property
    def steps(self) -> list[cst.Call]:
        """The steps of `model = make_pipeline(...)`, the estimator last."""
        pipeline = self.expression("model")
        if call_name(pipeline) != "make_pipeline":
            raise Cannot("the script has no line 'model = make_pipeline(...)'")
        assert isinstance(pipeline, cst.Call)
        steps = [argument.value for argument in pipeline.args if isinstance(argument.value, cst.Call)]
        if not steps or len(steps) != len(pipeline.args):
            raise Cannot("the steps of the pipeline are not all constructors")
        return steps

    def set_steps(self, steps: list[cst.Call]) -> None:
        """Makes `steps` the pipeline's."""
        self.assign("model", parse_call("make_pipeline()").with_changes(args=_separated([cst.Arg(s) for s in steps])))

    def step_names(self) -> list[str]:
        """Returns the constructors' names of the pipeline's steps."""
        return [call_name(step) for step in self.steps]

    def add_step(self, module: str, code: str, index: int) -> None:
        """Inserts the step `code` before step `index`; a step of the same name is already there is Cannot."""
        step, steps = parse_call(code), self.steps
        if call_name(step) in self.step_names():
            raise Cannot(f"{call_name(step)} is already in the pipeline")
        self.require(module, call_name(step))
        self.set_steps([*steps[:index], step, *steps[index:]])

    @property
    def core(self) -> cst.Call:
        """The innermost estimator of the last step."""
        return self._unwrap(self.steps[-1])

    def _unwrap(self, call: cst.Call) -> cst.Call:
        while call_name(call) in WRAPPERS and call.args and isinstance(call.args[0].value, cst.Call):
            call = call.args[0].value
        return call

    def set_core(self, new: cst.Call) -> None:
        """Replaces the innermost estimator, keeping what wraps it."""
        self.set_steps([*self.steps[:-1], self._rewrap(self.steps[-1], new)])

    def _rewrap(self, call: cst.Call, new: cst.Call) -> cst.Call:
        if call_name(call) not in WRAPPERS or not call.args or not isinstance(inner := call.args[0].value, cst.Call):
            return new
        return call.with_changes(args=[call.args[0].with_changes(value=self._rewrap(inner, new)), *call.args[1:]])

    def set_estimator(self, new: cst.Call) -> None:
        """Replaces the last step; only a transformation of the target around it is kept."""
        last = self.steps[-1]
        if call_name(last) == "TransformedTargetRegressor":
            new = last.with_changes(args=[last.args[0].with_changes(value=new), *last.args[1:]])
        self.set_steps([*self.steps[:-1], new])

    @property
    def is_text(self) -> bool:
        """Whether the pipeline starts from texts."""
        return self.step_names()[0] in VECTORIZERS

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
        return "predict_proba" in self.source()

    def pick(self, classifier: str, regressor: str) -> str:
        """Returns the one of the two that fits what the script predicts."""
        return classifier if self.is_classifier else regressor
