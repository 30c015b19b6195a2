"""What plain templates and conditions use, told without a tree of Jinja2, which takes it a tenth of a millisecond.

Plain are names with filters, numbers and booleans; comparisons of names and literals that are joined by `and`, or by
`or`; and `for` over a name, `if` with a plain condition. Only what is sure to be the same as with a tree is said; else
the answer is None, and the parser tells it, with its own errors.
"""

import re
from dataclasses import dataclass, replace

from flowcraft.pipeline.expressions.filters import FILTERS
from flowcraft.pipeline.expressions.lexer import MAX_TOKENS
from flowcraft.pipeline.expressions.plain import NAME, NAME_FILTERS, NUMBER, VALUE, values
from flowcraft.pipeline.expressions.references import (
    KEEPS_PROSE,
    NO_STAGES,
    Comparison,
    Facts,
    Reference,
    shown_path,
)

_FILTER = re.compile(r"\|\s*([a-z]+)", re.ASCII)
_OPERAND = (
    rf"""(?:(?P<SIDE>{NAME})(?P<SIDE_filters>{NAME_FILTERS})|'(?P<SIDE_text>[^'\\$]*)'|{NUMBER}|(?:true|false)(?!\w))"""
)
_LEFT, _RIGHT = _OPERAND.replace("SIDE", "left"), _OPERAND.replace("SIDE", "right")
_PART = re.compile(
    rf"\s*(?P<negated>not\s+)?{_LEFT}(?:\s*(?P<sign>==|!=|<=|>=|<|>)\s*{_RIGHT})?\s*(?:(?P<joint>and|or)(?!\w)|\Z)",
    re.ASCII,
)
_SIDES = ("left", "right")
_STATEMENT = (
    rf"\$\{{%-?\s*(?:for\s+(?P<bound>(?!loop\b){NAME})\s+in\s+(?P<listed>{NAME})(?P<listed_filters>{NAME_FILTERS})"
    r"|if\s+(?P<test>[^%{}$]+?)|(?P<word>else|endif|endfor))\s*-?%\}"
)
_TAG = re.compile(rf"(?:{VALUE.pattern})|(?:{_STATEMENT})", re.ASCII)
_MAX_PARTS = 20
_MAX_BLOCKS = 10


def template_facts(source: str) -> Facts | None:
    """What a template of texts, plain values and plain statements uses; None if there is more to it."""
    if "${%" in source:
        return _blocks_facts(source)
    found = values(source)
    if found is None or not all(_known(match, "name") for match in found):
        return None
    return Facts(tuple([_reference(match, "name") for match in found if match["name"]]))


def condition_facts(source: str, at: int = 0, end: int | None = None) -> Facts | None:
    """What names, literals and comparisons of them use that are joined by `and`, or by `or`; None for all else.

    The condition is the part of `source` from `at` to `end`.
    """
    end = len(source) if end is None else end
    if end - at > MAX_TOKENS:  # each has one character at least
        return None
    references: list[Reference] = []
    comparisons: list[Comparison] = []
    shows: list[frozenset[str]] = []
    given, joint = NO_STAGES, None
    for _ in range(_MAX_PARTS):
        match = _PART.match(source, at, end)
        if match is None or not all(_known(match, side) for side in _SIDES):
            return None
        if joint and match["joint"] and match["joint"] != joint:
            return None
        joint, at = match["joint"] or joint, match.end()
        references += [_reference(match, side, given) for side in _SIDES if match[side]]
        comparisons += _compared(match, given)
        shows.append(_shown(match, True))
        given |= _shown(match, joint == "and")
        if not match["joint"]:
            union = frozenset().union(*shows) if joint == "and" else frozenset.intersection(*shows)
            return Facts(tuple(references), tuple(comparisons), union)
    return None


