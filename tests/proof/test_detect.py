"""Layout detection: right on trained models in every order, silent where nothing can be read."""

from __future__ import annotations

import weakref
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from fixtures import meta_folder
from fixtures.detect.random_weights import KINDS, RANDOM_GEOMETRIES, draw, uneven_rows
from fixtures.detect.rows import Rows, read, wrong_geometries
from ropeconv.proof.detect import (
    FEWEST_HEADS,
    SMALLEST_COUPLING,
    SMALLEST_MARGIN,
    SMALLEST_ORDER,
    SMALLEST_Z,
    describe_reorders,
    detect_layout,
    judge,
)
from ropeconv.proof.detect_scores import (
    HeadScores,
    balanced,
    hypotheses_of,
    order_z,
    pair_of_row,
    score_layer,
)
from ropeconv.words.errors import RowsError
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

FIXTURES = Path(__file__).parents[2] / "fixtures"
TRAINED = {
    name: rows
    for file in sorted((FIXTURES / "detect").glob("*.safetensors"))
    for name, rows in read(file).items()
}
CONTROLS = [name for name in TRAINED if name.startswith("never")]
MODELS = [name for name in TRAINED if name not in CONTROLS] + ["kjv"]


def kjv() -> Rows:
    weights = meta_folder.read_joined(FIXTURES / "kjv-llama")
    params = meta_folder.read_params(FIXTURES / "kjv-llama")
    head_dim = params["dim"] // params["n_heads"]
    at = [f"layers.{layer}.attention" for layer in range(params["n_layers"])]
    layers = [(weights[f"{one}.wq.weight"], weights[f"{one}.wk.weight"]) for one in at]
    return Rows(layers=layers, head_dim=head_dim, rotary_dim=head_dim, reordered=0)


def trained(name: str) -> Rows:
    return kjv() if name == "kjv" else TRAINED[name]


@pytest.mark.parametrize("name", MODELS)
def test_detect_when_trained_then_names_the_layout(name: str) -> None:
    rows = trained(name)
    evidence = rows.evidence()

    assert (rows.reordered, {0: INTERLEAVED, 1: HALF_SPLIT}[rows.reordered or 0]) == (
        evidence.reordered,
        evidence.verdict,
    ), evidence.why


