"""What the names in templates mean: whether they are there, have run, have such a field, may be shown.

FC220 unknown name              FC224 output that may be missing
FC221 unknown input or stage    FC230 a secret in the wrong place
FC222 stage may not have run    FC240 free text compared with a literal
FC223 unknown field             FC203, FC204, FC301 conditions that never change or are not boolean
"""

from collections.abc import Iterator, Sequence

from flowcraft.core.errors import ExpressionError
from flowcraft.core.problems import Problem, did_you_mean, nearest
from flowcraft.pipeline.data import kind_of
from flowcraft.pipeline.expr import Expression, Script
from flowcraft.pipeline.fields import Lack, lack
from flowcraft.pipeline.graph import Graph
from flowcraft.pipeline.model import Pipeline, Stage
from flowcraft.pipeline.references import Comparison, Reference
from flowcraft.pipeline.sites import Site

ROOTS = ("inputs", "run", "stages")
FIELDS = ("output", "status", "ok", "error", "exit_code", "stderr", "seconds", "usd", "tokens", "model", "attempts")
RUN_FIELDS = ("id", "dir", "status")

_OF_COMMANDS = ("exit_code", "stderr")
_LOST_BY_SKIP = ("output", "exit_code", "stderr")
_FOREIGN = {
    "steps": "in FlowCraft this is 'stages'",
    "step": "in FlowCraft this is 'stages'",
    "jobs": "in FlowCraft this is 'stages'",
    "tasks": "in FlowCraft this is 'stages'",
    "needs": "in FlowCraft this is 'stages'",
    "nodes": "in FlowCraft this is 'stages'",
    "stage": "in FlowCraft this is 'stages'",
    "outputs": "in FlowCraft this is 'stages.<id>.output'",
    "input": "in FlowCraft this is 'inputs'",
    "params": "in FlowCraft this is 'inputs'",
    "parameters": "in FlowCraft this is 'inputs'",
    "vars": "in FlowCraft this is 'inputs'",
    "variables": "in FlowCraft this is 'inputs'",
    "args": "in FlowCraft this is 'inputs'",
    "env": "declare an input with a variable: inputs: {home: {type: string, env: HOME}}",
    "secrets": "declare an input: inputs: {token: {type: string, secret: true, env: TOKEN}}",
    "github": "declare what you need under 'inputs'",
    "loop": "it is there inside ${% for %} only",
    "item": "this version of FlowCraft does not have 'foreach' yet",
    "index": "this version of FlowCraft does not have 'foreach' yet",
    "output": "name the stage: stages.<id>.output",
}


def meaning(pipeline: Pipeline, graph: Graph, sites: Sequence[Site]) -> list[Problem]:
    """All problems of names and values."""
    checker = _Checker(pipeline, graph)
    return [problem for site in sites for problem in checker.site(site)]


