"""Row orders against vectors worked out by hand, and against the laws that any row order obeys."""

from __future__ import annotations

import numpy as np
import pytest
import strategies
import torch
from hypothesis import given
from hypothesis import strategies as st

from ropeconv.words.errors import ExitCode, RowsError
from ropeconv.words.layout import (
    HALF_SPLIT,
    INTERLEAVED,
    Keep,
    Repeat,
    Rope,
    RopeLayout,
    Rows,
    num_rows,
    reorder_rows,
    row_order,
)

Parts = tuple[Rows, ...]

# Worked out from the definition, target[p * B.pair + c * B.part] = source[p * A.pair + c * A.part].
GOLDEN = [
    pytest.param((Rope(2),), [0, 1], [0, 1], id="2-identity"),
    pytest.param((Rope(4),), [0, 2, 1, 3], [0, 2, 1, 3], id="4-own-inverse"),
    pytest.param((Rope(6),), [0, 2, 4, 1, 3, 5], [0, 3, 1, 4, 2, 5], id="6"),
    pytest.param((Rope(8),), [0, 2, 4, 6, 1, 3, 5, 7], [0, 4, 1, 5, 2, 6, 3, 7], id="8"),
    pytest.param(
        (Rope(10),), [0, 2, 4, 6, 8, 1, 3, 5, 7, 9], [0, 5, 1, 6, 2, 7, 3, 8, 4, 9], id="10"
    ),
    pytest.param(
        (Rope(8), Keep(4)),
        [0, 2, 4, 6, 1, 3, 5, 7, 8, 9, 10, 11],
        [0, 4, 1, 5, 2, 6, 3, 7, 8, 9, 10, 11],
        id="partial",
    ),
    pytest.param(
        (Keep(4), Rope(8)),
        [0, 1, 2, 3, 4, 6, 8, 10, 5, 7, 9, 11],
        [0, 1, 2, 3, 4, 8, 5, 9, 6, 10, 7, 11],
        id="tail",
    ),
    pytest.param(
        (Repeat(2, Rope(6)),),
        [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11],
        [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11],
        id="two-heads",
    ),
    pytest.param(
        (Repeat(2, Rope(6)), Rope(6), Keep(2)),
        [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11, 12, 14, 16, 13, 15, 17, 18, 19],
        [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11, 12, 15, 13, 16, 14, 17, 18, 19],
        id="fused",
    ),
]

# How often the perfect card shuffle of r cards has to be done until they lie as before: measured by
# hand with cards up to 12, and the multiplicative order of 2 modulo r - 1 for the others.
SHUFFLES = {
    2: 1, 4: 2, 6: 4, 8: 3, 10: 6, 12: 10, 16: 4, 20: 18, 24: 11, 32: 5, 40: 12, 48: 23, 64: 6,
    80: 39, 96: 36, 112: 36, 128: 7, 160: 52, 192: 95, 256: 8,
}  # fmt: skip


@pytest.mark.parametrize(("parts", "to_half", "to_interleaved"), GOLDEN)
def test_row_order_of_known_rows_is_the_vector_worked_out_by_hand(
    parts: Parts, to_half: list[int], to_interleaved: list[int]
) -> None:
    assert to_half == list(row_order(parts, INTERLEAVED, HALF_SPLIT))
    assert to_interleaved == list(row_order(parts, HALF_SPLIT, INTERLEAVED))


@pytest.mark.parametrize("dim", [2, 6, 8, 10, 80, 128])
def test_row_order_of_a_head_is_all_even_rows_then_all_odd_rows(dim: int) -> None:
    """Another spelling of the same vector, for sizes that nobody writes down."""
    expected = [*range(0, dim, 2), *range(1, dim, 2)]

    assert expected == list(row_order((Rope(dim),), INTERLEAVED, HALF_SPLIT))


