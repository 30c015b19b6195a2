"""Text -> pieces and tokens: finds `${{ value }}` and `${% statement %}`, leaves everything else alone.

The tokens are Jinja2's own, but carry the offset in the text where Jinja2 has a line number, so that
every node of the parsed tree knows its exact place. There is no comment sign: `${#` is bash.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NoReturn

from jinja2.lexer import Token, operators

from flowcraft.core.errors import ExpressionError

# More than these nobody writes by hand; what is below them is parsed and compiled in a fraction of a second.
MAX_BRACKETS = 40
MAX_TOKENS = 4_000

STATEMENTS = ("for", "endfor", "if", "elif", "else", "endif")

_OPEN = re.compile(r"\$\{([{%])(-?)")
_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<float>\d+(?:\.\d+(?:[eE][+-]?\d+)?|[eE][+-]?\d+)(?!\w))
      | (?P<integer>\d+(?!\w))
      | (?P<name>[A-Za-z_]\w*)
      | (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<foreign>&&|\|\||===|!==|=>|\?\?)
      | (?P<operator>//|\*\*|==|!=|>=|<=|[-+*/%~=<>.,:|()\[\]{}])""",
    re.VERBOSE | re.DOTALL | re.ASCII,  # Python takes other letters for the same name
)
_FOREIGN = {
    "&&": "write 'and'",
    "||": "write 'or'",
    "===": "write '=='",
    "!==": "write '!='",
    "!": "write 'not'",
    "?": "write: a if condition else b",
    "??": "write: a | default(b)",
    "=>": "use the filters map, select and selectattr",
    "\u00a0": "this is a no-break space: type an ordinary one",
    "\u201c": "use straight quotes",
    "\u201d": "use straight quotes",
    "\u2018": "use straight quotes",
    "\u2019": "use straight quotes",
    "'": "close the quote",
    '"': "close the quote",
}
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"', "/": "/"}
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_SIGNS = frozenset("()[]{}")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text; `tokens` are those between the signs of a value or statement."""

    kind: Literal["text", "value", "statement"]
    start: int
    end: int
    tokens: tuple[Token, ...] = ()
    trims: tuple[bool, bool] = (False, False)


def pieces(text: str) -> list[Piece]:
    """The text cut into plain text, values and statements."""
    found: list[Piece] = []
    at = count = 0
    while opening := _OPEN.search(text, at):
        if opening.start() > at:
            found.append(Piece("text", at, opening.start()))
        kind: Literal["value", "statement"] = "value" if opening[1] == "{" else "statement"
        tokens, end, trims = _inside(text, opening, "}}" if kind == "value" else "%}")
        count += len(tokens)
        if count > MAX_TOKENS:
            fail(text, opening.start(), f"this text has more than {MAX_TOKENS} words of template language")
        found.append(Piece(kind, opening.start(), end, tuple(tokens), (opening[2] == "-", trims)))
        at = end
    if at < len(text) or not found:
        found.append(Piece("text", at, len(text)))
    return found


def bare(text: str) -> tuple[Token, ...]:
    """The tokens of a bare expression; a `${{ }}` around the whole of it is taken off."""
    stripped = text.strip()
    if not stripped:
        fail(text, 0, "there is no expression", hint="write one, or leave the key out")
    opening = _OPEN.search(text)
    if opening is None:
        tokens = tuple(_tokens(text, 0, None))
        if len(tokens) > MAX_TOKENS:
            fail(text, 0, f"this expression has more than {MAX_TOKENS} words")
        return tokens
    if opening[1] == "{":
        parts = [part for part in pieces(text) if part.kind != "text" or text[part.start : part.end].strip()]
        if len(parts) == 1:
            return parts[0].tokens
    return _mixed(text, opening)


def _mixed(text: str, opening: re.Match[str]) -> NoReturn:
    plain = re.sub(r"\s*[{%]?}}|%}", "", re.sub(r"\$\{[{%]-?\s*", "", text)).strip()
    plain = plain.replace("&&", "and").replace("||", "or")
    fail(
        text,
        opening.start(),
        f"this is already an expression: no {'${{ }}' if opening[1] == '{' else '${% %}'} inside it",
        code="FC201",
        hint=f"write: {plain}" if len(plain) < 200 and "\n" not in plain else "take the signs away",
    )


def template_tokens(text: str, parts: list[Piece]) -> Iterator[Token]:
    """The tokens of a whole template, as Jinja2's parser wants them."""
    alone = _alone(text, parts)
    for index, part in enumerate(parts):
        if part.kind == "text":
            if data := _visible(text, parts, index, alone):
                yield Token(part.start, "data", data)
            continue
        word = "variable" if part.kind == "value" else "block"
        yield Token(part.start, f"{word}_begin", "")
        yield from part.tokens
        yield Token(part.end - 2, f"{word}_end", "")


def fail(text: str, offset: int, message: str, *, code: str = "FC202", hint: str | None = None) -> NoReturn:
    """Refuse the expression at this place."""
    raise ExpressionError(message, expression=text, offset=offset, code=code, hint=hint)


