"""The files that ship with FlowCraft: schemas and ready pipelines.

The only place that knows where they are: in the packages `flowcraft.schemas` and `flowcraft.pipelines`
when it is installed, in folders beside the package when it runs from a checkout.
"""

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowcraft.core.errors import UsageError
from flowcraft.core.problems import did_you_mean

if TYPE_CHECKING:  # its home has moved between the Pythons we support
    from importlib.resources.abc import Traversable


def schema_text(name: str) -> str:
    """The text of a schema (`pipeline`, `settings`, `report`); raises UsageError for other names."""
    return _text("schemas", name, ".schema.json")


@cache
def schema(name: str) -> dict[str, Any]:
    """A schema as data: one object for the whole process, not to be changed."""
    loaded: dict[str, Any] = json.loads(schema_text(name))
    return loaded


def pipeline_names() -> tuple[str, ...]:
    """The names of the ready pipelines, sorted."""
    return _names(_folder("pipelines"), ".yaml")


def pipeline_text(name: str) -> str:
    """The text of a ready pipeline; raises UsageError for other names."""
    return _text("pipelines", name, ".yaml")


def start_text(file: str) -> str:
    """The text of a file that `flowcraft init` writes; raises UsageError for other names."""
    return _text("pipelines", file, "", "start")


def _text(folder: str, name: str, suffix: str, *below: str) -> str:
    place = _folder(folder).joinpath(*below)
    known = _names(place, suffix)
    if name not in known:
        raise UsageError(f"FlowCraft ships no '{name}' among its {folder}", hint=did_you_mean(name, known))
    return place.joinpath(f"{name}{suffix}").read_text(encoding="utf-8")


def _names(place: "Traversable", suffix: str) -> tuple[str, ...]:
    found = (entry.name for entry in place.iterdir() if entry.name.endswith(suffix) and entry.is_file())
    return tuple(sorted(name.removesuffix(suffix) for name in found if not name.startswith("__")))


@cache
def _folder(name: str) -> "Traversable":
    try:
        return resources.files(f"flowcraft.{name}")
    except ModuleNotFoundError:
        return Path(__file__).parents[2] / name
