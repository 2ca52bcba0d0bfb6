"""Blocks: moves cut into pieces of work that fit a small buffer.

A block reads contiguous spans of source files, scatters their rows into a buffer in target order,
and writes contiguous parts of the buffer. The scatter is the whole of a conversion: a reorder, a
join of ranks by rows or by columns and a split are one thing here, a list of places in the buffer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from ropeconv.thinking.moves import Move
from ropeconv.thinking.whole import Piece

# of a block's scatter, where rows allow it: each place takes 128 bytes, and a view of it 200
MOST_PLACES = 1 << 14
FEW_PLACES = 1 << 10
# A block of rows that come from several files, or go to several, is so many times larger: each file
# then takes larger parts. Twice: 0.85 of the time to 2 and to 8 ranks. Four times: 1.17 to 8 ranks.
MOST_PIECES = 2
KEPT_FEW, KEPT_MANY = 16, 4  # scatters of at most so few places that are kept, and of more

# (place in the buffer, bytes), in the order of the source's bytes
Scatter = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    """A contiguous span of a source file, and where its parts go."""

    file: int
    offset: int
    nbytes: int
    scatter: Scatter


@dataclass(frozen=True, kw_only=True, slots=True)
class Write:
    """A contiguous part of the buffer, and its place in a target file."""

    file: int
    offset: int
    start: int  # in the buffer
    nbytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Rows of one tensor that are moved at once."""

    name: str
    nbytes: int  # of the buffer
    reads: tuple[Read, ...]
    writes: tuple[Write, ...]


@dataclass(frozen=True)
class _Area:
    """A part of the buffer: some rows, counted from the block's first, some bytes of each."""

    start: int
    first_row: int
    last_row: int
    first_byte: int
    last_byte: int

    @property
    def row_nbytes(self) -> int:
        return self.last_byte - self.first_byte


def blocks(move: Move, limit: int) -> Iterator[Block]:
    """The move's blocks, each of at most limit bytes where rows allow it.

    Rows that change places with each other stay together, so a block has at least one whole head.
    """
    if not move.num_rows or not move.row_nbytes:
        return
    if _is_plain(move):
        yield from _plain_blocks(move, limit)
        return
    for first, last in _cuts(move, limit):
        areas, writes = _areas(move, first, last)
        relative = None
        if move.order is not None:
            relative = _deltas(move.order, first % len(move.order), last - first)
        reads = tuple(
            _read(piece, first, last, relative, areas)
            for piece in move.sources
            if piece.first_row < last and piece.last_row > first
        )
        yield Block(
            name=move.name,
            nbytes=sum((area.last_row - area.first_row) * area.row_nbytes for area in areas),
            reads=reads,
            writes=writes,
        )


def block_nbytes(move: Move, limit: int) -> int:
    """The largest buffer that the move's blocks need, in bytes."""
    if _is_plain(move):
        return min(limit, move.num_rows * move.row_nbytes)
    return _most_rows(move, limit) * move.row_nbytes


def block_places(move: Move, limit: int) -> int:
    """The most places that a scatter of the move's blocks has."""
    return _most_rows(move, limit) * _num_parts(move) if _is_scattered(move) else 1


def _most_rows(move: Move, limit: int) -> int:
    """Rows of the largest block."""
    segment = max((last - first for first, last in _segments(move.order)), default=0)
    return min(max(_rows_at_once(move, limit), segment), move.num_rows)


