"""The score check has power, or says that it has none: blind probes, weights and controls."""

# ruff: noqa: N803, N806 - axes stand in names: T tokens, C width, R rows

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ropeconv
from ropeconv import Outcome
from ropeconv.formats import discover
from ropeconv.kernels import BACKEND, ScoreForm
from ropeconv.moving.examine import read_tensor_ahead
from ropeconv.proof.comparison import Angles, compare_forms, make_angles
from ropeconv.proof.judgement import judge
from ropeconv.proof.probe import Probe, make_probe
from ropeconv.proof.projection import CHUNK_NBYTES, hidden_states, project
from ropeconv.proof.threads import one_thread
from ropeconv.proof.verdict import Control, LayerScores
from ropeconv.thinking.inventory import take_stock
from ropeconv.words.errors import UsageError
from ropeconv.words.frequencies import Llama3, RopeSettings, frequencies
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, Rope, RopeLayout, row_order
from tests.conftest import SMALL

HIDDEN, HEADS, KV_HEADS = 44, 6, 2
ROPE = RopeSettings(theta=10000.0)
DEVICE = torch.device("cuda" if BACKEND == "cuda" else "cpu")
LADDER = (0, 1, 2, 4, 8, 16, 64, 256, 1023)


def angles(dim: int, positions: Sequence[int]) -> Angles:
    return make_angles(ROPE, dim, Probe(positions=tuple(positions), seed=0), DEVICE)


def form(
    dim: int = 10, positions: Sequence[int] = LADDER, layout: RopeLayout = INTERLEAVED
) -> ScoreForm:
    generator = torch.Generator().manual_seed(1)
    q, k = (
        torch.randn((1, len(positions), heads, dim), generator=generator).to(DEVICE)
        for heads in (HEADS, KV_HEADS)
    )
    return ScoreForm(q=q, k=k, layout=layout, table=angles(dim, positions).plain)


def reordered(x: torch.Tensor) -> torch.Tensor:
    order = row_order((Rope(x.shape[-1]),), INTERLEAVED, HALF_SPLIT)
    return x[..., torch.tensor(order)].contiguous()


def right(source: ScoreForm) -> ScoreForm:
    return replace(source, q=reordered(source.q), k=reordered(source.k), layout=HALF_SPLIT)


def compared(
    source: ScoreForm, target: ScoreForm, positions: Sequence[int] = LADDER
) -> LayerScores:
    found = angles(source.q.shape[-1], positions)
    return compare_forms(source, target, angles=found, layer=0, hidden_size=HIDDEN)


def outcome(source: ScoreForm, target: ScoreForm, positions: Sequence[int] = LADDER) -> Outcome:
    return judge([compared(source, target, positions)])[0]


def test_projections_are_exact_in_whatever_order_they_are_summed() -> None:
    """Numbers of 53 bits would differ in the last of them, and once in 10^8 in a float32."""
    width = 4096
    generator = torch.Generator().manual_seed(3)
    weight_RC = torch.randn((7, width), generator=generator).bfloat16().double() / 64
    hidden_TC = hidden_states(0, 5, width, torch.device("cpu"))
    plain_TC = torch.randn((5, width), generator=generator, dtype=torch.float64)

    def exact(x_TC: torch.Tensor) -> bool:
        sums = [[math.fsum((x * row).tolist()) for row in weight_RC] for x in x_TC]
        return (x_TC @ weight_RC.T).tolist() == sums

    assert exact(hidden_TC)
    assert not exact(plain_TC)
    assert 0.9 < hidden_TC.std() < 1.1


def test_projections_are_the_same_in_any_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = take_stock(discover(SMALL / "llama"))
    tensor = next(tensor for tensor in inventory.tensors if tensor.name.endswith("q_proj.weight"))
    hidden_TC = hidden_states(0, 5, tensor.shape[1], torch.device("cpu"))
    whole = project(inventory, tensor, hidden_TC)
    monkeypatch.setitem(CHUNK_NBYTES, "cpu", 7 * 8 * tensor.shape[1])

    assert project(inventory, tensor, hidden_TC).equal(whole)
    assert whole.shape == (5, tensor.shape[0])


