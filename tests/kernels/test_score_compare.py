"""Scores of two forms: zero for a right reorder, far from it for every wrong one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_cases import SETTINGS, exact, half_split_order, table_of, vectors
from torch import Tensor

from ropeconv.kernels import RopeTable, ScoreForm, score_compare
from ropeconv.kernels.reference import rope_reference, scores_reference
from ropeconv.words.errors import UsageError
from ropeconv.words.frequencies import RopeSettings
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, RopeLayout

ROTARY, HEAD_DIM, START, TOKENS = 22, 30, 4, 19


@pytest.fixture
def order(device: torch.device) -> Tensor:
    return half_split_order(ROTARY, HEAD_DIM, START).to(device)


@pytest.fixture
def table(device: torch.device) -> RopeTable:
    """Positions spread to a million, where slow pairs have turned too."""
    places = torch.randint(0, 1 << 20, (TOKENS,), generator=torch.Generator().manual_seed(1))
    return RopeTable.from_settings(SETTINGS, ROTARY, places, device=device)


def pair(device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return vectors(device, dtype, tokens=TOKENS, head_dim=HEAD_DIM)


def form(q: Tensor, k: Tensor, layout: RopeLayout, table: RopeTable) -> ScoreForm:
    return ScoreForm(q=q, k=k, layout=layout, table=table, rotary_start=START)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_a_right_reorder_gives_exactly_zero(
    device: torch.device, order: Tensor, table: RopeTable, dtype: torch.dtype
) -> None:
    q, k = pair(device, dtype)

    found = score_compare(
        form(q, k, INTERLEAVED, table), form(q[..., order], k[..., order], HALF_SPLIT, table)
    )

    assert found.is_zero
    assert found.sum_squared_difference.tolist() == [[0.0] * 6] * 2
    assert found.place.tolist() == [[[0, 0]] * 6] * 2
    assert torch.equal(found.sum_squares_a, found.sum_squares_b)
    assert found.sum_squares_a.min() > 0


Change = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Any]]


def mistakes() -> dict[str, tuple[Change, float, float]]:
    """What goes wrong with (q, k), and between what the relative RMS of the worst head lies."""

    def swapped(x: Tensor) -> Tensor:
        y = x.clone()
        y[:, :, 1, [START, START + 1]] = x[:, :, 1, [START + 1, START]]
        return y

    def nudged(x: Tensor) -> Tensor:
        y = x.clone()
        y[:, :, 2, 7] *= 1 + 2.0**-8
        return y

    # (q, k, order) -> the q and k of the wrong form, and its layout or the name of its table.
    none: Change = lambda q, k, _: (q, k, HALF_SPLIT)  # noqa: E731 - as its neighbours below
    back: Change = lambda q, k, o: (q[..., o.argsort()], k[..., o.argsort()], HALF_SPLIT)  # noqa: E731
    return {
        "not reordered": (none, 0.5, 3.0),
        "reordered backwards": (back, 0.5, 3.0),
        "reordered twice": (
            lambda q, k, o: (q[..., o][..., o], k[..., o][..., o], HALF_SPLIT),
            0.5,
            3,
        ),
        "only q reordered": (lambda q, k, o: (q[..., o], k, HALF_SPLIT), 0.5, 3.0),
        "only k reordered": (lambda q, k, o: (q, k[..., o], HALF_SPLIT), 0.5, 3.0),
        "one pair of one head": (lambda q, k, _: (swapped(q), k, INTERLEAVED), 0.1, 1.0),
        "one value off by 0.4 percent": (lambda q, k, _: (nudged(q), k, INTERLEAVED), 1e-5, 1e-2),
        "heads in another order": (lambda q, k, _: (q.flip(2), k, INTERLEAVED), 0.5, 3.0),
        "sign of sin": (lambda q, k, _: (q, k, "conjugate"), 0.3, 3.0),
        "bf16 angles": (lambda q, k, _: (q, k, "bf16"), 1e-4, 2e-2),
        "another theta": (lambda q, k, _: (q, k, "theta"), 0.3, 3.0),
    }


@pytest.mark.parametrize("mistake", list(mistakes()))
def test_a_mistake_is_told_from_a_right_reorder(
    device: torch.device, order: Tensor, table: RopeTable, mistake: str
) -> None:
    q, k = pair(device)
    make, lowest, highest = mistakes()[mistake]
    wrong_q, wrong_k, layout = make(q, k, order)
    tables = {
        "conjugate": RopeTable.from_pairs(table.cos, -table.sin),
        "bf16": RopeTable.from_pairs(table.cos.bfloat16(), table.sin.bfloat16()),
        "theta": RopeTable.from_settings(
            RopeSettings(theta=5e5), ROTARY, torch.arange(TOKENS) * 997, device=device
        ),
    }
    wrong = form(
        wrong_q,
        wrong_k,
        layout if isinstance(layout, RopeLayout) else INTERLEAVED,
        tables.get(layout, table),
    )

    found = score_compare(form(q, k, INTERLEAVED, table), wrong)

    assert not found.is_zero
    assert lowest < found.relative_rms.max() < highest
    if mistake.startswith("one "):
        heads = (found.max_abs > 0).any(0).nonzero().flatten().tolist()
        assert heads == [2 if "value" in mistake else 1]


def test_sums_and_places_equal_the_oracle(device: torch.device) -> None:
    """More tokens than a tile on a GPU, and not a multiple of one."""
    tokens = 150 if device.type == "cuda" else 40
    q, k = vectors(device, tokens=tokens)
    other_q = torch.randn_like(q)
    table, double = table_of(tokens, 10, device), exact(tokens, 10, device)
    k = k[:, :23]

    found = score_compare(
        ScoreForm(q=q, k=k, layout=INTERLEAVED, table=table),
        ScoreForm(q=other_q, k=k, layout=HALF_SPLIT, table=table),
    )

    def scores(q: Tensor, layout: RopeLayout) -> Tensor:
        turned = [rope_reference(x.double(), double, layout=layout) for x in (q, k)]
        return scores_reference(*turned)

    a, b = scores(q, INTERLEAVED), scores(other_q, HALF_SPLIT)
    difference = (a - b).abs()
    torch.testing.assert_close(found.max_abs.double(), difference.amax((2, 3)), rtol=1e-5, atol=0)
    at = difference.flatten(2).argmax(-1)
    assert torch.equal(found.place, torch.stack([at // 23, at % 23], -1))
    for got, want in (
        (found.sum_squared_difference, difference.square()),
        (found.sum_squares_a, a.square()),
        (found.sum_squares_b, b.square()),
    ):
        torch.testing.assert_close(got, want.sum((2, 3)), rtol=1e-5, atol=0)
    assert found.scores == tokens * 23


def test_weights_are_compared_without_activations(device: torch.device) -> None:
    """Column c of a projection is what the unit vector e_c projects to."""
    hidden, order = 44, half_split_order(10, 10).to(device)
    q_weight, k_weight = (torch.randn(heads * 10, hidden, device=device) for heads in (6, 2))
    table = table_of(hidden, 10, device)

    def of(q: Tensor, k: Tensor, layout: RopeLayout) -> ScoreForm:
        return ScoreForm.from_weights(q, k, head_dim=10, layout=layout, table=table)

    def reorder(weight: Tensor) -> Tensor:
        return weight.view(-1, 10, hidden)[:, order].reshape(-1, hidden)

    source = of(q_weight, k_weight, INTERLEAVED)
    right = of(reorder(q_weight), reorder(k_weight), HALF_SPLIT)
    assert score_compare(source, right).is_zero
    activations = ScoreForm(
        q=q_weight.t().contiguous().view(1, hidden, 6, 10),
        k=k_weight.t().contiguous().view(1, hidden, 2, 10),
        layout=INTERLEAVED,
        table=table,
    )
    assert score_compare(source, activations).is_zero
    thinner = of(reorder(q_weight)[:, ::4], reorder(k_weight)[:, ::4], HALF_SPLIT)
    assert score_compare(of(q_weight[:, ::4], k_weight[:, ::4], INTERLEAVED), thinner).is_zero
    with pytest.raises(UsageError, match="not whole heads of 7"):
        ScoreForm.from_weights(q_weight, k_weight, head_dim=7, layout=INTERLEAVED, table=table)


def test_sequences_may_have_rows_of_their_own(device: torch.device) -> None:
    """Two sequences of one launch are two launches, whatever the heads are that share a tile."""
    q, k = pair(device)
    table = table_of(64, ROTARY, device)
    rows = torch.stack([torch.arange(TOKENS) * 3, 63 - torch.arange(TOKENS)]).to(device)
    a, b = form(q, k, INTERLEAVED, table), form(q * 2, k, INTERLEAVED, table)

    together = score_compare(a, b, query_rows=rows, key_rows=rows.flip(0))

    for at in (0, 1):
        one, other = (
            form(each.q[at : at + 1], each.k[at : at + 1], INTERLEAVED, table) for each in (a, b)
        )
        alone = score_compare(one, other, query_rows=rows[at], key_rows=rows[1 - at])
        assert torch.equal(together.max_abs[at], alone.max_abs[0])
        assert torch.equal(together.place[at], alone.place[0])
    with pytest.raises(UsageError, match="for 19 tokens"):
        score_compare(a, b, query_rows=rows[:, :5])


def test_heads_beyond_the_last_tile_change_nothing(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve heads in tiles of one, of eight, and of sixteen."""
    q, k = pair(device)
    table = table_of(TOKENS, ROTARY, device)
    module = sys.modules["ropeconv.kernels.score_compare"]  # the function has its name
    found = []
    for elements in (32 * 32, 8 * 32 * 32, 1 << 20):
        monkeypatch.setattr(module, "_MOST_ELEMENTS", elements)
        found.append(score_compare(form(q, k, INTERLEAVED, table), form(q, k, HALF_SPLIT, table)))

    for other in found[1:]:
        assert torch.equal(found[0].max_abs, other.max_abs)
        assert torch.equal(found[0].place, other.place)
        assert torch.equal(found[0].sum_squares_a, other.sum_squares_a)
    assert found[0].max_abs.min() > 0