@pytest.mark.parametrize("times", [-2, -1, 1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_detect_when_reordered_more_then_counts_the_reorders(name: str, times: int) -> None:
    rows = trained(name).reorder(times)

    assert rows.judge(rows.evidence()) == "right", rows.evidence().why


def test_detect_when_reordered_once_too_often_then_names_no_layout() -> None:
    evidence = kjv().reorder(2).evidence()

    assert (evidence.verdict, evidence.reordered) == (None, 2)
    assert evidence.conclusive
    assert "once too often" in evidence.why


@pytest.mark.parametrize("name", CONTROLS)
def test_detect_when_the_model_never_rotated_then_inconclusive(name: str) -> None:
    """The strongest control: trained on the same text in the same way, but without positions."""
    evidence = TRAINED[name].evidence()

    assert not evidence.conclusive, evidence.why


@pytest.mark.parametrize("name", MODELS)
def test_detect_when_rows_are_shuffled_then_inconclusive(name: str) -> None:
    for seed in range(5):
        evidence = trained(name).shuffle(seed).evidence()

        assert not evidence.conclusive, evidence.why


@pytest.mark.parametrize("name", MODELS)
def test_detect_when_cut_at_wrong_heads_then_never_wrong(name: str) -> None:
    """Half-split rows cut in two look sorted, as interleaved ones do: only coupling tells."""
    for case, rows in wrong_geometries(trained(name)):
        assert rows.judge(rows.evidence()) != "WRONG", (case, rows.evidence().why)


@pytest.mark.parametrize("kind", KINDS)
def test_detect_when_weights_are_random_then_inconclusive(kind: str) -> None:
    for geometry in RANDOM_GEOMETRIES:
        evidence = draw(kind, geometry, seed=7).evidence()

        assert not evidence.conclusive, (geometry, evidence.why)


def test_detect_when_only_keys_were_reordered_then_says_so() -> None:
    """A bug of the field: one of the two projections was forgotten."""
    evidence = kjv().reorder(1, queries=False).evidence()

    assert not evidence.conclusive
    assert "query rows look most like interleaved, key rows like half-split" in evidence.why


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_detect_when_dtypes_differ_then_same_verdict(dtype: torch.dtype) -> None:
    rows = kjv()
    cast = replace(rows, layers=[(q.to(dtype), k.to(dtype)) for q, k in rows.layers])

    assert cast.evidence().reordered == 0


def test_detect_when_scaled_then_same_numbers() -> None:
    """Tiny weights must not vanish in products of products."""
    rows = kjv()
    tiny = replace(
        rows, layers=[(q.float() * 2.0**-60, k.float() * 2.0**40) for q, k in rows.layers]
    )

    assert tiny.evidence() == rows.evidence()


def test_detect_when_query_heads_repeat_then_no_more_evidence() -> None:
    """Query heads of one key head are not independent: they count as one."""
    rows = kjv()
    doubled = replace(
        rows, layers=[(_heads_twice(q, rows.head_dim, len(k)), k) for q, k in rows.layers]
    )
    once, twice = rows.evidence(), doubled.evidence()

    assert once.num_heads == twice.num_heads == 16
    assert once.margin == pytest.approx(twice.margin, rel=1e-4)


def test_detect_when_layers_repeat_then_no_more_evidence() -> None:
    rows = kjv()
    few = replace(rows, layers=rows.layers[:1] * 20).evidence()

    assert (few.reordered, few.num_heads) == (None, 2)


def _heads_twice(q: Tensor, head_dim: int, k_rows: int) -> Tensor:
    by_group = q.view(k_rows // head_dim, -1, q.shape[1])
    return torch.cat((by_group, by_group), 1).flatten(0, 1)


def test_detect_when_given_a_stream_then_holds_one_layer() -> None:
    rows = kjv()
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def stream() -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal most
        for q, k in rows.layers:
            most = max(most, sum(one() is not None for one in alive))
            copy = q.clone()
            alive.append(weakref.ref(copy))
            yield copy, k
            del copy

    detect_layout(stream(), head_dim=rows.head_dim)

    assert (len(rows.layers), 1) == (len(alive), max(most, 1))


@pytest.mark.parametrize("value", [0.0, 1.0, float("nan"), float("inf")])
def test_detect_when_heads_say_nothing_then_counts_none(value: float) -> None:
    layer = torch.full((64, 24), value), torch.full((32, 24), value)
    evidence = detect_layout([layer] * 9, head_dim=8)

    assert (evidence.reordered, evidence.num_heads) == (None, 0)
    assert "0 key heads say anything" in evidence.why


def test_detect_when_one_head_is_broken_then_it_alone_is_left_out() -> None:
    rows = kjv()
    q, k = rows.layers[0]
    broken = k.clone()
    broken[: rows.head_dim] = 0
    evidence = replace(rows, layers=[(q, broken), *rows.layers[1:]]).evidence()

    assert (evidence.reordered, evidence.num_heads) == (0, 15)


def test_detect_when_there_are_no_layers_then_inconclusive() -> None:
    evidence = detect_layout([], head_dim=8)

    assert (evidence.verdict, evidence.reordered, evidence.num_heads) == (None, None, 0)


def test_detect_when_few_layers_then_inconclusive() -> None:
    """The same weights, but too few heads to show that heads agree."""
    rows = kjv()
    evidence = replace(rows, layers=rows.layers[:1]).evidence()

    assert not evidence.conclusive
    assert f"2 key heads say anything, fewer than {FEWEST_HEADS}" in evidence.why


@pytest.mark.parametrize(
    ("rotary_dim", "told_apart"), [(2, 1), (4, 2), (6, 4), (8, 3), (32, 5), (64, 6), (128, 6)]
)
def test_hypotheses_when_span_is_short_then_fewer(rotary_dim: int, told_apart: int) -> None:
    """The reorder returns to its start after the order of 2 modulo r - 1."""
    assert told_apart == len(hypotheses_of(rotary_dim).reorders)


def test_detect_when_two_rotary_rows_then_layouts_are_the_same() -> None:
    evidence = detect_layout([(torch.randn(8, 5), torch.randn(8, 5))] * 9, head_dim=2)

    assert "look the same in every layout" in evidence.why


@pytest.mark.parametrize("rotary_dim", [6, 10, 64, 80])
def test_pair_of_row_when_spelled_out_then_equal(rotary_dim: int) -> None:
    """Against the definitions, without the package's own row order."""
    rows, pairs = range(rotary_dim), rotary_dim // 2
    half_split = [row % pairs for row in rows]

    assert [row // 2 for row in rows] == pair_of_row(rotary_dim, 0).tolist()
    assert half_split == pair_of_row(rotary_dim, 1).tolist()
    assert half_split[::2] + half_split[1::2] == pair_of_row(rotary_dim, 2).tolist()


def test_scores_when_random_then_variance_is_one() -> None:
    """What the floor of z and the sum of three kinds rely on."""
    generator = np.random.default_rng(3)
    q, k = (generator.standard_normal(shape) for shape in ((400, 2, 32, 64), (400, 32, 64)))
    scores = score_layer(q, k, hypotheses_of(32))

    for kind in (scores.query, scores.key, scores.coupling):
        assert kind.std(0).tolist() == pytest.approx([1.0] * 5, abs=0.12)
        assert np.abs(kind.mean(0)).max() < 0.25


SHORT = hypotheses_of(16)
OTHERS = [0.0] * (len(SHORT.reorders) - 2)


def heads(
    *scores: float, count: int, coupled: tuple[float, float] | None = None, fit: int = 0
) -> HeadScores:
    """That many heads, all but alike: the scores of hypotheses 0 and 1, from every witness."""
    wobble = np.arange(count)[:, None] * 1e-5
    rows = np.array([[*scores, *OTHERS]] * count) + wobble
    coupling = np.array([[*(coupled or scores), *OTHERS]] * count) + wobble
    closeness = SHORT.nearness[fit].reshape(16, 16)
    return HeadScores(query=rows, key=rows, coupling=coupling, closeness=closeness)


def test_judge_when_two_orders_are_as_good_then_inconclusive() -> None:
    evidence = judge([heads(9.0, 8.9, count=16)], SHORT)

    assert evidence.z_by_hypothesis[0] > SMALLEST_Z
    assert not evidence.conclusive
    assert "the two best orders are too close" in evidence.why


def test_judge_when_few_heads_agree_by_chance_then_inconclusive() -> None:
    """Without a floor of the spread, four equal scores would have a z without bound."""
    evidence = judge([heads(1.0, 0.0, count=4)], SHORT)

    assert evidence.z_by_hypothesis[0] == pytest.approx(3 / 3**0.5 * 2, rel=1e-3)
    assert not evidence.conclusive


def test_judge_when_all_is_firm_then_conclusive() -> None:
    """The control of the others."""
    assert judge([heads(9.0, 1.0, count=16)], SHORT).reordered == 0


def test_judge_when_other_orders_fit_as_well_then_inconclusive() -> None:
    """Heads agree on whatever order they share: their number says nothing about the order."""
    evidence = judge([heads(9.0, 1.0, count=1000, fit=2)], SHORT)

    assert (evidence.reordered, evidence.margin > 100) == (None, True)
    assert "some other order may fit as well" in evidence.why


def test_judge_when_other_rows_are_coupled_more_then_inconclusive() -> None:
    """Of a head cut at the wrong places, rows are sorted, but their pairs are none."""
    evidence = judge([heads(9.0, 1.0, count=16, coupled=(3.0, 4.0))], SHORT)

    assert not evidence.conclusive
    assert "look most like interleaved, but coupled most like half-split" in evidence.why


def test_order_z_when_all_orders_are_tried_then_mean_zero_and_variance_one() -> None:
    generator = np.random.default_rng(2)
    noise = np.abs(generator.standard_normal((6, 6)))
    uneven = (noise + noise.T) * (1 - np.eye(6)) * np.arange(6)[:, None] * np.arange(6)
    centred = (uneven - uneven.sum() / 30) * (1 - np.eye(6))
    prediction = hypotheses_of(6).nearness[0]
    orders = [list(order) for order in permutations(range(6))]
    z = [order_z(centred[order][:, order], prediction) for order in orders]

    assert np.mean(z) == pytest.approx(0, abs=1e-12)
    assert np.std(z) == pytest.approx(1)


def test_balanced_when_rows_are_uneven_then_every_row_counts_the_same() -> None:
    weight = uneven_rows(32, 64, torch.Generator().manual_seed(5))
    means = balanced((weight @ weight.T).square()[None].numpy()).sum(-1) / 31

    assert means.tolist() == [pytest.approx([1.0] * 32, abs=0.1)]


@pytest.mark.parametrize(
    ("q_shape", "k_shape", "options"),
    [
        ((24, 7), (10, 7), {}),
        ((20, 7), (8, 7), {}),
        ((24, 7), (16, 7), {}),
        ((16, 7), (0, 7), {}),
        ((0, 7), (8, 7), {}),
        ((16, 7), (8, 6), {}),
        ((16,), (8,), {}),
        ((16, 7), (8, 7), {"rotary_dim": 3}),
        ((16, 7), (8, 7), {"rotary_dim": 0}),
        ((16, 7), (8, 7), {"rotary_dim": 6, "rotary_start": 4}),
        ((16, 7), (8, 7), {"rotary_dim": 4, "rotary_start": -2}),
    ],
)
def test_detect_when_rows_do_not_fit_then_refuses(
    q_shape: tuple[int, ...], k_shape: tuple[int, ...], options: dict[str, int]
) -> None:
    with pytest.raises(RowsError):
        detect_layout([(torch.ones(q_shape), torch.ones(k_shape))], head_dim=8, **options)


def test_words_when_conclusive_then_evidence_and_never_proof() -> None:
    for evidence in (kjv().evidence(), draw("gaussian", RANDOM_GEOMETRIES[0], 1).evidence()):
        assert "pro" + "of" not in evidence.why
        assert "prove" not in evidence.why
    assert "are evidence for interleaved" in kjv().evidence().why


def test_describe_reorders_when_any_number_then_all_differ() -> None:
    words = [describe_reorders(times) for times in range(-3, 5)]

    assert len(words) == len(set(words))


def test_thresholds_when_compared_with_the_page_then_the_same() -> None:
    page = " ".join((FIXTURES.parent / "docs" / "detection.md").read_text().split())

    for words in (
        f"z of at least {SMALLEST_Z:g}",
        f"margin of at least {SMALLEST_MARGIN:g}",
        f"coupling of at least {SMALLEST_COUPLING:g}",
        f"order of at least {SMALLEST_ORDER:g}",
        f"at least {FEWEST_HEADS} key heads",
    ):
        assert words in page


def test_fixtures_when_listed_then_small() -> None:
    files = list((FIXTURES / "detect").glob("*.safetensors"))

    assert files
    assert sum(file.stat().st_size for file in files) < 1_500_000
