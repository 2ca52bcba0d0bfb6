"""Row layouts of rotary heads, and the one function that reorders between them.

Notation: a rotary span has r rows (r even) in P = r / 2 pairs; part c (0 or 1) of pair p lies at
row p * pair_stride + c * part_stride. The rotation turns the two parts of pair p by the angle
position * inv_freq[p]; layouts differ only in where the parts lie.

Source:
    Su et al. 2021, https://arxiv.org/abs/2104.09864, section 3.4.2 (interleaved pairs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, Protocol, TypeVar

from ropeconv.words.errors import RowsError


@dataclass(frozen=True, kw_only=True)
class RopeLayout:
    """Where the two parts of a rotary pair lie: two strides, in rows.

    Attributes:
        name: the word for users, files and JSON.
        pair_stride: rows from one pair to the next.
        part_stride: rows from part 0 to part 1 of a pair; None for "as many as there are pairs".
    """

    name: str
    pair_stride: int
    part_stride: int | None

    def strides(self, pairs: int) -> tuple[int, int]:
        """The strides (pair_stride, part_stride) in a span of that many pairs.

        >>> INTERLEAVED.strides(4), HALF_SPLIT.strides(4)
        ((2, 1), (1, 4))
        """
        return self.pair_stride, pairs if self.part_stride is None else self.part_stride

    def __str__(self) -> str:
        return self.name


INTERLEAVED = RopeLayout(name="interleaved", pair_stride=2, part_stride=1)
HALF_SPLIT = RopeLayout(name="half-split", pair_stride=1, part_stride=None)
LAYOUTS = {layout.name: layout for layout in (INTERLEAVED, HALF_SPLIT)}


@dataclass(frozen=True)
class Keep:
    """Rows that no rotation touches: they stay where they are."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 0:
            raise RowsError(
                what=f"`Keep({self.count})` has a negative number of rows",
                fix="check head_dim against rotary_dim",
            )

    def __str__(self) -> str:
        return f"Keep({self.count})"


@dataclass(frozen=True)
class Rope:
    """The rotary rows of one head, r of them, in pairs."""

    dim: int

    def __post_init__(self) -> None:
        if self.dim <= 0 or self.dim % 2:
            raise RowsError(
                what=f"`Rope({self.dim})` is no rotary span, expected a positive even number of"
                " rows",
                fix="round an odd rotary dimension down, as the model's own code does",
            )

    def __str__(self) -> str:
        return f"Rope({self.dim})"


@dataclass(frozen=True, init=False)
class Repeat:
    """The same parts, in the same order, that many times: heads, groups, or groups of heads."""

    times: int
    parts: tuple[Rows, ...]

    def __init__(self, times: int, *parts: Rows) -> None:
        if times < 0:
            raise RowsError(
                what=f"`Repeat({times}, ...)` repeats a negative number of times",
                fix="check the head counts",
            )
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "parts", parts)

    def __str__(self) -> str:
        return f"Repeat({', '.join(map(str, (self.times, *self.parts)))})"


Rows = Keep | Rope | Repeat


def num_rows(*parts: Rows) -> int:
    """The number of rows that the parts describe, one after the other.

    >>> num_rows(Repeat(6, Rope(8), Keep(2)), Keep(20))
    80
    """
    total = 0
    for part in parts:
        match part:
            case Keep(count):
                total += count
            case Rope(dim):
                total += dim
            case Repeat(times, inner):
                total += times * num_rows(*inner)
    return total


def spans(parts: Sequence[Rows], start: int = 0) -> list[range]:
    """The places of every rotary span among the rows.

    >>> spans((Repeat(2, Keep(1), Rope(2)),))
    [range(1, 3), range(4, 6)]
    """
    found: list[range] = []
    for part in parts:
        match part:
            case Rope(dim):
                found.append(range(start, start + dim))
            case Repeat(times, inner):
                size = num_rows(*inner)
                for turn in range(times):
                    found += spans(inner, start + turn * size)
            case Keep():
                pass
        start += num_rows(part)
    return found


def row_order(parts: tuple[Rows, ...], source: RopeLayout, target: RopeLayout) -> tuple[int, ...]:
    """The gather order between two layouts: row i of the target is row order[i] of the source.

    >>> row_order((Rope(8),), INTERLEAVED, HALF_SPLIT)
    (0, 2, 4, 6, 1, 3, 5, 7)
    >>> row_order((Rope(8),), HALF_SPLIT, INTERLEAVED)
    (0, 4, 1, 5, 2, 6, 3, 7)
    """
    return tuple(_order(parts, source, target, 0))


def row_period(parts: tuple[Rows, ...], source: RopeLayout, target: RopeLayout) -> tuple[int, ...]:
    """The gather order of the part that repeats, where all rows are repeats of one: a head, often.

    >>> row_period((Repeat(32, Rope(4)),), INTERLEAVED, HALF_SPLIT)
    (0, 2, 1, 3)
    """
    match parts:
        case (Repeat(_, inner),) if inner:
            return row_period(inner, source, target)
        case _:
            return row_order(parts, source, target)


def _order(
    parts: tuple[Rows, ...], source: RopeLayout, target: RopeLayout, start: int
) -> chain[int]:
    pieces: list[tuple[int, ...] | range | list[int]] = []
    for part in parts:
        match part:
            case Keep(count):
                pieces.append(range(start, start + count))
            case Rope(dim):
                pieces.append([start + row for row in _span_order(dim, source, target)])
            case Repeat(times, inner):
                size = num_rows(*inner)
                once = tuple(_order(inner, source, target, 0))
                pieces.append([start + turn * size + row for turn in range(times) for row in once])
        start += num_rows(part)
    return chain.from_iterable(pieces)


@lru_cache(maxsize=64)
def _span_order(dim: int, source: RopeLayout, target: RopeLayout) -> tuple[int, ...]:
    pairs = dim // 2
    source_pair, source_part = source.strides(pairs)
    target_pair, target_part = target.strides(pairs)
    order = [0] * dim
    for pair in range(pairs):
        for part in range(2):
            order[pair * target_pair + part * target_part] = pair * source_pair + part * source_part
    return tuple(order)


class Tensor(Protocol):
    """Anything with rows that can be gathered: a torch tensor, a NumPy array."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __getitem__(self, index: Any, /) -> Any: ...  # noqa: ANN401


T = TypeVar("T", bound=Tensor)


def reorder_rows(
    tensor: T, rows: Rows | tuple[Rows, ...], *, source: RopeLayout, target: RopeLayout
) -> T:
    """The tensor with its rows in another layout; a new one, the values are not touched.

    Works on anything attached to those rows: weight, bias, per-row scale, LoRA's B.

    Shapes:
        tensor [rows, ...] -> [rows, ...]

    Args:
        tensor: torch or NumPy, of any dtype that can be indexed.
        rows: what its rows are, for example `Repeat(num_heads, Rope(head_dim))`.
        source: the layout that it is in.
        target: the layout to bring it to.

    Raises:
        RowsError: the tensor has another number of rows.
    """
    parts = rows if isinstance(rows, tuple) else (rows,)
    expected = num_rows(*parts)
    if not tensor.shape or tensor.shape[0] != expected:
        raise RowsError(
            what=f"the tensor has the shape {list(tensor.shape)}, expected {expected} rows",
            why=f"the rows are `{', '.join(map(str, parts))}`",
            fix="check the head count: key projections have num_kv_heads heads",
        )
    reordered: T = tensor[list(row_order(parts, source, target))]
    return reordered
