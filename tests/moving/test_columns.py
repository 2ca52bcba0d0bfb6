"""Columns that follow rows: single numbers change their places, in blocks of bounded many."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from ropeconv.formats import hf
from ropeconv.moving.effort import Effort, Io
from ropeconv.moving.gathers import Gathers
from ropeconv.moving.resources import memory_nbytes
from ropeconv.moving.views import MOST_VIEWS, Views
from ropeconv.story.conversion import Handling, carry_out
from ropeconv.story.relayout import plan_new_layout
from ropeconv.thinking.blocks import MOST_PLACES, block_nbytes, block_places, blocks
from ropeconv.thinking.moves import Move
from ropeconv.thinking.plan import Plan
from ropeconv.thinking.whole import Piece
from ropeconv.words.events import nobody
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, Keep, Repeat, Rope, row_order
from tests.moving.cases import LARGER, make_hf

HEADS, ROTARY, REST = 20, 96, 32  # 2560 columns: the scatter's parts are of 2 and of 66 bytes
ROWS = (Repeat(HEADS, Rope(ROTARY), Keep(REST)),)
QUERIES = "model.layers.0.self_attn.q_proj.weight"


def as_columns(piece: Piece) -> Piece:
    return replace(piece, first_row=0, last_row=piece.nbytes // 2, first_byte=0, last_byte=2)


def with_columns(plan: Plan, order: tuple[int, ...]) -> Plan:
    """The plan with the columns of the first queries moved instead of their rows."""
    move = next(move for move in plan.moves if move.name == QUERIES and move.order is not None)
    columns = replace(
        move,
        num_rows=move.nbytes // 2,
        row_nbytes=2,
        order=order,
        sources=tuple(as_columns(piece) for piece in move.sources),
        targets=tuple(as_columns(piece) for piece in move.targets),
    )
    moves = tuple(columns if one is move else one for one in plan.moves)
    return replace(plan, moves=moves, clones=())


@pytest.mark.parametrize("rows", [ROWS, (Repeat(HEADS * 2, Rope(64)),)], ids=["kept", "moved"])
@pytest.mark.parametrize("io", [Io.BUFFERED, Io.DIRECT])
def test_columns_move_as_one_by_one(io: Io, rows: tuple[Repeat, ...], tmp_path: Path) -> None:
    shape = replace(LARGER, layers=1, hidden=2560, heads=1, kv_heads=1, intermediate=8, vocab=8)
    source = make_hf(tmp_path / "half", shape, num_shards=1)
    order = row_order(rows, HALF_SPLIT, INTERLEAVED)
    plan = with_columns(plan_new_layout(source, INTERLEAVED), order)
    carry_out(
        plan,
        tmp_path / "new",
        Effort(jobs=2, io=io, sync=False),
        handling=Handling(),
        look=False,
        dry_run=False,
        listen=nobody,
        stop=None,
    )
    before, after = (_numbers(folder) for folder in (source, tmp_path / "new"))

    assert len(before) == 64 * 2560
    for row in range(0, len(before), 2560):
        assert after[row : row + 2560] == [before[row + column] for column in order]


def _numbers(folder: Path) -> list[int]:
    checkpoint = hf.discover(folder)
    tensor = next(tensor for tensor in checkpoint.tensors if tensor.name == QUERIES)
    data = checkpoint.path(tensor.file).read_bytes()[tensor.offset :][: tensor.nbytes]
    return list(struct.unpack(f"<{len(data) // 2}H", data))


@pytest.mark.parametrize("width", [1, 2, 4, 8, 3])
def test_numbers_are_put_where_the_views_are(width: int) -> None:
    """Also at a place that is no multiple of their size."""
    order = row_order((Repeat(300, Rope(6), Keep(1)),), HALF_SPLIT, INTERLEAVED)
    whole = Piece(file=0, offset=0, first_row=0, last_row=4200, first_byte=0, last_byte=width)
    move = Move(
        name="w", num_rows=4200, row_nbytes=width, order=order, sources=(whole,), targets=(whole,)
    )
    (block,) = blocks(move, 1 << 20)
    span = bytearray(number * 37 % 251 for number in range(4200 * width))
    expected, found = bytearray(len(span) + 5), bytearray(len(span) + 5)
    place = 0
    for view in Views(memoryview(expected)).of(block.reads[0].scatter, 5):
        view[:] = span[place : place + len(view)]
        place += len(view)
    numbers = Gathers().of(block.reads[0].scatter)
    if numbers is None:
        assert width == 3  # three numbers of a byte each
        return
    numbers.put(memoryview(span), memoryview(found)[5:])

    assert numbers.width == width
    assert found == expected


@pytest.mark.parametrize("parts", [1, 3])
def test_blocks_of_tiny_rows_have_bounded_many_places(parts: int) -> None:
    def pieces(offset: int, count: int) -> tuple[Piece, ...]:
        return tuple(
            Piece(
                file=number,
                offset=offset,
                first_row=0,
                last_row=200_000,
                first_byte=12 // count * number,
                last_byte=12 // count * (number + 1),
            )
            for number in range(count)
        )

    order = row_order((Repeat(2, Rope(64)),), HALF_SPLIT, INTERLEAVED) if parts == 1 else None
    move = Move(
        name="w",
        num_rows=200_000,
        row_nbytes=12,
        order=order,
        sources=pieces(0, 1),
        targets=pieces(0, parts),
    )
    made = list(blocks(move, 1 << 20))
    scatters = [len(read.scatter) for block in made for read in block.reads]

    assert max(scatters) <= block_places(move, 1 << 20) <= MOST_PLACES
    assert max(block.nbytes for block in made) <= block_nbytes(move, 1 << 20)
    assert sum(block.nbytes for block in made) == move.nbytes


def test_views_that_are_kept_are_bounded_many() -> None:
    views = Views(memoryview(bytearray(1 << 16)))
    for length in (10, 3000, 3001, 20_000, 500, 20):
        scatter = tuple((place, 1) for place in range(0, 2 * length, 2))

        assert len(views.of(scatter)) == length
        assert sum(len(kept) for _, kept in views._kept.values()) <= max(MOST_VIEWS, length)


def test_memory_of_columns_is_planned(tmp_path: Path) -> None:
    shape = replace(LARGER, layers=1, hidden=2560, heads=1, kv_heads=1, intermediate=8, vocab=8)
    plan = plan_new_layout(make_hf(tmp_path / "half", shape, num_shards=1), INTERLEAVED)
    columns = with_columns(plan, row_order(ROWS, HALF_SPLIT, INTERLEAVED))
    effort = Effort(jobs=8, io=Io.BUFFERED)

    assert memory_nbytes(columns, effort) > memory_nbytes(plan, effort) + (12 << 20)
    assert memory_nbytes(columns, effort) <= 104 << 20
