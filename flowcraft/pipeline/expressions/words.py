"""The words of a bash script become commands: reserved words, assignments, loops and the patterns of a case."""

import re

from flowcraft.pipeline.expressions.commands import PROCESS, VALUE, Use, Word, decided
from flowcraft.pipeline.expressions.frames import Command, Frame
from flowcraft.pipeline.expressions.programs import DECLARE
from flowcraft.pipeline.expressions.variables import Variables

_ASSIGNMENT = re.compile(r"(\w+)(?:\[[^\]]*\])?\+?=(.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_]\w*")
_QUOTES = re.compile(r"(?:%q|\s|\\[nt])+")
_RESERVED = ("then", "do", "else", "elif", "if", "while", "until", "!", "{", "time", "esac", "fi", "done", "}")
_OPENING = ("{", "if", "while", "until", "for", "case", "select")
_CLOSING = ("}", "fi", "done", "esac")


class Words:
    """Collects the `commands` of a script, what its `variables` hold, and `uses` of values that need no command."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.uses: list[Use] = []
        self.variables = Variables()
        self.numbers: set[int] = set()

    def end_word(self, frame: Frame) -> None:
        """The word that is being read has ended."""
        if not frame.word:
            return
        text, values = frame.word.replace("\0", ""), tuple(dict.fromkeys(frame.values))
        written, target = frame.word, frame.target
        frame.word, frame.values, frame.target = "", [], ""
        command = frame.command
        if target:
            command.fed += values if target == "<<<" or (target == "<" and text.startswith(PROCESS)) else ()
            command.reads_file = command.reads_file or target == "<"
        elif not command.words and self._is_no_word(frame, written, text, values):
            return
        else:
            frame.command.words.append(Word(text, values))
            self._take_in(frame, text, values)

    def _is_no_word(self, frame: Frame, written: str, text: str, values: tuple[int, ...]) -> bool:
        """Whether this is a reserved word or an assignment, which comes before the words of a command."""
        if frame.inside == "data":
            return False
        if written in _OPENING:
            self._opens(frame)
        elif written in _CLOSING and frame.opened:
            start, frame.command = frame.opened.pop()
            frame.command.inner += frame.seen[start:]
        frame.cases += (written == "case") - (written == "esac" and frame.cases > 0)
        frame.pattern = frame.pattern and written != "esac"
        if assigned := _ASSIGNMENT.fullmatch(text):
            self._calculated(text[: assigned.start(2)], values)
            self.variables.hold(assigned[1], assigned[2], values)
            self.uses += decided(assigned[1], values)
        return written in _RESERVED or (assigned is not None and _ASSIGNMENT.fullmatch(written) is not None)

    def _opens(self, frame: Frame) -> None:
        """A group or loop begins; the command that is being read is the first in it."""
        whole = Command(upstream=frame.command.upstream, outer=frame.command.outer)
        frame.opened.append((len(frame.seen), whole))
        frame.next_command()

    def _calculated(self, text: str, values: tuple[int, ...]) -> None:
        """Bash calculates with the names and values in a text: an index, or what `let` is told."""
        if "[" in text and VALUE in text:
            self.numbers.update(values)
        for name in _NAME.findall(text.partition("[")[2] if "[" in text else ""):
            held = self.variables.get(name)
            self.numbers.update(held.values if held and held.whole else ())

    def _take_in(self, frame: Frame, text: str, values: tuple[int, ...]) -> None:
        """What a word means for those that follow: an assignment of `export`, the patterns of a case."""
        words = frame.command.words
        assigned = _ASSIGNMENT.fullmatch(text)
        if assigned and words[0].text in DECLARE:
            self.variables.hold(assigned[1], assigned[2], values)
        elif text == "in" and words[0].text == "case" and len(words) == 3:
            frame.next_command()
            frame.pattern = True
        elif words[0].text == "function" and len(words) == 2:
            frame.next_command()

    def end_command(self, frame: Frame, *, piped: bool = False) -> None:
        """The command that is being read has ended; `piped` into the next one."""
        self.end_word(frame)
        command = frame.command
        if command.is_empty or (frame.pattern and piped):
            return
        frame.next_command(command if piped else None)
        if frame.inside == "data" or frame.pattern:
            return
        texts = [word.text for word in command.words]
        self.commands.append(command)
        for word in command.words[1:] if texts[:1] == ["let"] else ():
            self._calculated(f"[{word.text}", ())
        frame.quotes = frame.quotes and texts[:1] == ["printf"] and _QUOTES.fullmatch("".join(texts[1:2])) is not None
        self.variables.hold_named(command)
