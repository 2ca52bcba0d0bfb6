"""Numbers placed one by one in memory: how a scatter of thousands of tiny parts is carried out.

A vectored read takes 100 ns for each of its parts, which makes 20 MB/s of parts of 2 bytes. So the
span of such a scatter is read as it lies, and NumPy puts its numbers where they belong.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from ropeconv.thinking.blocks import FEW_PLACES, Scatter

MAX_GEOMETRIES = 4  # of which the places are kept
LARGEST_NBYTES = 8  # of a number
MOST_NUMBERS = 2  # of a part, on average: longer ones are read into their places faster


def may_gather(places: int, nbytes: int) -> bool:
    """Whether a scatter of so many places and bytes can be one of numbers."""
    return places > FEW_PLACES and nbytes <= MOST_NUMBERS * LARGEST_NBYTES * places


@dataclass(frozen=True)
class Numbers:
    """A scatter as numbers of one size.

    Attributes:
        width: bytes of a number.
        places: of each, in the order of the source, in numbers from the buffer's first.
    """

    width: int
    places: Any

    def put(self, span: memoryview, buffer: memoryview) -> None:
        """Put the numbers of a span, as it lies in a file, to their places in a buffer."""
        import numpy  # noqa: ICN001, PLC0415 - few conversions need it, and it takes 0.1 s

        kind = f"u{self.width}"
        room = buffer[: len(buffer) // self.width * self.width]
        numpy.frombuffer(room, kind)[self.places] = numpy.frombuffer(span, kind)


class Gathers:
    """Places of numbers, computed once for all blocks of one form."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[Scatter, Numbers | None]] = OrderedDict()

    def of(self, scatter: Scatter) -> Numbers | None:
        """The scatter as numbers; None if its parts are few, or not so short."""
        if len(scatter) <= FEW_PLACES:
            return None
        key = id(scatter)  # as for views: the entry keeps the scatter alive
        if key not in self._kept:
            if len(self._kept) >= MAX_GEOMETRIES:
                self._kept.popitem(last=False)
            self._kept[key] = (scatter, _numbers(scatter))
        return self._kept[key][1]


def _numbers(scatter: Scatter) -> Numbers | None:
    width = math.gcd(LARGEST_NBYTES, *(number for part in scatter for number in part))
    if sum(nbytes for _, nbytes in scatter) > MOST_NUMBERS * width * len(scatter):
        return None
    import numpy  # noqa: ICN001, PLC0415 - as above

    at, count = (numpy.array(scatter) // width).T
    first = count.cumsum() - count  # of each part, among all numbers
    return Numbers(width, numpy.repeat(at - first, count) + numpy.arange(count.sum()))