def test_it_compiles_for_a_gpu_without_spilling() -> None:
    """Registers that spill to memory make an `ieee` dot several times slower."""
    probe = Path(__file__).parent / "compile_score.py"
    cases = [("fp32", 90, 128)]  # 3 s each
    done = subprocess.run(
        [sys.executable, str(probe), json.dumps(cases)],
        env=os.environ | {"TRITON_INTERPRET": "0", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert found["FFMA"] > 1000
    assert not {"LDL", "STL"} & found.keys()


def test_rows_of_the_table_may_be_named(device: torch.device) -> None:
    q, k = pair(device)
    long = table_of(64, ROTARY, device)
    rows = torch.arange(TOKENS, device=device) * 3
    short = RopeTable.from_pairs(long.cos[rows], long.sin[rows])

    named = score_compare(
        form(q, k, INTERLEAVED, long),
        form(q * 2, k, INTERLEAVED, long),
        query_rows=rows,
        key_rows=rows,
    )

    plain = score_compare(form(q, k, INTERLEAVED, short), form(q * 2, k, INTERLEAVED, short))
    assert torch.equal(named.max_abs, plain.max_abs)
    with pytest.raises(UsageError, match="the tables end at row 63"):
        score_compare(
            form(q, k, INTERLEAVED, long), form(q, k, INTERLEAVED, long), query_rows=rows + 60
        )


def test_a_nan_is_a_difference(device: torch.device, table: RopeTable) -> None:
    q, k = pair(device)
    broken = q.clone()
    broken[1, 5, 3, 0] = float("nan")

    found = score_compare(form(q, k, INTERLEAVED, table), form(broken, k, INTERLEAVED, table))

    assert not found.is_zero
    assert found.max_abs.isnan().nonzero().tolist() == [[1, 3]]
    assert found.place[1, 3, 0] == 5


def test_equal_positions_cannot_tell_layouts_apart(device: torch.device) -> None:
    """The reason for controls: at distance 0 a wrong layout gives right scores."""
    q, k = pair(device)
    same = RopeTable.from_settings(SETTINGS, ROTARY, torch.full((TOKENS,), 12345), device=device)

    blind = score_compare(form(q, k, INTERLEAVED, same), form(q, k, HALF_SPLIT, same))

    assert blind.relative_rms.max() < 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k, t: ScoreForm(q=q[:, :5], k=k, layout=INTERLEAVED, table=t), "in one form"),
        (lambda q, k, t: ScoreForm(q=q[0], k=k[0], layout=INTERLEAVED, table=t), "in one form"),
        (lambda q, k, t: ScoreForm(q=q, k=k, layout=INTERLEAVED, table=t), "the same rotary span"),
        (lambda q, k, t: form(q.double(), k.double(), INTERLEAVED, t), "compared in float32"),
        (
            lambda q, k, t: form(q, k, INTERLEAVED, RopeTable.from_pairs(t.cos[None], t.sin[None])),
            "no rows to look up",
        ),
    ],
)
def test_forms_that_do_not_go_together_are_refused(
    device: torch.device, table: RopeTable, change: Any, message: str
) -> None:
    q, k = pair(device)

    with pytest.raises(UsageError) as refused:
        score_compare(form(q, k, INTERLEAVED, table), change(q, k, table))

    assert message in str(refused.value)
