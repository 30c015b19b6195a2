"""The globs of many writers: which of them one path could fit, without a look at each pair of them.

Globs are taken apart into the parts between slashes, as far as these stand at a fixed place from the beginning or from
the end. Only those that are alike in each of these places are compared.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Sequence

from flowcraft.core.globs import fixed_ends, is_plain, overlap, plain_ends

MOST_WORK = 1_500_000  # some 0.5 s


class TooMany(Exception):
    """So many globs are alike that comparing them would take too long."""


class Globs:
    """What the writers of one file may write; they are known by their numbers, sets of them are the bits of an int."""

    def __init__(self) -> None:
        self._globs: list[Sequence[str]] = []
        self._work = _Work()
        self._heads, self._tails = _Places(self._work), _Places(self._work)

    def add(self, globs: Sequence[str]) -> None:
        """Note what the next writer may write."""
        for head, tail in map(fixed_ends, globs):
            self._heads.add(head, len(self._globs))
            self._tails.add(tail, len(self._globs))
        self._globs.append(globs)

    def meeting(self, globs: Sequence[str], among: int) -> tuple[int, str] | None:
        """The first of some writers that may write a file that fits one of these, and the first that it fits.

        Raises TooMany.
        """
        near = 0
        for head, tail in map(fixed_ends, globs):
            near |= self._heads.alike(head) & self._tails.alike(tail)
        near &= among
        while near:
            writer = (near & -near).bit_length() - 1
            for glob in globs:
                if any(self._overlap(glob, other) for other in self._globs[writer]):
                    return writer, glob
            near ^= 1 << writer
        return None

    def _overlap(self, one: str, other: str) -> bool:
        classes = len(one) * len(other) if "[" in one and "[" in other else 0
        self._work.spend(20 + len(one) + len(other) + classes)
        return overlap(one, other)


class _Work:
    """How much may still be done."""

    def __init__(self) -> None:
        self._left = MOST_WORK

    def spend(self, amount: int) -> None:
        self._left -= amount
        if self._left < 0:
            raise TooMany


class _Places:
    """The parts of globs by their place from one end; what follows the fixed ones may be anything."""

    def __init__(self, work: _Work) -> None:
        self._parts: list[_Parts] = []
        self._free: dict[int, int] = defaultdict(int)
        self._work = work

    def add(self, parts: Sequence[str], writer: int) -> None:
        """Note the fixed parts of a glob."""
        while len(self._parts) < len(parts):
            self._parts.append(_Parts(self._work))
        for known, part in zip(self._parts, parts, strict=False):
            known.add(part, writer)
        self._free[len(parts)] |= 1 << writer

    def alike(self, parts: Sequence[str]) -> int:
        """The writers with a glob that is like this in each fixed place of both."""
        bits, free = -1, 0
        for place, part in enumerate(parts):
            free |= self._free[place]
            bits &= (self._parts[place].alike(part) if place < len(self._parts) else 0) | free
        return bits


class _Parts:
    """The parts that stand at one place."""

    def __init__(self, work: _Work) -> None:
        self._exact: dict[str, int] = defaultdict(int)
        self._patterns = 0
        self._starts, self._ends = _Beginnings(work), _Beginnings(work)

    def add(self, part: str, writer: int) -> None:
        if is_plain(part):
            self._exact[part] |= 1 << writer
        else:
            self._patterns |= 1 << writer
        start, end = plain_ends(part)
        self._starts.add(start, writer)
        self._ends.add(end[::-1], writer)

    def alike(self, part: str) -> int:
        start, end = plain_ends(part)
        near = self._starts.alike(start) & self._ends.alike(end[::-1])
        return near & self._patterns | self._exact.get(part, 0) if is_plain(part) else near


class _Beginnings:
    """Sets of writers by a text, to find those with a text that begins another, or begins with it."""

    def __init__(self, work: _Work) -> None:
        self._writers: dict[str, int] = defaultdict(int)
        self._sorted: list[str] = []
        self._work = work

    def add(self, text: str, writer: int) -> None:
        if text not in self._writers:
            insort(self._sorted, text)
        self._writers[text] |= 1 << writer

    def alike(self, text: str) -> int:
        if not text:
            return -1  # all there are: every text begins with nothing
        bits = 0
        for length in range(len(text)):
            bits |= self._writers.get(text[:length], 0)
        for at in range(bisect_left(self._sorted, text), len(self._sorted)):
            if not self._sorted[at].startswith(text):
                break
            self._work.spend(1)
            bits |= self._writers[self._sorted[at]]
        return bits