@dataclass(frozen=True, slots=True)
class _Block:
    """An open statement: its word, names bound in it, stages that have surely run in it, and in its `else`."""

    word: str = ""
    bound: frozenset[str] = frozenset()
    given: frozenset[str] = NO_STAGES
    otherwise: frozenset[str] | None = None


def _blocks_facts(source: str) -> Facts | None:
    """What a template with statements uses, if they are plain and stand in each other as they should."""
    found = list(_TAG.finditer(source))
    if len(found) != source.count("${{") + source.count("${%") or sum(len(tag[0]) for tag in found) > MAX_TOKENS:
        return None
    references: list[Reference] = []
    comparisons: list[Comparison] = []
    blocks = [_Block()]
    for tag in found:
        used = _used(source, tag)
        if used is None or not _nested(blocks, tag, used.shows):
            return None
        around = blocks[-2] if tag["listed"] or tag["test"] else blocks[-1]
        references += [_around(one, around) for one in used.references if one.path[0] not in around.bound]
        comparisons += [
            Comparison(_around(one.reference, around), one.literal)
            for one in used.comparisons
            if one.reference.path[0] not in around.bound
        ]
    return Facts(tuple(references), tuple(comparisons)) if len(blocks) == 1 else None


def _used(source: str, tag: re.Match[str]) -> Facts | None:
    """What one value or statement uses."""
    if tag["test"]:
        return condition_facts(source, *tag.span("test"))
    for group in ("name", "listed"):
        if tag[group]:
            return Facts((_reference(tag, group),)) if _known(tag, group) else None
    return Facts()


def _nested(blocks: list[_Block], tag: re.Match[str], shows: frozenset[str]) -> bool:
    """Open or close the block of a statement; whether it can stand here."""
    top = blocks[-1]
    if tag["listed"]:
        blocks.append(_Block("for", top.bound | {tag["bound"], "loop"}, top.given))
    elif tag["test"]:
        # What is shown if a test does not hold is told by a `not` in it alone.
        blocks.append(_Block("if", top.bound, top.given | shows, None if "not" in tag["test"] else top.given))
    elif tag["word"] == "else":
        if top.otherwise is None:
            return False
        blocks[-1] = _Block("if", top.bound, top.otherwise)
    elif tag["word"]:
        return tag["word"] == f"end{top.word}" and bool(blocks.pop())
    return len(blocks) <= _MAX_BLOCKS and "." not in (tag["bound"] or "")


def _around(reference: Reference, block: _Block) -> Reference:
    return replace(reference, given=reference.given | block.given) if block.given else reference


def _known(match: re.Match[str], group: str) -> bool:
    """Whether there are such filters as the name in this group has."""
    return all(name in FILTERS for name in _filters(match, group))


def _filters(match: re.Match[str], group: str) -> list[str]:
    written = match[f"{group}_filters"]
    return _FILTER.findall(written) if written else []


def _reference(match: re.Match[str], group: str, given: frozenset[str] = NO_STAGES) -> Reference:
    name, optional = match[group], _filters(match, group)[:1] == ["default"]
    return Reference(tuple(name.split(".")), match.start(group), name, optional, False, given)


def _compared(part: re.Match[str], given: frozenset[str]) -> list[Comparison]:
    """The name of a part that is compared with a literal text."""
    if part["sign"] not in ("==", "!="):
        return []
    return [
        Comparison(Reference(tuple(name.split(".")), part.start(side), name, given=given), text)
        for side, other in (_SIDES, _SIDES[::-1])
        if (name := part[side]) and (text := part[f"{other}_text"]) is not None
        if "." in name and all(filter_ in KEEPS_PROSE for filter_ in _filters(part, side))
    ]


def _shown(part: re.Match[str], outcome: bool) -> frozenset[str]:
    """The stages that must have run if a part came out like this."""
    if not part["left"] or part["left_filters"] or part["sign"] or bool(part["negated"]) is outcome:
        return NO_STAGES
    return shown_path(part["left"].split("."))
