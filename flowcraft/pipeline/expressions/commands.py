"""Commands whose arguments are more than data: code for an interpreter, names, options, or the next program.

One judgement for the words of a script and for a command in list form; programs.py says what is known of programs.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from flowcraft.pipeline.expressions.programs import (
    DECIDES,
    DECLARE,
    EXAMPLES,
    FIND_RUNS,
    GIT_KEY,
    ONLY_TELL,
    RUNNERS,
    STDIN,
    WRAPPERS,
    Program,
    Wrapper,
    is_shell,
    program,
)

VALUE = "\1"  # stands for a value in the text of a word
PROCESS = "\3"  # begins a word that is the file of <(...)

PROGRAM = "which program runs may not come from a result"

_STOPPING = re.compile(r"(?:.*/)?(?:(?:ba|da|z|k|a)?sh|python[\d.]*)")
_LAST_FLAG = re.compile(r"-[a-zA-Z]*c")
_INDEX = re.compile(r"\w+\[[^\]]*")
_ASSIGNED = re.compile(r"(\w+)\+?=")
_TAKE_NAMES = ("unset", "read", "mapfile", "readarray", "getopts")
# What takes any text, or none that begins with a letter behind `-`.
_NO_OPTIONS = ("echo", "printf", "test", "[", ":", "true", "false", "case", "for", "select", "return", "exit")
_GIT_PROGRAM = re.compile(r"--(?:exec|upload-pack|receive-pack|\w+-filter)(?:=(.*))?")
_GIT_COMMANDS = {("rebase", "-x"), ("difftool", "-x"), ("bisect", "run"), ("submodule", "foreach")}


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a command: VALUE stands in its text for each value; `values` tells which have gone into it."""

    text: str
    values: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Use:
    """Values that would be more than data: `code` that runs, or what `decides` which code runs.

    Nobody may put a value into code; what decides may come from a person, but from no result. The arguments of a
    `script` in bash, which `message` then is, depend on what it does with them.
    """

    kind: Literal["code", "decides", "script"]
    values: tuple[int, ...]
    message: str = "the value would be run as code here"
    example: str = "shell"
    arguments: tuple[tuple[int, ...], ...] = ()


def uses(words: Sequence[Word], fed: tuple[int, ...] = ()) -> Iterator[Use]:
    """How a command would use the values in its words, and those it reads from stdin (`fed`), other than as data."""
    at = 0
    while at < len(words):
        word = words[at]
        name = word.text.rpartition("/")[2]
        if at and (assigned := _ASSIGNED.match(word.text)):
            yield from decided(assigned[1], word.values)
            at += 1
        elif word.values:
            yield Use("decides", word.values, PROGRAM)
            return
        elif name == "parallel":
            yield from _parallel(words[at:], fed)
            return
        elif name in WRAPPERS:
            yield from _own_code(words[at:])
            inner = _inner(words, at, WRAPPERS[name])
            words = _completed(words[at:inner], words[inner:], fed) if name == "xargs" else words[inner:]
            at = 0
            if words and (assigned := _ASSIGNED.match(words[0].text)):
                yield from decided(assigned[1], words[0].values)
                at = 1
        else:
            yield from _by_program(words[at:], fed)
            return


def decided(name: str, values: tuple[int, ...]) -> Iterator[Use]:
    """The use of values as the variable of this name."""
    if values and DECIDES.fullmatch(name):
        yield Use("decides", values, f"{name} decides what programs do, and may not come from a result")


def option_of(words: Sequence[Word], script: str) -> str:
    """The command, if an argument that comes next could be an option of it."""
    texts = [word.text for word in words]
    if not texts or texts[0] in _NO_OPTIONS or ends_options(texts):
        return ""
    return "" if _is_function(texts[0], script) else texts[0]


@lru_cache(maxsize=256)
def _is_function(name: str, script: str) -> bool:
    return bool(re.search(rf"(?:^|[\s;]){re.escape(name)}\s*\(\)|function\s+{re.escape(name)}\b", script))


def ends_options(words: Sequence[str]) -> bool:
    """Whether no option can follow: behind `--`, and behind the code of `bash -c` and `python -c`."""
    code = next((at for at, word in enumerate(words) if _LAST_FLAG.fullmatch(word)), len(words))
    return "--" in words or (code + 1 < len(words) and _STOPPING.fullmatch(words[0]) is not None)


def is_index(words: Sequence[Word], word: str) -> bool:
    """Whether the word is the index of an array that is assigned to, where bash calculates."""
    return not words and _INDEX.fullmatch(word) is not None


