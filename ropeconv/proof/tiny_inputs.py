"""How tiny models that hear or look are called: with noise, and numbers that say what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

PATCH, CHANNELS, SIDE, MELS = 2, 3, 4, 5


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How towers of one kind are made and called.

    Attributes:
        model: the name of the class.
        inputs: what it is called with.
        places: of two tokens whose positions differ by one on every axis.
        put: what further changes the config: an object that it would not make of a table.
    """

    model: str
    inputs: Callable[[], dict[str, Any]]
    places: tuple[int, int] = (0, SIDE + 1)
    put: Callable[[Any], None] | None = None


def noise(*shape: int) -> Tensor:
    import torch  # noqa: PLC0415 - the caller decides to pay for it

    return torch.randn(shape, generator=torch.Generator().manual_seed(5)).double()


def numbers(*rows: list[int]) -> Tensor:
    import torch  # noqa: PLC0415

    return torch.tensor(rows)