def test_next_layers_bytes_are_asked_for_and_a_lost_file_is_left_to_the_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two ranks: each has a part of the rows. Requests are cut, here after every 100 bytes."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr("ropeconv.moving.files.AHEAD_NBYTES", 100)
    monkeypatch.setattr(os, "posix_fadvise", lambda *request: asked.append(request[1:3]))
    inventory = take_stock(discover(SMALL / "llama-2-ranks"))
    tensor = next(tensor for tensor in inventory.tensors if tensor.name.endswith("q_proj.weight"))
    read_tensor_ahead(inventory.checkpoint, tensor)
    wanted = [
        byte for piece in tensor.pieces for byte in range(piece.offset, piece.offset + piece.nbytes)
    ]

    assert len(tensor.pieces) == 2
    assert wanted == [byte for offset, nbytes in asked for byte in range(offset, offset + nbytes)]
    assert max(nbytes for _, nbytes in asked) == 100
    monkeypatch.setattr(Path, "open", raiser(FileNotFoundError()))
    read_tensor_ahead(inventory.checkpoint, tensor)


def raiser(error: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("dim", [6, 10, 16])
def test_right_form_differs_by_nothing_at_all(dim: int) -> None:
    source = form(dim)
    layer = compared(source, right(source))

    assert layer.max_difference == 0.0
    assert judge([layer]) == (Outcome.SAME, "")
    assert layer.margin > 1000


@pytest.mark.parametrize(
    ("why", "dim", "positions"),
    [
        ("B1 one position", 10, (0,)),
        ("B1 one position far away", 10, (77,)),
        ("B2 equal positions", 10, (5, 5, 5, 5)),
        ("B4 two pairs, whose reorder undoes itself", 4, LADDER),
        ("B4 one pair, which both layouts agree on", 2, LADDER),
    ],
)
def test_probe_that_cannot_tell_layouts_apart_is_inconclusive(
    why: str, dim: int, positions: tuple[int, ...]
) -> None:
    """The diagonal is blind: at distance 0 a wrong reorder of both q and k changes no score."""
    source = form(dim, positions)
    wrong = replace(source, layout=HALF_SPLIT)

    assert outcome(source, right(source), positions) is Outcome.INCONCLUSIVE, why
    if max(positions) > 0:
        assert outcome(source, wrong, positions) is not Outcome.SAME, why


@pytest.mark.parametrize("which", ["q", "k", "both"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_weights_that_cannot_tell_layouts_apart_are_inconclusive(which: str, value: float) -> None:
    """B3 equal rows, B5 zeros: whoever wrote such weights, nothing can be proved of them."""
    source = form()
    for name in ("q", "k"):
        if which in (name, "both"):
            source = replace(source, **{name: torch.full_like(getattr(source, name), value)})

    assert outcome(source, right(source)) is Outcome.INCONCLUSIVE


def test_zeros_do_not_hide_what_differs() -> None:
    """No power, and yet a difference: then it is different."""
    source = form()
    blind = replace(source, q=torch.zeros_like(source.q))

    assert outcome(blind, right(source)) is Outcome.DIFFERENT


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_inconclusive_in_the_source_and_different_in_the_target(
    value: float,
) -> None:
    source, target = form(), right(form())
    source.q[0, 3, 1, 4] = value
    broken = right(form())
    broken.k[0, 3, 1, 4] = value

    assert outcome(source, target) is Outcome.INCONCLUSIVE
    assert outcome(form(), broken) is Outcome.DIFFERENT


def layer_of(**changes: float) -> LayerScores:
    values = {"max_difference": 0.0, "bound": 1e-5, "shifted": 0.0, "clamped": 0.0} | changes
    control = Control(name="not reordered", difference=values.pop("control", 1.0))
    return LayerScores(
        layer=3, worst_head=2, groups=(values["max_difference"],), control_group=0,
        controls=(Control(name="only q", difference=2.0), control), **values,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Outcome.SAME),
        ({"max_difference": 1e-5}, Outcome.SAME),
        ({"max_difference": 1.1e-5}, Outcome.DIFFERENT),
        ({"max_difference": math.nan}, Outcome.DIFFERENT),
        ({"max_difference": math.inf}, Outcome.DIFFERENT),
        ({"control": 0.99e-4}, Outcome.INCONCLUSIVE),
        ({"control": 0.0}, Outcome.INCONCLUSIVE),
        ({"control": math.nan}, Outcome.INCONCLUSIVE),
        ({"bound": 0.0}, Outcome.INCONCLUSIVE),
        ({"max_difference": 1.0, "control": 0.0}, Outcome.DIFFERENT),
    ],
)
def test_judgement_follows_from_the_numbers(changes: dict[str, float], expected: Outcome) -> None:
    found, why = judge([layer_of(), layer_of(**changes)])

    assert found is expected
    assert bool(why) is (expected is not Outcome.SAME)


def numbered(layer: int, **changes: float) -> LayerScores:
    return replace(layer_of(**changes), layer=layer)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (
            [numbered(0, max_difference=2e-5), numbered(1, max_difference=0.5), numbered(2)],
            ("layer 1, head 2: scores differ by 0.5", "the worst of 2 layers that differ"),
        ),
        (
            [numbered(0, max_difference=0.5), numbered(1, max_difference=math.nan)],
            ("layer 1, head 2: scores differ by nan", "the worst of 2"),
        ),
        (  # the same difference is worse where rounding allows less
            [numbered(0, shifted=1e-3), numbered(1, shifted=1e-3, bound=1e-6)],
            ("layer 1, scores change when both positions shift", "the worst of 2"),
        ),
        (
            [numbered(0, control=5e-5), numbered(1, control=1e-6), numbered(2, control=2e-5)],
            (
                "layer 1: the planted mistake `not reordered` differs by 1e-06 only",
                "the worst of 3 layers without power",
            ),
        ),
        ([numbered(0), numbered(1, max_difference=0.5)], ("layer 1, head 2",)),
    ],
)
def test_reason_is_the_worst_layers(layers: list[LayerScores], words: tuple[str, ...]) -> None:
    _, why = judge(layers)

    assert all(each in why for each in words), why
    assert ("the worst of" in why) is (len(words) > 1)


