"""A template with what is known before the run put in; what is not known stays as it is written."""

from collections.abc import Mapping
from typing import Any

from flowcraft.core.errors import ExpressionError
from flowcraft.pipeline.expr import Template, parts_of
from flowcraft.pipeline.expressions.engine import Files


def rendered(template: Template, scope: Mapping[str, Any], files: Files) -> str:
    """The text as far as `scope` gives it."""
    try:
        return template.text(scope, files)
    except ExpressionError:
        pass
    parts = parts_of(template.source)
    if any(kind == "statement" for kind, _ in parts):  # what a loop goes over is not known: nothing of it can be said
        return template.source
    return "".join(text if kind == "text" else _value(text, scope, files) for kind, text in parts)


def _value(written: str, scope: Mapping[str, Any], files: Files) -> str:
    try:
        return Template(written).text(scope, files)
    except ExpressionError:
        return written
