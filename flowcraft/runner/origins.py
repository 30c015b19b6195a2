"""Which values of a run a person has given: what a model or a command has said is no option of a program."""

from collections.abc import Set

from flowcraft.pipeline.expr import Expression, Template
from flowcraft.pipeline.model import Each, Inclusion, Pipeline, flat

# Names that stand for nothing else; those of one input of a used pipeline are such as `inputs.path`.
GIVEN: frozenset[str] = frozenset(("inputs", "run", "loop", "index"))


def is_given(item: Template | Expression, given: Set[str]) -> bool:
    """Whether all that goes into it was given by a person; what is read from files may come from a model."""
    if "read" in item.source or "glob" in item.source:
        return False
    return all(
        reference.path[0] in given or ".".join(map(str, reference.path[:2])) in given for reference in item.references
    )


def given_items(each: Each, given: Set[str]) -> frozenset[str]:
    """The given names inside of a loop."""
    parts = (each.items,) if isinstance(each.items, Expression) else flat(each.items)
    own = {each.name} if all(is_given(part, given) for part in parts) else set()
    return frozenset(given - {each.name} | own)


def given_inputs(used: Pipeline, work: Inclusion, given: Set[str]) -> frozenset[str]:
    """The given names inside of a used pipeline."""
    names = (one.name for one in used.inputs)
    own = {f"inputs.{name}" for name in names if all(is_given(part, given) for part in flat(work.arguments.get(name)))}
    return frozenset(GIVEN - {"inputs"} | own)
