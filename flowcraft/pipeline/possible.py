"""Which texts a template can become, where that is plain before the run: `'cheap' if loop.last else 'strong'`."""

from collections.abc import Mapping
from typing import Any

from jinja2 import nodes

from flowcraft.core.errors import ExpressionError
from flowcraft.pipeline.expr import Template, lone_value


def texts(template: Template, inputs: Mapping[str, Any]) -> frozenset[str] | None:
    """All texts it can become, given these inputs; None if that cannot be said."""
    if template.is_static:
        return frozenset((template.source,))
    try:
        tree = lone_value(template.source)
        if tree is not None and (found := _texts(tree)) is not None:
            return found
        return frozenset((template.text({"inputs": inputs}),))
    except ExpressionError:
        return None


def _texts(node: nodes.Expr) -> frozenset[str] | None:
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        return frozenset((node.value,))
    if isinstance(node, nodes.CondExpr) and node.expr2 is not None:
        one, other = _texts(node.expr1), _texts(node.expr2)
        return None if one is None or other is None else one | other
    return None
