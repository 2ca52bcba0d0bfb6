"""Views of a buffer in the places that a scatter names, made once for all blocks of one form."""

from __future__ import annotations

from collections import OrderedDict

from ropeconv.thinking.blocks import Scatter

MAX_GEOMETRIES = 16  # sets of views kept; neighbouring blocks have few geometries
MOST_VIEWS = 1 << 12  # of all of these together, unless a single one has more; of 200 bytes each


def views_kept(places: int) -> int:
    """The most views that are there at once, of scatters of so many places at most."""
    return min(MAX_GEOMETRIES * places, max(MOST_VIEWS, places))


class Views:
    """Views of one buffer."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._kept: OrderedDict[tuple[int, int], tuple[Scatter, list[memoryview]]] = OrderedDict()

    def of(self, scatter: Scatter, shift: int = 0) -> list[memoryview]:
        """The views of a scatter, in a buffer that begins so many bytes later.

        A view takes 1.5 us to make, and a block of columns has 16,384 of them.
        """
        if len(scatter) == 1:
            at, nbytes = scatter[0]
            return [self._buffer[shift + at : shift + at + nbytes]]
        # Equal scatters are mostly the same object; comparing thousands of places would cost
        # as much as making the views. The entry keeps the scatter alive, so its id stays its own.
        key = (id(scatter), shift)
        if key not in self._kept:
            self._make_room(len(scatter))
            views = [self._buffer[shift + at : shift + at + nbytes] for at, nbytes in scatter]
            self._kept[key] = (scatter, views)
        return self._kept[key][1]

    def _make_room(self, count: int) -> None:
        """Let the oldest views go until so many more may be kept."""
        held = sum(len(views) for _, views in self._kept.values())
        while self._kept and (held + count > MOST_VIEWS or len(self._kept) >= MAX_GEOMETRIES):
            _, (_, views) = self._kept.popitem(last=False)
            held -= len(views)
