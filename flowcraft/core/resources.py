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


def names(folder: str, suffix: str) -> list[str]:
    """The names of the shipped files of `folder` (`schemas` or `pipelines`) that end in `suffix`, sorted."""
    return sorted(entry.name for entry in _folder(folder).iterdir() if entry.name.endswith(suffix))


def text(folder: str, name: str) -> str:
    """The text of one shipped file; raises UsageError with the nearest name if there is none."""
    known = names(folder, "")
    if name not in known:
        raise UsageError(f"FlowCraft ships no '{name}' among its {folder}", hint=did_you_mean(name, known))
    return (_folder(folder) / name).read_text(encoding="utf-8")


@cache
def schema(name: str) -> dict[str, Any]:
    """The shipped schema `schemas/<name>.schema.json`; one shared object, not to be changed."""
    loaded: dict[str, Any] = json.loads(text("schemas", f"{name}.schema.json"))
    return loaded


@cache
def _folder(name: str) -> "Traversable":
    try:
        return resources.files(f"flowcraft.{name}")
    except ModuleNotFoundError:
        return Path(__file__).parents[2] / name