# -- the program behind others ---------------------------------------------------------------------------


def _inner(words: Sequence[Word], at: int, wrapper: Wrapper) -> int:
    """Where the command begins that is run by the one at `at`."""
    at += 1
    while at < len(words) and words[at].text.startswith("-"):
        text = words[at].text
        if re.fullmatch(wrapper.query, text):
            return len(words)
        at += 2 if re.fullmatch(wrapper.valued, text) else 1
        if text == "--":
            break
    return min(at + wrapper.operands, len(words))


def _own_code(words: Sequence[Word]) -> Iterator[Use]:
    """Code among the options of a wrapper: `env -S`, `flock -c`."""
    name = words[0].text.rpartition("/")[2]
    known = program(name)
    if known:
        yield from _code(_given(known, words).codes, words, known)
    for at, word in enumerate(words[:-1]):
        if name == "env" and word.text in ("-S", "--split-string"):
            yield from _code([at + 1], words, None)


def _completed(own: Sequence[Word], command: Sequence[Word], fed: tuple[int, ...]) -> list[Word]:
    """The command of xargs with what it reads in its place, or at the end."""
    if not fed:
        return list(command)
    texts = [word.text for word in own]
    sign = next((after or "{}" for text, after in zip(texts, [*texts[1:], ""], strict=True) if text == "-I"), None)
    for text in texts:
        if found := re.fullmatch(r"(?:-I|-i|--replace=?)(.*)", text):
            sign = sign or found[1] or "{}"
    if sign is None:
        return [*command, Word(VALUE, fed)]
    return _replaced(command, sign, fed)


def _replaced(words: Sequence[Word], sign: str, values: tuple[int, ...]) -> list[Word]:
    made = ((word, word.text.replace(sign, VALUE)) for word in words)
    return [word if text == word.text else Word(text, (*word.values, *values)) for word, text in made]


def _parallel(words: Sequence[Word], fed: tuple[int, ...]) -> Iterator[Use]:
    """`parallel` runs its words, and without any what it is given; it quotes only what stands for {}."""
    start = _inner(words, 0, WRAPPERS["parallel"])
    end = next((at for at in range(start, len(words)) if words[at].text.startswith(":::")), len(words))
    template = words[start:end]
    given = (*fed, *_values(words[end:]))
    if not template:
        yield from _code_of(given)
        return
    yield from _code_of(_values(template))
    if given:
        replaced = _replaced(template, "{}", given)
        yield from uses(replaced if replaced != list(template) else [*template, Word(VALUE, given)])


# -- the program itself ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Given:
    """What a program is given: the places of code and of operands, `files` of code; `reads` is -s of a shell."""

    codes: list[int] = field(default_factory=list)
    operands: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    stopped: bool = False
    reads: bool = False


def _by_program(words: Sequence[Word], fed: tuple[int, ...]) -> Iterator[Use]:
    if not words:
        return
    name = words[0].text.rpartition("/")[2]
    yield from _builtin(name, words)
    known = program(name)
    if known:
        yield from _used(known, words, fed)
    if name in ("make", "gmake"):
        values = _values([word for word in words[1:] if not word.text.startswith("-")])
        if values:
            yield Use("decides", values, "make reads this as one of its definitions, and it may not come from a result")
    elif name == "git":
        yield from _git(words)
    elif name == "find":
        for at, word in enumerate(words):
            if word.text in FIND_RUNS:
                yield from uses(words[at + 1 :])
    if name not in ONLY_TELL:
        yield from _anywhere(words, fed if name in RUNNERS else ())


def _anywhere(words: Sequence[Word], fed: tuple[int, ...]) -> Iterator[Use]:
    """Interpreters behind a program that may run them."""
    for at in range(1, len(words)):
        known = program(words[at].text) if not words[at].values else None
        if known and known.anywhere:
            yield from _used(known, words[at:], fed)


def _used(known: Program, words: Sequence[Word], fed: tuple[int, ...]) -> Iterator[Use]:
    given = _given(known, words)
    yield from _code(given.codes, words, known)
    if is_shell(known) and given.codes and not words[given.codes[0]].values:
        arguments = tuple(words[at].values for at in given.operands[1:])
        values = tuple(value for each in arguments for value in each)
        yield from [Use("script", values, words[given.codes[0]].text, arguments=arguments)] if values else ()
    if given.stopped:
        return
    runs_stdin = known.stdin and not given.codes
    script = given.operands[:1] if runs_stdin and not given.reads else []
    from_stdin = runs_stdin and (known.always or not script)
    for at in (*script, *given.files):
        if at < len(words):
            from_stdin = from_stdin or words[at].text in STDIN
            if words[at].text.startswith(PROCESS):
                yield from _code([at], words, known)
    if from_stdin:
        yield from _code_of(fed, known)


