"""What is wrong with a file, where, and the fix; as text, JSON, SARIF or GitHub annotations.

The text form is the one of compilers: `file:line:col: error[CODE]: message`, the source line,
a caret under the place, and a line that starts with `= help:`.
"""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib import import_module
from urllib.parse import quote


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake in a file; `line` and `column` count from 1, `width` is how many characters to mark.

    `line` 0 means the file as a whole (it is missing, say). `source` is the text of the line.
    """

    file: str
    line: int = 0
    column: int = 0
    code: str
    message: str
    hint: str | None = None
    source: str | None = None
    width: int = 1
    severity: str = "error"

    def __str__(self) -> str:
        return as_text(self)

    @property
    def place(self) -> str:
        """`file:line:column`, as far as it is known."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that the user most likely meant, or None."""
    # Not above: only who has made a mistake waits for this import.
    close: list[str] = import_module("difflib").get_close_matches(name, list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def counted(number: int | Decimal, noun: str) -> str:
    """A number of things, such as "1 call" and "2 calls"."""
    text = f"{number.normalize():f}" if isinstance(number, Decimal) else str(number)
    return f"{text} {noun}" if number == 1 else f"{text} {noun}s"


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A hint with the nearest known name, else with all of them if they are few, else None."""
    names = sorted(set(known))
    close = nearest(name, names)
    if close:
        return f"did you mean '{close}'?"
    return f"known: {', '.join(names)}" if 0 < len(names) <= 12 else None


class Guesses:
    """What was meant by the wrong names of one file; where there are thousands, the last ones get no guess.

    Each looks at all known names, which takes half a second for a number of wrong and known ones of 50,000 together.
    The known names are asked for only then.
    """

    def __init__(self) -> None:
        self._left = 50_000

    def did_you_mean(self, name: str, known: Callable[[], Collection[str]]) -> str | None:
        """As `did_you_mean`."""
        return did_you_mean(name, self._looked_at(known()) if self._left > 0 else ())

    def nearest(self, name: str, known: Callable[[], Collection[str]]) -> str | None:
        """As `nearest`."""
        return nearest(name, self._looked_at(known()) if self._left > 0 else ())

    def _looked_at(self, known: Collection[str]) -> Collection[str]:
        self._left -= len(known)
        return known


def ordered(problems: Iterable[Problem]) -> list[Problem]:
    """The problems by file and place, without repetitions."""
    return sorted(dict.fromkeys(problems), key=lambda p: (p.file, p.line, p.column, p.code))


def as_text(problem: Problem) -> str:
    """The problem as a compiler would print it."""
    lines = [f"{problem.place}: {problem.severity}[{problem.code}]: {problem.message}"]
    if problem.line and problem.source is not None:
        lines += _quote(problem)
    if problem.hint:
        lines.append(f"      = help: {problem.hint}")
    return "\n".join(lines)


def as_json(problems: Sequence[Problem]) -> str:
    """All problems as one JSON list."""
    rows = [
        {
            "file": p.file,
            "line": p.line,
            "column": p.column,
            "severity": p.severity,
            "code": p.code,
            "message": p.message,
            "help": p.hint,
        }
        for p in problems
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False)


def as_sarif(problems: Sequence[Problem], version: str) -> str:
    """All problems as a SARIF 2.1.0 log, which code scanning services read."""
    codes = sorted({problem.code for problem in problems})
    driver = {"name": "flowcraft", "version": version, "rules": [{"id": code} for code in codes]}
    results = [_sarif_result(problem, codes.index(problem.code)) for problem in problems]
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}],
    }
    return json.dumps(log, indent=2, ensure_ascii=False)


def _sarif_result(problem: Problem, rule: int) -> dict[str, object]:
    text = problem.message + (f"\nhelp: {problem.hint}" if problem.hint else "")
    place: dict[str, object] = {"artifactLocation": {"uri": quote(problem.file)}}
    if problem.line:
        end = problem.column + max(problem.width, 1)
        place["region"] = {"startLine": problem.line, "startColumn": problem.column, "endColumn": end}
    return {
        "ruleId": problem.code,
        "ruleIndex": rule,
        "level": problem.severity,
        "message": {"text": text},
        "locations": [{"physicalLocation": place}],
    }


def as_github(problem: Problem) -> str:
    """The problem as a GitHub Actions workflow command, which annotates the line in a pull request.

    Source: GitHub docs, "Workflow commands", with its rules for escaping.
    """
    text = problem.message + (f"\nhelp: {problem.hint}" if problem.hint else "")
    place = f"file={_escape_property(problem.file)}"
    if problem.line:
        place += f",line={problem.line},col={problem.column}"
    return f"::{problem.severity} {place},title={_escape_property(problem.code)}::{_escape(text)}"


def _quote(problem: Problem) -> list[str]:
    # Long lines are cut around the place: a 1 MiB line must not fill the terminal.
    source, column = problem.source or "", problem.column
    if len(source) > 160:
        start = max(0, column - 60)
        source, column = source[start : start + 120], column - start
    source = source.replace("\t", " ")
    marker = "^" + "~" * (max(1, min(problem.width, len(source) - column + 1)) - 1)
    return [f"{problem.line:5} | {source}", f"      | {' ' * (column - 1)}{marker}"]


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape(text).replace(":", "%3A").replace(",", "%2C")
