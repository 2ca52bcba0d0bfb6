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
class LayersPlanned:
    """A stretch of work begins that goes layer by layer, and takes time rather than bytes."""

    title: str
    num_layers: int


@dataclass(frozen=True, kw_only=True)
class LayerDone:
    """One more layer is finished."""

    layer: int  # its number in the model


@dataclass(frozen=True, kw_only=True)
class WorkDone:
    """The stretch of work ended well."""

    title: str


@dataclass(frozen=True, kw_only=True)
class CheckBegun:
    """A part of a proof begins: bytes, config, scores or logits."""

    name: str


@dataclass(frozen=True, kw_only=True)
class CheckDone:
    """That part of a proof has its outcome."""

    name: str


Event = WorkPlanned | BytesDone | LayersPlanned | LayerDone | WorkDone | CheckBegun | CheckDone
Listener = Callable[[Event], None]


def nobody(event: Event) -> None:
    """The listener that hears nothing."""
    del event
