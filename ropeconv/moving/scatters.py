"""Carries scatters out: the bytes of a span go to their places in a buffer, whoever reads them."""

from __future__ import annotations

from collections.abc import Callable

from ropeconv.moving.gathers import Gathers
from ropeconv.moving.views import Views
from ropeconv.thinking.blocks import Scatter


class Scatters:
    """Scatters into one buffer: views for a vectored read, or numbers where parts are tiny."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._views = Views(buffer)
        self._gathers = Gathers()

    def fill(
        self, scatter: Scatter, read: Callable[[list[memoryview]], None], shift: int = 0
    ) -> None:
        """Put a span to its places, in a buffer that begins so many bytes later.

        Args:
            scatter: the places.
            read: fills views, in order, with the bytes of the span; what it raises is passed on.
            shift: bytes.
        """
        numbers = self._gathers.of(scatter)
        if numbers is None:
            read(self._views.of(scatter, shift))
            return
        span = memoryview(bytearray(sum(nbytes for _, nbytes in scatter)))
        read([span])
        numbers.put(span, self._buffer[shift:])