@pytest.mark.parametrize("side", ["source", "target"])
def test_what_is_no_number_is_said_in_words(side: str) -> None:
    pair = {"source": form(), "target": right(form())}
    pair[side].k[0, 3, 1, 4] = math.inf
    _, why = judge([compared(pair["source"], pair["target"])])

    assert f"layer 0: the {side}'s projections hold NaN or infinity" in why
    assert not re.search(r"\b(inf|nan)\b", why)


def test_no_layer_at_all_is_inconclusive() -> None:
    assert judge([])[0] is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("theta", [100.0, 1e4, 5e5, 1e6])
@pytest.mark.parametrize("dim", [10, 64, 128])
def test_probe_has_a_position_near_a_quarter_period_of_every_pair(theta: float, dim: int) -> None:
    """Swapped rows of the slowest pair of 128 move a score by 1e-4 within the context, not here."""
    scaling = Llama3(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=8192
    )
    rope = RopeSettings(theta=theta, scaling=scaling)
    probe = make_probe(rope, dim, 8192)
    missed = [
        pair
        for pair, value in enumerate(frequencies(rope, dim).inv_freq)
        if not any(abs(math.sin(position * value)) > 0.8 for position in probe.positions)
    ]

    assert missed == []
    assert len(set(probe.positions)) == len(probe.positions)
    assert {0, 1, 2, 4, 4096}.issubset(probe.positions)


def test_list_of_layers_and_a_number_of_them_are_refused(converted: Callable[[str], Path]) -> None:
    """Either alone chooses; one of the two would be ignored in silence."""
    with pytest.raises(UsageError, match="both a list of layers and a number"):
        ropeconv.verify(converted("llama"), SMALL / "llama", layers=[0], sample=1)


def test_model_of_head_dim_2_is_inconclusive_as_a_whole(tmp_path: Path) -> None:
    """B4 from end to end: every byte agrees, and nothing is proved."""
    from fixtures import make_small  # noqa: PLC0415 - one test only

    params = make_small.LLAMA | {"dim": 12, "multiple_of": 4, "vocab_size": 51}
    case = make_small.Case(purpose="head_dim 2", params=params, values="two", vocab_size=51)
    source = tmp_path / "meta"
    source.mkdir()
    (source / "params.json").write_text(make_small.params_text(case))
    for name, tensors in make_small.rank_files(case).items():
        torch.save(tensors, source / name)
    ropeconv.convert(source, tmp_path / "hf", ropeconv.HfOptions())
    verdict = ropeconv.verify(tmp_path / "hf", source, layers=[0])

    assert verdict.exact.outcome is Outcome.SAME
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.exit_code == 3


def test_threads_of_torch_are_as_many_after_a_check_as_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_weights_of_nan_are_inconclusive_as_a_whole(converted: Callable[[str], Path]) -> None:
    verdict = ropeconv.verify(converted("llama-odd-bits"), SMALL / "llama-odd-bits")

    assert verdict.exact.outcome is Outcome.SAME
    assert (verdict.outcome, verdict.exit_code) == (Outcome.INCONCLUSIVE, 3)
    assert "NaN" in verdict.scores.why