def _given(known: Program, words: Sequence[Word]) -> _Given:
    found = _Given()
    flags = ""
    at = 1
    while at < len(words) and (known.mixed or _is_option(words[at].text)):
        text = words[at].text
        at += 1
        if text == "--":
            break
        if re.fullmatch(known.stops, text):
            return _Given(stopped=True)
        if match := re.fullmatch(known.code, text, re.DOTALL):
            attached = match.lastindex and match[match.lastindex]
            found.codes.append(at - 1 if attached else at)
            at += 0 if attached else 1
        elif re.fullmatch(known.files, text):
            found.files.append(at)
            at += 1
        elif re.fullmatch(known.valued, text):
            found.codes += [at] if at < len(words) and re.fullmatch(known.settings, words[at].text, re.DOTALL) else []
            at += 1
        flags += "" if text.startswith("--") else text
    found.operands = list(range(at, len(words)))
    _take_code(known, found, flags)
    return found


def _take_code(known: Program, found: _Given, flags: str) -> None:
    """The operands that are code."""
    shell = is_shell(known)
    found.reads = shell and "s" in flags and "c" not in flags
    if (shell and "c" in flags) or (known.first and not found.codes and not found.files):
        found.codes += found.operands[:1]
        found.operands = found.operands[1:]
    if known.all >= 0:
        found.codes += found.operands[known.all :]


def _is_option(text: str) -> bool:
    return len(text) > 1 and text[0] in "-+"


def _builtin(name: str, words: Sequence[Word]) -> Iterator[Use]:
    """What the shell itself takes as names, or calculates."""
    rest = words[1:]
    if name in _TAKE_NAMES:
        yield from _code_of(_values(rest))
    elif name in DECLARE:
        counts = any(re.fullmatch(r"-[A-Za-z]*[in][A-Za-z]*", word.text) for word in rest) and name != "export"
        for word in rest:
            assigned = _ASSIGNED.match(word.text)
            if assigned and not counts:
                yield from decided(assigned[1], word.values)
            elif "[" in word.text or not assigned or counts:
                yield from _code_of(word.values)
    elif name in ("printf", "test", "["):
        for flag, word in zip(words, rest, strict=False):
            yield from _code_of(word.values if flag.text == "-v" else ())


def _git(words: Sequence[Word]) -> Iterator[Use]:
    command = ""
    for word, after in zip(words[1:], [*words[2:], Word("")], strict=False):
        match = _GIT_PROGRAM.fullmatch(word.text)
        if match:
            yield from _code_of(word.values if match[1] is not None else after.values)
        elif word.text == "-c" and command in ("", "clone"):
            key, _, _ = after.text.partition("=")
            yield from _git_key(key, after.values)
        elif command == "config" and not word.text.startswith("-"):
            yield from _git_key(word.text, (*word.values, *after.values))
            return
        elif (command, word.text) in _GIT_COMMANDS:
            yield from _code_of(_values(words[words.index(word) :]))
            return
        elif not command and not word.text.startswith("-"):
            command = word.text


def _git_key(key: str, values: tuple[int, ...]) -> Iterator[Use]:
    if VALUE in key and values:
        yield Use("decides", values, "a setting of git decides what it runs, and may not come from a result")
    elif GIT_KEY.fullmatch(key):
        yield from _code_of(values)


def _code(places: Sequence[int], words: Sequence[Word], known: Program | None) -> Iterator[Use]:
    for at in places:
        if at < len(words):
            yield from _code_of(words[at].values, known)


def _code_of(values: tuple[int, ...], known: Program | None = None) -> Iterator[Use]:
    if values:
        yield Use("code", values, example=known.example if known else "shell")


def _values(words: Sequence[Word]) -> tuple[int, ...]:
    return tuple(value for word in words for value in word.values)


def advice(message: str) -> str:
    """What to do about what no result may decide."""
    return "name it: run: [git, ...]" if message == PROGRAM else "write it down, or take it from an input"


def example(name: str, value: str, *, listed: bool) -> str:
    """How a value is handed to a program as an argument, as a list or as a script has it."""
    words = [word.replace("${{ x }}", f'"{value}"' if listed else value) for word in EXAMPLES[name]]
    return f"run: [{', '.join(words)}]" if listed else " ".join(words)
