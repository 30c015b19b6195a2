"""What the names in templates mean: whether they are there, have run, have such a field, may be shown.

FC220 unknown name              FC224 output that may be missing
FC221 unknown input or stage    FC230 a secret in the wrong place
FC222 stage may not have run    FC240 free text compared with a literal
FC223 unknown field             FC203, FC204, FC301 conditions that never change or are not boolean
"""

from collections.abc import Iterator, Sequence

from flowcraft.core.document import MAX_PROBLEMS
from flowcraft.core.errors import ExpressionError
from flowcraft.core.problems import Guesses, Problem, did_you_mean, nearest
from flowcraft.pipeline.checking.fields import BOOLEAN, LONG, Lack, kind_at, lack
from flowcraft.pipeline.checking.graph import Graph
from flowcraft.pipeline.checking.results import is_prose, one_result, result
from flowcraft.pipeline.checking.roots import FIELDS, LOOP_FIELDS, RUN_FIELDS, instead
from flowcraft.pipeline.checking.visible import Found, Visible, literal, may_be_missing
from flowcraft.pipeline.expr import Expression, Script, Template, bare_text
from flowcraft.pipeline.expressions.data import kind_of
from flowcraft.pipeline.expressions.references import Comparison, Reference
from flowcraft.pipeline.model import Group, Inclusion, Pipeline, Stage
from flowcraft.pipeline.reading.sites import Site

_OF_COMMANDS = ("exit_code", "stderr")
_LOST = ("output", "exit_code", "stderr")
_CONDITIONS = ("if", "until", "that", "foreach")


def meaning(pipeline: Pipeline, graphs: Sequence[Graph], sites: Sequence[Site], guesses: Guesses) -> list[Problem]:
    """All problems of names and values."""
    checker = _Checker(pipeline, Visible(graphs), guesses)
    for site in sites:
        checker.check(site)
        if len(checker.problems) > MAX_PROBLEMS:  # those of prompt files, which no document counts
            break
    return checker.problems


