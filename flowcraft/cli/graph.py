"""`flowcraft graph`: a pipeline as a drawing in Mermaid or DOT."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from flowcraft.cli.options import pipeline_argument

if TYPE_CHECKING:
    from flowcraft.pipeline.model import Stage

_SHAPES = {"prompt": ("([", "])"), "approve": ("{{", "}}"), "uses": ("[[", "]]")}
# Ids that are words of Mermaid's flow charts (found by giving all ids of its grammar to its parser), or of DOT.
_WORDS = frozenset(
    ("call", "class", "click", "default", "end", "flowchart", "graph", "href", "interpolate", "style", "subgraph")
) | {"digraph", "edge", "node", "strict"}
_DOT_SHAPES = {"prompt": "ellipse", "approve": "diamond", "uses": "box3d"}


@click.command()
@pipeline_argument
@click.option("--format", "form", type=click.Choice(["mermaid", "dot"]), default="mermaid", show_default=True)
def graph(file: Any, form: str) -> None:
    """Draw FILE: its stages, what waits for what, groups and conditions."""
    from flowcraft.pipeline.load import load

    pipeline = load(file)
    lines = _mermaid(pipeline.stages, pipeline.finals) if form == "mermaid" else _dot(pipeline.stages, pipeline.finals)
    click.echo("\n".join(lines))


def _mermaid(stages: Sequence["Stage"], finals: Sequence["Stage"]) -> Iterator[str]:
    yield "flowchart TD"
    yield from _mermaid_list(stages, "", "  ")
    if finals:
        yield '  subgraph FINALLY["finally"]'
        yield from _mermaid_list(finals, "FINALLY__", "    ")
        yield "  end"


def _mermaid_list(stages: Sequence["Stage"], prefix: str, pad: str) -> Iterator[str]:
    for stage in stages:
        name = _name(stage.id, prefix)
        if stage.below:
            yield f'{pad}subgraph {name}["{_title(stage)}"]'
            yield from _mermaid_list(stage.below, f"{name}__", f"{pad}  ")
            yield f"{pad}end"
        else:
            left, right = _SHAPES.get(stage.kind, ("[", "]"))
            yield f'{pad}{name}{left}"{_title(stage)}"{right}'
        for need in stage.needs:
            yield f"{pad}{_name(need, prefix)} --> {name}"


def _dot(stages: Sequence["Stage"], finals: Sequence["Stage"]) -> Iterator[str]:
    yield "digraph pipeline {"
    yield "  compound=true; node [fontname=sans];"
    yield from _dot_list(stages, "", "  ")
    if finals:
        yield '  subgraph cluster_FINALLY { label="finally";'
        yield from _dot_list(finals, "FINALLY__", "    ")
        yield "  }"
    yield "}"


def _dot_list(stages: Sequence["Stage"], prefix: str, pad: str) -> Iterator[str]:
    by_id = {stage.id: stage for stage in stages}
    for stage in stages:
        name = _name(stage.id, prefix)
        if stage.below:
            yield f'{pad}subgraph cluster_{name} {{ label="{_title(stage)}";'
            yield from _dot_list(stage.below, f"{name}__", f"{pad}  ")
            yield f"{pad}}}"
        else:
            shape = _DOT_SHAPES.get(stage.kind, "box")
            yield f'{pad}{name} [label="{_title(stage)}", shape={shape}];'
        for need in stage.needs:
            ends = f"{_last(by_id[need], prefix)} -> {_first(stage, prefix)}"
            yield f"{pad}{ends}{_clusters(by_id[need], stage, prefix)};"


def _first(stage: "Stage", prefix: str) -> str:
    name = _name(stage.id, prefix)
    return _first(stage.below[0], f"{name}__") if stage.below else name


def _last(stage: "Stage", prefix: str) -> str:
    name = _name(stage.id, prefix)
    return _last(stage.below[-1], f"{name}__") if stage.below else name


def _clusters(need: "Stage", stage: "Stage", prefix: str) -> str:
    ends = [("ltail", need), ("lhead", stage)]
    named = [f"{end}=cluster_{_name(one.id, prefix)}" for end, one in ends if one.below]
    return f" [{', '.join(named)}]" if named else ""


def _name(id_: str, prefix: str) -> str:
    """One name per stage; ids have no upper case, so that nothing else can have a name with it."""
    return prefix + ("S_" + id_ if id_ in _WORDS and not prefix else id_.replace("__", "_U_"))


def _title(stage: "Stage") -> str:
    notes = [stage.kind]
    if stage.condition:
        notes.append(f"if {stage.condition.source}")
    if stage.each:
        notes.append(f"for each {stage.each.name}")
    if stage.repeat:
        notes.append(f"until {stage.repeat.until.source}, {stage.repeat.most} times at most")
    text = f"{stage.id}: {'; '.join(notes)}"
    # What would end the quotes or begin markup in either language.
    for bad, good in (
        ("\\", "/"),
        ('"', "'"),
        ("<", " below "),
        (">", " above "),
        ("\n", " "),
        ("#", " "),
        ("%%", "%"),
        ("&", " and "),
    ):
        text = text.replace(bad, good)
    return text
