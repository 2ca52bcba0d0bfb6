"""What the core tells whoever listens. The core itself prints nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WorkPlanned:
    """A stretch of work begins."""

    title: str
    total_nbytes: int
    done_nbytes: int = 0  # found finished from an earlier, interrupted run


@dataclass(frozen=True, kw_only=True)
class BytesDone:
    """So many more bytes are finished."""

    nbytes: int


@dataclass(frozen=True, kw_only=True)
class WorkDone:
    """The stretch of work ended well."""

    title: str


Event = WorkPlanned | BytesDone | WorkDone
Listener = Callable[[Event], None]


def nobody(event: Event) -> None:
    """The listener that hears nothing."""
    del event