class _Checker:
    """Collects the problems; most sites have none, and nothing is made for those."""

    def __init__(self, pipeline: Pipeline, visible: Visible, guesses: Guesses) -> None:
        self.problems: list[Problem] = []
        self._visible = visible
        self._guesses = guesses
        self._inputs = {one.name: one for one in pipeline.inputs}
        self._secret = next((one.name for one in pipeline.inputs if one.secret), None)

    def check(self, site: Site) -> None:
        """Find what is wrong with one template or expression."""
        try:
            references, comparisons = site.item.references, site.item.comparisons
            if isinstance(site.item, Script):
                site.item.check()
        except ExpressionError as error:
            self.problems.append(site.failure(error))
            return
        if site.key in _CONDITIONS and (fixed := literal(site)):
            self.problems += _constant(site, fixed)
        for reference in references:
            self._reference(site, reference)
        alone = len(references) == 1 and bare_text(site.item.source) == references[0].text
        if alone and site.key in _CONDITIONS and site.key != "foreach":
            self._condition(site, references[0])
        for comparison in comparisons:
            self._comparison(site, comparison)

    def _reference(self, site: Site, reference: Reference) -> None:
        root = reference.path[0]
        if root == "inputs":
            self._input(site, reference)
        elif root == "stages":
            self._stage(site, reference)
        elif root == "run":
            field = reference.path[1] if len(reference.path) > 1 else None
            if field not in RUN_FIELDS or len(reference.path) > 2:
                hint = did_you_mean(str(field), RUN_FIELDS) if field not in RUN_FIELDS else "this is text"
                self._tell(site, reference, f"there is no '{reference}'", "FC223", hint)
        elif root in site.spot.names:
            self._local(site, reference)
        else:
            hint = self._instead(site, str(root), reference)
            self._tell(site, reference, f"there is no '{root}' here", "FC220", hint)

    def _condition(self, site: Site, reference: Reference) -> None:
        """A condition that is one name, of something that is never true or false."""
        path, kind = reference.path, None
        if path[0] == "inputs" and path[1:2] and path[1] in self._inputs:
            kind = kind_at(self._inputs[str(path[1])].schema, path[2:])
        elif (
            path[0] == "stages" and path[2:3] == ("output",) and (found := self._visible.find(site.spot, str(path[1])))
        ):
            kind = kind_at(result(found.stage), path[3:]) if found else None
        if kind not in (None, BOOLEAN):
            message = f"a condition must be true or false, and '{reference}' {kind}"
            hint = f"say what must hold: {reference} | length > 0" if kind in LONG else f"compare it: {reference} > 0"
            self._tell(site, reference, message, "FC301", hint)

    def _instead(self, site: Site, root: str, reference: Reference) -> str:
        if root not in self._inputs and self._visible.find(site.spot, root):
            return f"did you mean 'stages.{reference}'?"
        return instead(root, self._inputs, sorted(site.spot.names), self._guesses)

    def _local(self, site: Site, reference: Reference) -> None:
        root, fields = reference.path[0], reference.path[1:]
        if root == "loop" and fields and fields[0] not in LOOP_FIELDS:
            hint = did_you_mean(str(fields[0]), LOOP_FIELDS)
            self._tell(site, reference, f"a round of 'repeat' has no '{fields[0]}'", "FC223", hint)
        subject = self._visible.subject(site.spot) if root == "output" else None
        if subject:
            self._lacking(site, reference, lack(one_result(subject), fields), 1)

    def _input(self, site: Site, reference: Reference) -> None:
        if len(reference.path) == 1:
            if self._secret:
                message = f"'inputs' as a whole holds the secret '{self._secret}'"
                self._tell(site, reference, message, "FC230", "name the inputs that you need: inputs.x")
            return
        name = str(reference.path[1])
        found = self._inputs.get(name)
        if found is None:
            hint = self._guesses.did_you_mean(name, lambda: self._inputs) or f"declare it: inputs: {{{name}: string}}"
            self._tell(site, reference, f"there is no input '{name}'", "FC221", hint)
        elif found.secret and site.key != "env" and not _handed_on(site, reference):
            message = f"'{name}' is secret: it may only be used in 'env:' of a run stage"
            hint = f'env: {{{name.upper()}: "${{{{ inputs.{name} }}}}"}}  and then "${name.upper()}" in the script'
            if site.key == "with":
                message += ", or as a whole for a secret input of a used pipeline"
            self._tell(site, reference, message, "FC230", hint)
        else:
            self._lacking(site, reference, lack(found.schema, reference.path[2:]), 2)

    def _stage(self, site: Site, reference: Reference) -> None:
        path = reference.path
        if len(path) == 1:
            message = "which stage must be written out" if reference.dynamic else "'stages' needs the id of a stage"
            self._tell(site, reference, message, "FC221", "write: stages.<id>.output")
            return
        name = str(path[1])
        found = self._visible.find(site.spot, name)
        if found is None:
            hint = self._guesses.did_you_mean(name, lambda: self._visible.names(site.spot))
            self._tell(site, reference, f"there is no stage '{name}'", "FC221", hint)
        elif not found.over:
            self._too_early(site, reference, name, found)
        else:
            self._field(site, reference, found)

    def _too_early(self, site: Site, reference: Reference, name: str, found: Found) -> None:
        number, graph = found.seen_from, found.graph
        assert number is not None
        if found.number == number:
            message, hint = f"stage '{name}' cannot use its own result", "use a stage before it"
        elif graph.sees(found.number, number):
            message, hint = f"stage '{name}' runs after this one", "move the stage that uses it below it"
        else:
            own = [need for need in graph.stages[number].needs if need in graph.numbers]
            message, hint = f"stage '{name}' may not have run yet", f"add it:  needs: [{', '.join([*own, name])}]"
        self._tell(site, reference, message, "FC222", hint)

    def _field(self, site: Site, reference: Reference, found: Found) -> None:
        stage = found.stage
        path, name = reference.path, stage.id
        if len(path) == 2:
            if not reference.dynamic:
                message = f"this is all there is about stage '{name}', not its output"
                self._tell(site, reference, message, "FC223", f"write: stages.{name}.output")
            return
        field = str(path[2])
        if field not in FIELDS:
            close = nearest(field, FIELDS) or ("output" if field in ("result", "outputs", "value", "text") else None)
            hint = f"did you mean 'stages.{name}.{close}'?" if close else f"known: {', '.join(FIELDS)}"
            self._tell(site, reference, f"a stage has no '{field}'", "FC223", hint)
        elif field in _OF_COMMANDS and (stage.kind != "run" or stage.each):
            what = "asks a model" if stage.kind == "prompt" else "is not one command"
            message = f"'{name}' {what}, it has no '{field}'"
            self._tell(site, reference, message, "FC223", f"write: stages.{name}.output, or stages.{name}.ok")
        else:
            if field == "output":
                self._output(site, reference, stage)
            if field in _LOST:
                self._missing(site, reference, found, field)

    def _output(self, site: Site, reference: Reference, stage: Stage) -> None:
        fields = reference.path[3:]
        if not fields:
            return
        shape = result(stage)
        if shape == {"type": "string"}:
            what = "answers in free text" if stage.kind == "prompt" else "gives text"
            message = f"'{stage.id}' {what}: it has no field '{fields[0]}'"
            hint = f"give {stage.id} a shape:  output: {{schema: {{type: object, properties: ...}}}}"
            self._tell(site, reference, message, "FC223", hint)
        else:
            self._lacking(site, reference, lack(shape, fields), 3)

    def _lacking(self, site: Site, reference: Reference, found: Lack | None, start: int) -> None:
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
        self._tell(site, reference, message, "FC223", hint)

    def _missing(self, site: Site, reference: Reference, found: Found, field: str) -> None:
        stage, path = found.stage, reference.path
        if reference.optional:
            return
        how = may_be_missing(stage, field, may_fail=found.may_fail)
        name, owner = stage.id, f"stages.{stage.id}.{field}"
        inner = _child(stage, path)
        if inner is not None and how is None and (how := may_be_missing(inner, "output")):
            name, owner = inner.id, f"{owner}.{inner.id}"
        if found.at_the_end and how is None:
            how = "be left out when the run fails"
        if how is None or (inner is None and self._visible.has_run(found, site.spot, reference.given, site.key)):
            return
        message = f"'{name}' can {how}, and then has no {field}"
        self._tell(site, reference, message, "FC224", f"give a fallback:  {owner} | default('...')")

    def _comparison(self, site: Site, comparison: Comparison) -> None:
        path = comparison.reference.path
        if len(path) != 3 or path[0] != "stages" or path[2] != "output":
            return
        found = self._visible.find(site.spot, str(path[1]))
        if found and is_prose(found.stage):
            literal = comparison.literal[:40]
            message = f"'{path[1]}' answers in free text; comparing it with '{literal}' will almost never be true"
            hint = (
                "let it choose:  output: {schema: {type: object, required: [verdict], "
                f"properties: {{verdict: {{enum: ['{literal}', ...]}}}}}}}}"
            )
            self._tell(site, comparison.reference, message, "FC240", hint)

    def _tell(self, site: Site, reference: Reference, message: str, code: str, hint: str | None = None) -> None:
        self.problems.append(site.problem(message, code=code, hint=hint, offset=reference.offset, text=reference.text))