class _Checker:
    def __init__(self, pipeline: Pipeline, graph: Graph) -> None:
        self._stages = pipeline.stages
        self._graph = graph
        self._inputs = {one.name: one for one in pipeline.inputs}
        self._given = [self._shown_by_condition(stage) for stage in pipeline.stages]

    def site(self, site: Site) -> Iterator[Problem]:
        """What is wrong with one template or expression."""
        try:
            references, comparisons = site.item.references, site.item.comparisons
            if isinstance(site.item, Script):
                site.item.check()
        except ExpressionError as error:
            yield site.failure(error)
            return
        if isinstance(site.item, Expression) and site.item.is_static:
            yield from _constant(site, site.item)
        for reference in references:
            yield from self._reference(site, reference)
        for comparison in comparisons:
            yield from self._comparison(site, comparison)

    def _reference(self, site: Site, reference: Reference) -> Iterator[Problem]:
        root = reference.path[0]
        if root == "inputs":
            yield from self._input(site, reference)
        elif root == "stages":
            yield from self._stage(site, reference)
        elif root == "run":
            field = reference.path[1] if len(reference.path) > 1 else None
            if field not in RUN_FIELDS or len(reference.path) > 2:
                hint = did_you_mean(str(field), RUN_FIELDS) if field not in RUN_FIELDS else "this is text"
                yield _problem(site, reference, f"there is no '{reference}'", "FC223", hint)
        else:
            yield _problem(site, reference, f"there is no '{root}' here", "FC220", self._unknown(reference))

    def _unknown(self, reference: Reference) -> str | None:
        root = str(reference.path[0])
        if root in self._inputs:
            return f"did you mean 'inputs.{root}'?"
        if root in self._graph.numbers:
            return f"did you mean 'stages.{reference}'?"
        if root in _FOREIGN:
            return _FOREIGN[root]
        names = [*ROOTS, *(f"inputs.{name}" for name in self._inputs)]
        close = nearest(root, [*ROOTS, *self._inputs])
        if close:
            return f"did you mean '{close if close in ROOTS else f'inputs.{close}'}'?"
        return f"a text needs quotes: '{root}'; known: {', '.join(names[:12])}"

    def _input(self, site: Site, reference: Reference) -> Iterator[Problem]:
        secret = [one.name for one in self._inputs.values() if one.secret]
        if len(reference.path) == 1:
            if secret:
                message = f"'inputs' as a whole holds the secret '{secret[0]}'"
                yield _problem(site, reference, message, "FC230", "name the inputs that you need: inputs.x")
            return
        name = str(reference.path[1])
        found = self._inputs.get(name)
        if found is None:
            hint = did_you_mean(name, self._inputs) or f"declare it: inputs: {{{name}: string}}"
            yield _problem(site, reference, f"there is no input '{name}'", "FC221", hint)
        elif found.secret and site.key != "env":
            message = f"'{name}' is secret: it may only be used in 'env:' of a run stage"
            hint = f'env: {{{name.upper()}: "${{{{ inputs.{name} }}}}"}}  and then "${name.upper()}" in the script'
            yield _problem(site, reference, message, "FC230", hint)
        else:
            yield from self._lacking(site, reference, lack(found.schema, reference.path[2:]), 2)

    def _stage(self, site: Site, reference: Reference) -> Iterator[Problem]:
        path = reference.path
        if len(path) == 1:
            message = "which stage must be written out" if reference.dynamic else "'stages' needs the id of a stage"
            yield _problem(site, reference, message, "FC221", "write: stages.<id>.output")
            return
        name = str(path[1])
        number = self._graph.numbers.get(name)
        if number is None:
            hint = did_you_mean(name, self._graph.numbers)
            yield _problem(site, reference, f"there is no stage '{name}'", "FC221", hint)
        elif site.stage is not None and not self._graph.sees(site.stage, number):
            yield self._too_early(site, reference, name, number)
        else:
            yield from self._field(site, reference, self._stages[number])

    def _too_early(self, site: Site, reference: Reference, name: str, number: int) -> Problem:
        assert site.stage is not None
        if number == site.stage:
            message, hint = f"stage '{name}' cannot use its own result", "use a stage before it"
        elif self._graph.sees(number, site.stage):
            message, hint = f"stage '{name}' runs after this one", "move the stage that uses it below it"
        else:
            own = [need for need in self._stages[site.stage].needs if need in self._graph.numbers]
            message, hint = f"stage '{name}' may not have run yet", f"add it:  needs: [{', '.join([*own, name])}]"
        return _problem(site, reference, message, "FC222", hint)

    def _field(self, site: Site, reference: Reference, stage: Stage) -> Iterator[Problem]:
        path, name = reference.path, stage.id
        if len(path) == 2:
            if not reference.dynamic:
                message = f"this is all there is about stage '{name}', not its output"
                yield _problem(site, reference, message, "FC223", f"write: stages.{name}.output")
            return
        field = str(path[2])
        if field not in FIELDS:
            close = nearest(field, FIELDS) or ("output" if field in ("result", "outputs", "value", "text") else None)
            hint = f"did you mean 'stages.{name}.{close}'?" if close else f"known: {', '.join(FIELDS)}"
            yield _problem(site, reference, f"a stage has no '{field}'", "FC223", hint)
        elif field in _OF_COMMANDS and stage.kind != "run":
            message = f"'{name}' asks a model, it has no '{field}'"
            yield _problem(site, reference, message, "FC223", f"write: stages.{name}.output, or stages.{name}.ok")
        else:
            if field == "output":
                yield from self._output(site, reference, stage)
            if field in _LOST_BY_SKIP:
                yield from self._skipped(site, reference, stage, field)

    def _output(self, site: Site, reference: Reference, stage: Stage) -> Iterator[Problem]:
        fields = reference.path[3:]
        if stage.output.format == "json":
            yield from self._lacking(site, reference, lack(stage.output.schema or {}, fields), 3)
        elif fields:
            what = "answers in free text" if stage.kind == "prompt" else "gives text"
            message = f"'{stage.id}' {what}: it has no field '{fields[0]}'"
            hint = f"give {stage.id} a shape:  output: {{schema: {{type: object, properties: ...}}}}"
            yield _problem(site, reference, message, "FC223", hint)

    def _lacking(self, site: Site, reference: Reference, found: Lack | None, start: int) -> Iterator[Problem]:
        if found is None:
            return
        owner = ".".join(map(str, reference.path[: start + found.depth]))
        field = reference.path[start + found.depth]
        message = f"'{owner}' {found.what} and has no '{field}'" if found.what else f"'{owner}' has no '{field}'"
        hint = None
        if found.known:
            close = nearest(str(field), found.known)
            listed = ", ".join(f"{name} ({kind})" if kind else name for name, kind in found.known.items())
            hint = (f"did you mean '{owner}.{close}'? " if close else "") + f"it has: {listed}"
        yield _problem(site, reference, message, "FC223", hint)

    def _skipped(self, site: Site, reference: Reference, stage: Stage, field: str) -> Iterator[Problem]:
        if stage.condition is None or reference.optional:
            return
        given = reference.given
        if site.stage is not None and site.key != "if":
            given |= self._given[site.stage]
        if stage.id in self._closed(given):
            return
        message = f"'{stage.id}' can be skipped, and then has no {field}"
        hint = f"give a fallback:  stages.{stage.id}.{field} | default('...')"
        yield _problem(site, reference, message, "FC224", hint)

    def _shown_by_condition(self, stage: Stage) -> frozenset[str]:
        try:
            return stage.condition.shows if stage.condition else frozenset()
        except ExpressionError:
            return frozenset()

    def _closed(self, given: frozenset[str]) -> set[str]:
        """The stages that have run, if those `given` have: a condition that let one run was true, too."""
        found: set[str] = set()
        waiting = [*given]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                number = self._graph.numbers.get(name)
                waiting += self._given[number] if number is not None else ()
        return found

    def _comparison(self, site: Site, comparison: Comparison) -> Iterator[Problem]:
        path = comparison.reference.path
        number = self._graph.numbers.get(str(path[1])) if len(path) == 3 and path[0] == "stages" else None
        if number is None or path[2] != "output":
            return
        stage = self._stages[number]
        if stage.kind == "prompt" and stage.output.format == "text":
            literal = comparison.literal[:40]
            message = f"'{stage.id}' answers in free text; comparing it with '{literal}' will almost never be true"
            hint = (
                "let it choose:  output: {schema: {type: object, required: [verdict], "
                f"properties: {{verdict: {{enum: ['{literal}', ...]}}}}}}}}"
            )
            yield _problem(site, comparison.reference, message, "FC240", hint)


def _constant(site: Site, expression: Expression) -> Iterator[Problem]:
    try:
        value = expression.value({})
    except ExpressionError as error:
        yield site.failure(error)
        return
    if value is True:
        yield site.problem("this condition is always true", code="FC203", hint="leave 'if' out")
    elif value is False:
        yield site.problem("this condition is always false", code="FC204", hint="take the stage out of the file")
    else:
        message = f"a condition must be true or false, and this is {kind_of(value)}"
        yield site.problem(message, code="FC301", hint="name a value: if: stages.tests.ok")


def _problem(site: Site, reference: Reference, message: str, code: str, hint: str | None = None) -> Problem:
    return site.problem(message, code=code, hint=hint, offset=reference.offset, text=reference.text)
