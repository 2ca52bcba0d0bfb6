"""The rotation against the float64 oracle and the published forms, in every shape people have."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from kernel_cases import (
    BOTH,
    SETTINGS,
    exact,
    half_split_order,
    hugging_face,
    meta,
    table_of,
    tolerance,
    vectors,
)
from torch import Tensor

from ropeconv.kernels import Positions, RopeTable, apply_rope
from ropeconv.kernels import plan as planning
from ropeconv.kernels.reference import rope_reference
from ropeconv.words.errors import UsageError
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, RopeLayout

if TYPE_CHECKING:
    from collections.abc import Callable

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def truth(x: Tensor, layout: RopeLayout, rotary: int, start: int = 0, rows: Any = None) -> Tensor:
    table = exact(64, rotary, x.device)
    return rope_reference(x.double(), table, layout=layout, rotary_start=start, rows=rows)


def near(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got.double(), want, **tolerance(got.dtype))


@pytest.mark.parametrize("layout", BOTH, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("head_dim", "rotary", "start"), [(10, 10, 0), (14, 6, 4), (80, 32, 48)])
def test_rotation_equals_the_oracle(
    device: torch.device,
    layout: RopeLayout,
    dtype: torch.dtype,
    head_dim: int,
    rotary: int,
    start: int,
) -> None:
    q, k = vectors(device, dtype, head_dim=head_dim)
    table = table_of(7, rotary, device, torch.float64 if dtype == torch.float64 else torch.float32)

    q_out, k_out = apply_rope(q, k, table, layout=layout, rotary_start=start)

    near(q_out, truth(q, layout, rotary, start))
    near(k_out, truth(k, layout, rotary, start))


@pytest.mark.parametrize("kind", ["hugging face", "meta"])
def test_rotation_equals_the_published_form(device: torch.device, kind: str) -> None:
    q, _ = vectors(device, torch.float64)
    table = exact(7, 10, device)
    if kind == "meta":
        want = meta(q, torch.complex(table.cos, table.sin))
        got, _ = apply_rope(q, None, table, layout=INTERLEAVED)
    else:
        cos, sin = (torch.cat([part, part], -1)[None] for part in (table.cos, table.sin))
        want = hugging_face(q.transpose(1, 2), cos, sin).transpose(1, 2)
        got, _ = apply_rope(q, None, table, layout=HALF_SPLIT)

    torch.testing.assert_close(got, want, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layouts_agree_bit_for_bit(device: torch.device, dtype: torch.dtype) -> None:
    q, k = vectors(device, dtype, head_dim=14)
    order = half_split_order(8, 14, 4).to(device)
    table = table_of(7, 8, device)

    plain = apply_rope(q, k, table, layout=INTERLEAVED, rotary_start=4)
    moved = apply_rope(q[..., order], k[..., order], table, layout=HALF_SPLIT, rotary_start=4)

    for a, b in zip(plain, moved, strict=True):
        assert a is not None
        assert torch.equal(a[..., order], b)


@pytest.mark.parametrize("heads", [(1, 1), (1, None), (40, 1), (24, 8), (5, 1)], ids=str)
def test_every_head_is_rotated(device: torch.device, heads: tuple[int, int | None]) -> None:
    """One head did nothing in a published kernel; a head beyond a block is easily forgotten."""
    q, k = vectors(device, heads=heads[0], kv_heads=heads[1] or 1)

    q_out, k_out = apply_rope(
        q, k if heads[1] else None, table_of(7, 10, device), layout=INTERLEAVED
    )

    near(q_out, truth(q, INTERLEAVED, 10))
    if k_out is None:
        assert heads[1] is None
    else:
        near(k_out, truth(k, INTERLEAVED, 10))


@pytest.mark.parametrize("layout", BOTH, ids=str)
def test_views_of_a_fused_qkv_are_read_by_their_own_strides(
    device: torch.device, layout: RopeLayout
) -> None:
    """q, k and v side by side in memory: k's strides are not q's."""
    qkv = torch.randn(2, 7, (6 + 2 + 2) * 10, device=device)
    q = qkv[..., :60].view(2, 7, 6, 10)
    k = qkv[..., 60:80].view(2, 7, 2, 10)
    assert not q.is_contiguous()

    q_out, k_out = apply_rope(q, k, table_of(7, 10, device), layout=layout)

    near(q_out, truth(q, layout, 10))
    near(k_out, truth(k, layout, 10))


def test_rows_that_are_not_contiguous_are_read_right(device: torch.device) -> None:
    q, _ = vectors(device)
    spread = torch.stack([q, torch.zeros_like(q)], -1)[..., 0]
    assert spread.stride(-1) == 2

    got, _ = apply_rope(spread, None, table_of(7, 10, device), layout=HALF_SPLIT)

    near(got, truth(q, HALF_SPLIT, 10))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("layout", BOTH, ids=str)
def test_storage_orders_give_the_same_numbers(
    device: torch.device, layout: RopeLayout, *, in_place: bool
) -> None:
    q, k = vectors(device, head_dim=14)
    table = table_of(7, 6, device)
    want, _ = apply_rope(q, k, table, layout=layout, rotary_start=4)

    def turn(q: Tensor, k: Tensor, storage: Any) -> Tensor:
        return apply_rope(
            q, k, table, layout=layout, rotary_start=4, storage=storage, in_place=in_place
        )[0]

    assert torch.equal(want, turn(q.clone(), k.clone(), "BTHD"))
    transposed = turn(q.transpose(1, 2).contiguous(), k.transpose(1, 2).contiguous(), "BHTD")
    assert torch.equal(want.transpose(1, 2), transposed)
    viewed = turn(q.clone().transpose(1, 2), k.clone().transpose(1, 2), "BHTD")
    assert torch.equal(want.transpose(1, 2), viewed)
    assert torch.equal(want[0], turn(q[0].clone(), k[0].clone(), "THD"))


def test_inputs_stay_as_they_were_unless_in_place(device: torch.device) -> None:
    q, k = vectors(device)
    kept = q.clone(), k.clone()
    table = table_of(7, 10, device)

    want, _ = apply_rope(q, k, table, layout=INTERLEAVED)
    assert torch.equal(q, kept[0])
    assert torch.equal(k, kept[1])
    got, _ = apply_rope(q, k, table, layout=INTERLEAVED, in_place=True)

    assert got is q
    assert torch.equal(q, want)


def position_cases(device: torch.device) -> dict[str, tuple[Positions, Tensor]]:
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]], device=device)
    offsets = torch.tensor([11, 4], device=device)
    tokens = torch.arange(7, device=device)
    return {
        "from zero": (Positions(), tokens),
        "offset": (Positions.at(13), tokens + 13),
        "constant": (Positions.constant(40), tokens * 0 + 40),
        "ids for all": (Positions.of(ids[0]), ids[0]),
        "ids": (Positions.of(ids), ids),
        "ids of 32 bits": (Positions.of(ids.int()), ids),
        "offset of each sequence": (Positions.per_sequence(offsets), tokens + offsets[:, None]),
    }


@pytest.mark.parametrize("case", list(position_cases(torch.device("cpu"))))
def test_positions_choose_the_row(device: torch.device, case: str) -> None:
    """A table row off by one, or the ids of another sequence, would be caught here."""
    positions, rows = position_cases(device)[case]
    q, k = vectors(device)

    q_out, k_out = apply_rope(
        q, k, table_of(64, 10, device), layout=INTERLEAVED, positions=positions
    )

    near(q_out, truth(q, INTERLEAVED, 10, rows=rows))
    near(k_out, truth(k, INTERLEAVED, 10, rows=rows))


def test_q_and_k_may_stand_at_different_positions(device: torch.device) -> None:
    """LM-Infinite: all queries at the limit, all keys at 0, which is no rotation."""
    q, k = vectors(device)
    table = table_of(64, 10, device)

    q_out, k_out = apply_rope(
        q,
        k,
        table,
        layout=HALF_SPLIT,
        positions=Positions.constant(40),
        k_positions=Positions.constant(0),
    )

    near(q_out, truth(q, HALF_SPLIT, 10, rows=torch.full((7,), 40)))
    assert torch.equal(k_out, k)


def test_packed_sequences_count_from_zero_each(device: torch.device) -> None:
    q, _ = vectors(device, batch=1)
    ends = torch.tensor([0, 3, 3, 7], dtype=torch.int32, device=device)

    got, _ = apply_rope(
        q[0],
        None,
        table_of(64, 10, device),
        layout=INTERLEAVED,
        storage="THD",
        positions=Positions.packed(ends, 7),
    )

    rows = torch.tensor([0, 1, 2, 0, 1, 2, 3], device=device)
    near(got, truth(q, INTERLEAVED, 10, rows=rows)[0])


def test_a_row_outside_the_table_is_never_another_row(device: torch.device) -> None:
    q, k = vectors(device)
    table = table_of(9, 10, device)
    ids = torch.tensor([0, 8, 9, -1, 1 << 40, -(1 << 40), 2], device=device)

    q_out, _ = apply_rope(q, k, table, layout=HALF_SPLIT, positions=Positions.of(ids))

    outside = q_out.isnan().all(-1).all(-1)[0]
    assert outside.tolist() == [False, False, True, True, True, True, False]
    assert torch.equal(q_out.isnan().any(-1).any(-1)[0], outside)
    for positions in (Positions.at(3), Positions.constant(9), Positions.at(-1)):
        with pytest.raises(UsageError, match="are not all in a table of 9 rows"):
            apply_rope(q, k, table, layout=HALF_SPLIT, positions=positions)
    with pytest.raises(UsageError, match="positions 3 to 9 are not all in a table of 9 rows"):
        apply_rope(q, k, table, layout=HALF_SPLIT, k_positions=Positions.at(3))


def test_scores_depend_on_distance_alone(device: torch.device) -> None:
    """The same vectors at shifted positions; 2e5 needs float64 angles (float32: 4e-3)."""
    q, k = vectors(device, torch.float64, batch=1, tokens=1)
    scores = []
    for place, other in ((5, 2), (200005, 200002)):
        table = RopeTable.from_settings(
            SETTINGS, 10, torch.tensor([place, other]), device=device, dtype=torch.float64
        )
        q_out, k_out = apply_rope(
            q, k, table, layout=INTERLEAVED, k_positions=Positions.constant(1)
        )
        scores.append((q_out[..., :2, :] * k_out).sum(-1))

    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": torch.zeros(2, 7, 2, 12)}, "differ in heads only"),
        ({"k": torch.zeros(2, 7, 2, 10, dtype=torch.float16)}, "one of bfloat16"),
        ({"q": torch.zeros(2, 7, 6, 10, dtype=torch.int32), "k": None}, "one of bfloat16"),
        ({"rotary_start": 1}, "do not fit into a head of 10"),
        ({"rotary_start": -1}, "do not fit into a head of 10"),
        ({"storage": "THD"}, "has 4 dimensions"),
        ({"storage": "HTBD"}, "name one of BTHD"),
        ({"positions": Positions.of(torch.zeros(6, dtype=torch.int64))}, "positions are"),
        ({"positions": Positions.per_sequence(torch.zeros(3, dtype=torch.int64))}, "positions are"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_go_together_is_refused(
    device: torch.device, change: dict[str, Any], message: str
) -> None:
    def here(value: Any) -> Any:
        if isinstance(value, Positions) and value.ids is not None:
            return Positions(token_step=value.token_step, ids=value.ids.to(device))
        return value.to(device) if isinstance(value, Tensor) else value

    q, k = vectors(device)
    call: dict[str, Any] = {"q": q, "k": k, "table": table_of(7, 10, device), "layout": INTERLEAVED}
    call |= {name: here(value) for name, value in change.items()}

    with pytest.raises(UsageError) as refused:
        apply_rope(**call)

    assert message in str(refused.value)


def test_offsets_beyond_32_bits_reach_the_right_element(device: torch.device) -> None:
    """Two sequences 2^31 elements apart; only what is touched of the 4 GiB becomes real memory."""
    apart = 1 << 31
    memory = torch.empty(apart + 420, dtype=torch.bfloat16, device=device)
    q = memory.as_strided((2, 7, 6, 10), (apart, 60, 10, 1))
    q.copy_(vectors(device, torch.bfloat16)[0])

    got, _ = apply_rope(q, None, table_of(7, 10, device), layout=INTERLEAVED)

    near(got, truth(q.clone(), INTERLEAVED, 10))


def test_nothing_to_rotate_is_fine(device: torch.device) -> None:
    q, k = vectors(device)

    q_out, k_out = apply_rope(q[:, :0], k[:, :0], table_of(7, 10, device), layout=INTERLEAVED)

    assert q_out.shape == (2, 0, 6, 10)
    assert k_out.shape == (2, 0, 2, 10)


def planted_mistakes() -> dict[str, Callable[[planning.Plan], planning.Plan]]:
    def constant(name: str, value: Any) -> Callable[[planning.Plan], planning.Plan]:
        return lambda plan: replace(plan, constants=plan.constants | {name: value})

    return {
        "sign of sin": constant("CONJUGATE", value=True),
        "heads beyond a block skipped": constant("Q_HEADS", 4),
        "half of a span that is no power of two": constant("PAIRS", 4),
        "first rotary row": constant("START", 2),
        "between two rows of the table": constant("ROW_STRIDE", 4),
        "one position for all": constant("Q_STEP", 0),
        "k forgotten": constant("HAS_K", value=False),
        "k read by the strides of q": lambda plan: replace(
            plan, numbers=(*plan.numbers[:6], *plan.numbers[:3], *plan.numbers[9:])
        ),
    }


@pytest.mark.parametrize("mistake", list(planted_mistakes()))
def test_a_planted_mistake_is_seen(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    """The comparisons above can fail: each mistake of the field, planted, is caught by them."""
    q, k = vectors(device, head_dim=12)
    # Room behind k, so that a wrong stride reads other values and no foreign memory.
    k = torch.cat([k, torch.randn_like(q), torch.randn_like(q)], 2)[:, :, :2]
    plant = planted_mistakes()[mistake]

    def wrong_plan(*arguments: Any) -> planning.Plan:
        plan = planning.make_plan.__wrapped__(*arguments)
        assert plan is not None
        return plant(plan)

    monkeypatch.setattr("ropeconv.kernels.launch.make_plan", wrong_plan)
    monkeypatch.setattr(torch, "empty_like", torch.zeros_like)

    q_out, k_out = apply_rope(q, k, table_of(7, 10, device), layout=INTERLEAVED)

    right = [
        torch.allclose(got.double(), truth(x, INTERLEAVED, 10), rtol=0, atol=1e-3)
        for got, x in ((q_out, q), (k_out, k))
    ]
    assert not all(right)