def _handed_on(site: Site, reference: Reference) -> bool:
    """Whether a secret goes on, as it is, to a secret input of a used pipeline."""
    stage = site.spot.level.stages[site.spot.number] if site.spot.number is not None else None
    if site.key != "with" or stage is None or not isinstance(stage.work, Inclusion) or site.path[-2] != "with":
        return False
    secret = {one.name for one in stage.work.pipeline.inputs if one.secret}
    source = site.item.source
    whole = isinstance(site.item, Template) and source.startswith("${{") and bare_text(source) == reference.text
    return whole and site.path[-1] in secret


def _child(stage: Stage, path: Sequence[str | int]) -> Stage | None:
    """The stage of a group whose result `stages.group.output.child` is."""
    if not isinstance(stage.work, Group) or stage.each or len(path) < 4 or path[2] != "output":
        return None
    return next((inner for inner in stage.work.stages if inner.id == path[3]), None)


def _constant(site: Site, expression: Expression) -> Iterator[Problem]:
    try:
        value = expression.value({})
    except ExpressionError as error:
        yield site.failure(error)
        return
    hints = {"if": ("leave 'if' out", "take the stage out of the file"), "foreach": ("", "")}
    always, never = hints.get(site.key, ("it must depend on a result", "it must depend on a result"))
    if site.key == "foreach":
        if not isinstance(value, list):
            message = f"'foreach' goes over a list, and this is {kind_of(value)}"
            yield site.problem(message, code="FC126", hint="foreach: glob('src/*.py'), or a list")
    elif value is True:
        yield site.problem("this condition is always true", code="FC203", hint=always)
    elif value is False:
        yield site.problem("this condition is always false", code="FC204", hint=never)
    else:
        message = f"a condition must be true or false, and this is {kind_of(value)}"
        yield site.problem(message, code="FC301", hint="name a value: if: stages.tests.ok")