@pytest.mark.parametrize(("heads", "dim"), [(6, 10), (2, 10), (5, 6), (3, 128)])
def test_row_order_when_spelled_as_published_is_the_same(heads: int, dim: int) -> None:
    """The formula of transformers' conversion script, in torch, on rows that know their number.

    Source: huggingface/transformers v4.51.0, convert_llama_weights_to_hf.py, permute.
    """
    weight = torch.arange(heads * dim * 7).view(heads * dim, 7)
    published = weight.view(heads, dim // 2, 2, 7).transpose(1, 2).reshape(heads * dim, 7)
    ours = weight[list(row_order((Repeat(heads, Rope(dim)),), INTERLEAVED, HALF_SPLIT))]

    torch.testing.assert_close(ours, published, rtol=0, atol=0)
    if dim > 4:
        wrong = weight[list(row_order((Repeat(heads, Rope(dim)),), HALF_SPLIT, INTERLEAVED))]
        assert not torch.equal(wrong, published)


@pytest.mark.parametrize(("dim", "shuffles"), SHUFFLES.items())
def test_row_order_repeated_returns_after_the_known_number_of_shuffles(
    dim: int, shuffles: int
) -> None:
    """Running it again undoes nothing: only heads of 2 and 4 rows are their own inverse."""
    order = row_order((Rope(dim),), INTERLEAVED, HALF_SPLIT)
    cards, count = order, 1
    while cards != tuple(range(dim)):
        cards, count = tuple(cards[row] for row in order), count + 1

    assert shuffles == count


@given(strategies.rows, strategies.layouts, strategies.layouts)
def test_row_order_is_a_bijection(parts: Parts, source: RopeLayout, target: RopeLayout) -> None:
    order = row_order(parts, source, target)

    assert sorted(order) == list(range(num_rows(*parts)))


@given(strategies.rows, strategies.layouts, strategies.layouts)
def test_row_order_there_and_back_changes_nothing(
    parts: Parts, source: RopeLayout, target: RopeLayout
) -> None:
    there, back = row_order(parts, source, target), row_order(parts, target, source)

    assert list(range(num_rows(*parts))) == [there[row] for row in back]


@given(strategies.rows, strategies.layouts)
def test_row_order_within_one_layout_is_the_identity(parts: Parts, layout: RopeLayout) -> None:
    assert tuple(range(num_rows(*parts))) == row_order(parts, layout, layout)


@given(strategies.rows, strategies.rows, strategies.layouts, strategies.layouts)
def test_row_order_of_joined_parts_is_the_join_of_their_orders(
    first: Parts, second: Parts, source: RopeLayout, target: RopeLayout
) -> None:
    """Ranks may be joined before or after the reorder: the reorder never leaves a part."""
    height = num_rows(*first)
    apart = (
        *row_order(first, source, target),
        *(height + row for row in row_order(second, source, target)),
    )

    assert apart == row_order((*first, *second), source, target)


@given(strategies.rows, st.integers(0, 4), strategies.layouts, strategies.layouts)
def test_repeat_means_the_same_parts_written_out(
    parts: Parts, times: int, source: RopeLayout, target: RopeLayout
) -> None:
    repeated = row_order((Repeat(times, *parts),), source, target)

    assert row_order(parts * times, source, target) == repeated
    assert len(repeated) == num_rows(Repeat(times, *parts))


@given(st.integers(1, 40))
def test_strides_put_every_part_of_every_pair_on_a_row_of_its_own(pairs: int) -> None:
    for layout in (INTERLEAVED, HALF_SPLIT):
        pair_stride, part_stride = layout.strides(pairs)
        taken = {
            pair * pair_stride + part * part_stride for pair in range(pairs) for part in (0, 1)
        }

        assert set(range(2 * pairs)) == taken


@pytest.mark.parametrize("rows", [Repeat(6, Rope(10)), (Repeat(6, Rope(10)),)])
def test_reorder_rows_of_torch_and_numpy_are_the_same_gather(rows: Rows | Parts) -> None:
    numbers = np.arange(60 * 7, dtype=np.float32).reshape(60, 7)
    by_numpy = reorder_rows(numbers, rows, source=INTERLEAVED, target=HALF_SPLIT)
    by_torch = reorder_rows(torch.from_numpy(numbers), rows, source=INTERLEAVED, target=HALF_SPLIT)

    assert by_numpy.tolist() == by_torch.tolist()
    assert by_numpy[:6, 0].tolist() == [0, 14, 28, 42, 56, 7]
    assert numbers[1, 0] == 7, "the tensor that was given stays as it was"


def test_reorder_rows_of_a_vector_moves_its_entries() -> None:
    bias = torch.arange(12)
    moved = reorder_rows(bias, Repeat(2, Rope(6)), source=HALF_SPLIT, target=INTERLEAVED)

    assert moved.tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


@pytest.mark.parametrize("shape", [(59, 7), (61, 7), (0, 7), ()])
def test_reorder_rows_of_another_height_is_refused_with_both_numbers(
    shape: tuple[int, ...],
) -> None:
    with pytest.raises(RowsError) as caught:
        reorder_rows(torch.zeros(shape), Repeat(6, Rope(10)), source=INTERLEAVED, target=HALF_SPLIT)

    assert f"the tensor has the shape {list(shape)}, expected 60 rows" == caught.value.what
    assert caught.value.why == "the rows are `Repeat(6, Rope(10))`", "as one writes them"
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("dim", [-2, 0, 1, 7])
def test_rope_of_an_impossible_size_is_refused(dim: int) -> None:
    with pytest.raises(RowsError, match="is no rotary span"):
        Rope(dim)


def test_keep_and_repeat_of_negative_counts_are_refused() -> None:
    with pytest.raises(RowsError, match="negative number of rows"):
        Keep(-1)
    with pytest.raises(RowsError, match="negative number of times"):
        Repeat(-1, Rope(6))