def _rows_at_once(move: Move, limit: int) -> int:
    """Rows of a block, where rows that change places with each other allow it."""
    pieces = min(MOST_PIECES, max(len(move.sources), len(move.targets)))
    rows = max(1, pieces * limit // max(move.row_nbytes, 1))
    if not _is_scattered(move):
        return rows
    return min(rows, max(1, MOST_PLACES // _num_parts(move)))


def _is_scattered(move: Move) -> bool:
    """Whether rows, or parts of rows, are placed one by one."""
    return move.order is not None or _num_parts(move) > 1


def _num_parts(move: Move) -> int:
    """Parts of a row, cut wherever a piece of the source or of the target begins in it."""
    return len({piece.first_byte for piece in (*move.sources, *move.targets)})


def _is_plain(move: Move) -> bool:
    """One contiguous piece becomes one contiguous piece: rows do not matter."""
    return (
        move.order is None
        and len(move.sources) == 1
        and len(move.targets) == 1
        and move.targets[0].row_nbytes == move.row_nbytes
        and move.targets[0].nbytes == move.sources[0].nbytes
    )


def _plain_blocks(move: Move, limit: int) -> Iterator[Block]:
    source, target = move.sources[0], move.targets[0]
    position = 0
    while position < target.nbytes:
        # end on a multiple of the limit in the target file, so that writes are aligned
        nbytes = min(limit - (target.offset + position) % limit, target.nbytes - position)
        yield Block(
            name=move.name,
            nbytes=nbytes,
            reads=(
                Read(
                    file=source.file,
                    offset=source.offset + position,
                    nbytes=nbytes,
                    scatter=((0, nbytes),),
                ),
            ),
            writes=(
                Write(file=target.file, offset=target.offset + position, start=0, nbytes=nbytes),
            ),
        )
        position += nbytes


@lru_cache(maxsize=8)
def _segments(order: tuple[int, ...] | None) -> tuple[tuple[int, int], ...]:
    """Smallest runs of rows that the order maps onto themselves; single rows are left out."""
    found: list[tuple[int, int]] = []
    first = highest = 0
    for row, source in enumerate(order or ()):
        highest = max(highest, source)
        if highest == row:
            if row > first:
                found.append((first, row + 1))
            first = highest = row + 1
    return tuple(found)


def _cuts(move: Move, limit: int) -> Iterator[tuple[int, int]]:
    rows, period = _rows_at_once(move, limit), 1
    if move.order is not None:
        period = len(move.order)
        rows = max(rows // period * period, min(rows, period))  # blocks of one form, where they fit
    segments = _segments(move.order)
    starts = [first for first, _ in segments]
    position = 0
    while position < move.num_rows:
        end = min(position + rows, move.num_rows)
        begin = end - end % period  # of the period that the end lies in
        at = bisect_right(starts, end - begin - 1) - 1
        if at >= 0 and segments[at][0] < end - begin < segments[at][1]:
            first, last = (begin + row for row in segments[at])
            end = first if first > position else last
        yield position, end
        position = end


@lru_cache(maxsize=16)
def _deltas(order: tuple[int, ...], phase: int, count: int) -> tuple[int, ...] | None:
    """How far rows move, target row minus source row, from one of the period on; None if none."""
    once = [0] * len(order)
    for target, source in enumerate(order):
        once[source] = target - source
    deltas = (once * (count // len(order) + 2))[phase : phase + count]
    return tuple(deltas) if any(deltas) else None


def _areas(move: Move, first: int, last: int) -> tuple[tuple[_Area, ...], tuple[Write, ...]]:
    areas: dict[tuple[int, int, int, int], _Area] = {}
    writes: list[Write] = []
    start = 0
    for piece in move.targets:
        begin, end = max(first, piece.first_row), min(last, piece.last_row)
        if begin >= end:
            continue
        key = (begin - first, end - first, piece.first_byte, piece.last_byte)
        if key not in areas:
            areas[key] = _Area(start, *key)
            start += (end - begin) * piece.row_nbytes
        writes.append(
            Write(
                file=piece.file,
                offset=piece.offset + (begin - piece.first_row) * piece.row_nbytes,
                start=areas[key].start,
                nbytes=(end - begin) * piece.row_nbytes,
            )
        )
    return tuple(areas.values()), tuple(writes)


def _read(
    piece: Piece, first: int, last: int, deltas: tuple[int, ...] | None, areas: tuple[_Area, ...]
) -> Read:
    begin, end = max(first, piece.first_row), min(last, piece.last_row)
    few = (end - begin) * len(areas) <= FEW_PLACES
    scatter = (_scatter_of_few if few else _scatter_of_many)(
        begin - first, end - first, piece.first_byte, piece.last_byte, deltas, areas
    )
    return Read(
        file=piece.file,
        offset=piece.offset + (begin - piece.first_row) * piece.row_nbytes,
        nbytes=(end - begin) * piece.row_nbytes,
        scatter=scatter,
    )


def _scatter(
    begin: int,
    end: int,
    first_byte: int,
    last_byte: int,
    deltas: tuple[int, ...] | None,
    areas: tuple[_Area, ...],
) -> Scatter:
    """Places of rows of a source piece; rows count from the block's first.

    Blocks of one tensor repeat each other, so nearly every call is answered from the cache:
    computing costs about 100 us for 1 MiB of 4 KB rows, as much as moving them.
    """
    if len(areas) == 1 and deltas is None:
        area = areas[0]
        inside = area.first_row <= begin and end <= area.last_row
        if inside and (area.first_byte, area.last_byte) == (first_byte, last_byte):
            place = area.start + (begin - area.first_row) * area.row_nbytes
            return ((place, (end - begin) * area.row_nbytes),)
    places: list[tuple[int, int]] = []
    ordered = sorted(areas, key=lambda area: area.first_byte)
    for row in range(begin, end):
        target = row if deltas is None else row + deltas[row]
        for area in ordered:
            left, right = max(first_byte, area.first_byte), min(last_byte, area.last_byte)
            if left >= right or not area.first_row <= target < area.last_row:
                continue
            place = (
                area.start + (target - area.first_row) * area.row_nbytes + (left - area.first_byte)
            )
            if places and sum(places[-1]) == place:
                places[-1] = (places[-1][0], places[-1][1] + right - left)
            else:
                places.append((place, right - left))
    return tuple(places)


_scatter_of_few = lru_cache(maxsize=KEPT_FEW)(_scatter)
_scatter_of_many = lru_cache(maxsize=KEPT_MANY)(_scatter)