def _inside(text: str, opening: re.Match[str], close: str) -> tuple[list[Token], int, bool]:
    tokens: list[Token] = []
    for token in _tokens(text, opening.end(), close):
        if token.type == "close":
            if not tokens:
                fail(
                    text, opening.start(), "there is nothing between the signs", hint="name a value: ${{ inputs.name }}"
                )
            _known_statement(text, tokens[0], close)
            return tokens, token.lineno + len(token.value), token.value.startswith("-")
        tokens.append(token)
        if len(tokens) > MAX_TOKENS:
            fail(text, opening.start(), f"this has more than {MAX_TOKENS} words of template language")
    sign = text[opening.start() : opening.start() + 3]
    fail(text, opening.start(), f"{sign} is never closed", hint=f"close it with {close}")


def _known_statement(text: str, first: Token, close: str) -> None:
    if close == "%}" and first.value not in STATEMENTS:
        fail(
            text,
            first.lineno,
            f"there is no statement '{first.value}'",
            hint=f"known: {', '.join(STATEMENTS)}; to print a value write ${{{{ }}}}",
        )


def _tokens(text: str, at: int, close: str | None) -> Iterator[Token]:
    # Brackets are matched here, because `}}` ends a value only outside of them.
    expected: list[str] = []
    ends = (close, f"-{close}") if close else ()
    while at < len(text):
        if not expected and close and text.startswith(ends, at):
            yield Token(at, "close", text[at : text.index(close, at) + len(close)])
            return
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup == "foreign":
            _unreadable(text, at, match[0] if match else text[at])
        if match.lastgroup != "space":
            yield _token(text, match)
            if match[0] in _SIGNS:
                _balance(text, at, match[0], expected)
        at = match.end()
    if expected and close is None:
        fail(text, len(text.rstrip()), f"'{expected[-1]}' is missing at the end")


def _token(text: str, match: re.Match[str]) -> Token:
    at, value = match.start(), match[0]
    if match.lastgroup == "name":
        return Token(at, "name", value)
    if match.lastgroup == "operator":
        return Token(at, operators[value], value)
    if match.lastgroup == "integer":
        if len(value) > 18:
            fail(text, at, "this number is too large")
        return Token(at, "integer", int(value))  # type: ignore[arg-type]  # Jinja2 puts numbers here, too
    if match.lastgroup == "float":
        return Token(at, "float", float(value))  # type: ignore[arg-type]
    return Token(at, "string", _ESCAPE.sub(lambda escape: _escape(text, at, escape), value[1:-1]))


def _escape(text: str, at: int, escape: re.Match[str]) -> str:
    if escape[1]:
        character = chr(int(escape[1], 16))
        if "\ud800" <= character <= "\udfff":
            fail(text, at, "half of a surrogate pair is not a character", hint="write the character itself")
        return character
    if escape[2] not in _ESCAPED:
        fail(text, at, f"unknown escape '{escape[0]}' in a text", hint=f"for a backslash write '\\{escape[0]}'")
    return _ESCAPED[escape[2]]


def _balance(text: str, at: int, sign: str, expected: list[str]) -> None:
    if sign in _BRACKETS:
        expected.append(_BRACKETS[sign])
        if len(expected) > MAX_BRACKETS:
            fail(text, at, f"brackets are nested more than {MAX_BRACKETS} deep")
    else:
        wanted = expected.pop() if expected else None
        if wanted != sign:
            fail(text, at, f"'{wanted}' is missing here" if wanted else f"'{sign}' closes nothing")


def _unreadable(text: str, at: int, sign: str) -> NoReturn:
    what = f"'{sign}' is not part of the expression language"
    fail(text, at, what if sign not in "'\"" else "this text has no end", hint=_FOREIGN.get(sign))


def _visible(text: str, parts: list[Piece], index: int, alone: set[int]) -> str:
    """The text of a piece without what statements alone on their line, or `-` signs, take away."""
    data = text[parts[index].start : parts[index].end]
    if index - 1 in alone:
        line, newline, rest = data.partition("\n")
        data = rest if newline or not line.strip() else data
    if index + 1 in alone:
        head, newline, tail = data.rpartition("\n")
        data = data if tail.strip() else head + newline
    if index and parts[index - 1].trims[1]:
        data = data.lstrip()
    if index + 1 < len(parts) and parts[index + 1].trims[0]:
        data = data.rstrip()
    return data


def _alone(text: str, parts: list[Piece]) -> set[int]:
    """The statements whose lines hold nothing but statements."""
    found: set[int] = set()
    line: set[int] = set()
    clean = True
    for index, part in enumerate(parts):
        if part.kind == "statement":
            line.add(index)
        elif part.kind == "value":
            clean = False
        else:
            first, *others = text[part.start : part.end].split("\n")
            clean = clean and not first.strip()
            if others:
                found |= line if clean else set()
                line, clean = set(), not others[-1].strip()
    return found | line if clean else found
