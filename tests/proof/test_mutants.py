"""Every mistake that was made in the field, planted on a right conversion: verify must catch each.

The letters are those of the catalogue in docs: A direction, C heads, E bystanders, H frequencies,
I ranks, J configs, K names and values. The right conversion itself must pass, with difference 0.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ropeconv
from fixtures import make_small
from ropeconv import HfOptions, Outcome, RopeconvError
from ropeconv.formats import discover
from ropeconv.formats.stamps import STAMP_KEY
from ropeconv.proof.scores import Form, check_scores
from ropeconv.reports.forms import VERDICT
from ropeconv.reports.sentences import CAVEAT, not_looked_at
from ropeconv.story.conversion import plan_conversion
from ropeconv.story.detection import detect
from ropeconv.thinking.inventory import take_stock
from ropeconv.words.errors import Contradiction
from ropeconv.words.events import nobody
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, Repeat, Rope, row_order
from tests.conftest import KJV, SMALL

Tensors = dict[str, torch.Tensor]
HEADS, KV_HEADS, DIM = 12, 4, 12  # 12 // 4 is not 4, and 48 key rows divide by 12 and by 3
CASE = make_small.Case(
    purpose="mutants: more ways to group rows wrongly than 64 heads over 8 would allow",
    params={
        "dim": 44, "n_layers": 2, "n_heads": HEADS, "n_kv_heads": KV_HEADS, "head_dim": DIM,
        "vocab_size": 51, "multiple_of": 8, "ffn_dim_multiplier": 0.25, "norm_eps": 1e-5,
        "rope_theta": 500000.0, "use_scaled_rope": False,
    },
    values="mutants",
    vocab_size=51,
)  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutants") / "meta"
    folder.mkdir()
    (folder / "params.json").write_text(make_small.params_text(CASE))
    for name, tensors in make_small.rank_files(CASE).items():
        torch.save(tensors, folder / name)
    return folder


@pytest.fixture(scope="module")
def right(source: Path) -> Path:
    ropeconv.convert(source, source.parent / "hf", HfOptions())
    return source.parent / "hf"


def plant(right: Path, folder: Path, mutate: Callable[[Tensors], Any]) -> Path:
    """A copy of the right conversion, with a mistake in its tensors."""
    target = folder / "mutant"
    target.mkdir()
    shutil.copy(right / "config.json", target)
    tensors = load_file(right / "model.safetensors")
    mutate(tensors)
    tensors = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    metadata = {"format": "pt", STAMP_KEY: "half-split"}
    save_file(tensors, target / "model.safetensors", metadata)
    return target


def attention(name: str, layer: int = 1) -> str:
    return f"model.layers.{layer}.self_attn.{name}_proj.weight"


def gather(tensor: torch.Tensor, heads: int, dim: int, times: int = 1) -> torch.Tensor:
    """Interleaved to half-split, so many times; the other way if negative."""
    ends = (INTERLEAVED, HALF_SPLIT) if times > 0 else (HALF_SPLIT, INTERLEAVED)
    order = torch.tensor(row_order((Repeat(heads, Rope(dim)),), *ends))
    for _ in range(abs(times)):
        tensor = tensor[order]
    return tensor


def turned(*names: str, times: int, layers: tuple[int, ...] = (0, 1)) -> Callable[[Tensors], None]:
    """So many reorders too many, -1 for none at all."""

    def mutate(tensors: Tensors) -> None:
        for layer in layers:
            for name in names:
                rows = tensors[attention(name, layer)]
                tensors[attention(name, layer)] = gather(rows, len(rows) // DIM, DIM, times)

    return mutate


def grouped(name: str, heads: int) -> Callable[[Tensors], None]:
    """Cut into that many heads instead of the right number."""

    def mutate(tensors: Tensors) -> None:
        rows = tensors[attention(name)]
        plain = gather(rows, len(rows) // DIM, DIM, -1)
        tensors[attention(name)] = gather(plain, heads, len(rows) // heads)

    return mutate


def put(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({name: change(tensors[name])})


def exchange(one: str, other: str) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({one: tensors[other], other: tensors[one]})


def heads_in_order(name: str, order: list[int]) -> Callable[[Tensors], None]:
    return put(attention(name), lambda t: t.view(-1, DIM, 44)[order].reshape(-1, 44))


def halves(axis: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda t: torch.cat(t.chunk(2, axis)[::-1], axis)


ROWS = {  # moves rows of q or k within or between heads: scores alone must tell
    "A1 not reordered": turned("q", "k", times=-1),
    "A2 inverse direction": turned("q", "k", times=-2),
    "A3 twice": turned("q", "k", times=1),
    "A4 only q": turned("k", times=-1),
    "A5 only k": turned("q", times=-1),
    "A6 only some layers": turned("q", "k", times=-1, layers=(1,)),
    "C1 k by the number of query heads": grouped("k", HEADS),
    "C2 k by queries for each key head": grouped("k", HEADS // KV_HEADS),
    "C3 q as one head": grouped("q", 1),
    "C3 k as one head": grouped("k", 1),
    "C4 another head_dim": grouped("q", 18),
    "C5 query heads shifted": put(attention("q"), lambda t: t.roll(DIM, 0)),
    "C6 kv heads tiled": heads_in_order("k", [0, 2, 1, 3]),
    "C7 head_dim halved": grouped("q", 2 * HEADS),
    "I3 q of ranks in another order": put(attention("q"), halves(0)),
    "I3 k of ranks in another order": put(attention("k"), halves(0)),
    "I5 one rank of q twice": put(attention("q"), lambda t: t[:72].repeat(2, 1)),
    "rows of the fastest pair exchanged in q": put(
        attention("q"), lambda t: t[[6, *range(1, 6), 0, *range(7, 144)]]
    ),
    "one head of k not reordered": put(
        attention("k"), lambda t: torch.cat([t[:36], gather(t[36:], 1, DIM, -1)])
    ),
}

NORM = "model.layers.1.input_layernorm.weight"
GATE, UP, DOWN = (f"model.layers.0.mlp.{name}_proj.weight" for name in ("gate", "up", "down"))
OTHERS = {  # changes something that no score of q and k shows: bytes must tell
    "E1 v moved": turned("v", times=1, layers=(1,)),
    "E2 columns of o moved": put(attention("o"), lambda t: gather(t.T, HEADS, DIM).T),
    "I1 o joined in another order": put(attention("o"), halves(1)),
    "I1 w2 joined in another order": put(DOWN, halves(1)),
    "I2 embedding joined along the other axis": put("model.embed_tokens.weight", halves(1)),
    "I5 one rank of w1 twice": put(GATE, lambda t: t[: len(t) // 2].repeat(2, 1)),
    "I8 norm of another rank": put(NORM, lambda t: t + 0.0078125),
    "K1 norms exchanged": exchange(NORM, "model.layers.1.post_attention_layernorm.weight"),
    "K2 gate and up exchanged": exchange(GATE, UP),
    "K4 a tensor cast": put(NORM, torch.Tensor.float),
    "K4 a tensor cast and cast back": put(
        "lm_head.weight", lambda t: t.to(torch.float8_e4m3fn).to(t.dtype)
    ),
    "K7 two layers exchanged": lambda tensors: [
        exchange(name, name.replace(".0.", ".1."))(tensors)
        for name in list(tensors) if ".layers.0." in name
    ],
    "K7 output and embedding exchanged": exchange("lm_head.weight", "model.embed_tokens.weight"),
}  # fmt: skip

REFUSED = {  # is no checkpoint of this model at all
    "C6 kv heads repeated": put(attention("k"), lambda t: t.repeat(3, 1)),
    "I4 one rank of q missing": put(attention("q"), lambda t: t[:72]),
    "I6 copies of kv heads kept": put(
        attention("k"), lambda t: t.view(4, DIM, 44).repeat_interleave(2, 0).reshape(-1, 44)
    ),
    "J8 an extra tensor": lambda tensors: tensors.update({"model.extra.weight": torch.ones(3)}),
    "J9 a missing layer": lambda tensors: [
        tensors.pop(name) for name in list(tensors) if ".layers.1." in name
    ],
    "K3 the output lost": lambda tensors: tensors.pop("lm_head.weight"),
    "o transposed": put(attention("o"), lambda t: t.T),
}


def scores_alone(target: Path, source: Path, layer: int = 1) -> Outcome:
    """The score check without the exact one; it knows nothing of bytes."""
    forms = []
    for folder in (source, target):
        model = plan_conversion(source, HfOptions()).model
        forms.append(Form(inventory=take_stock(discover(folder)), model=model))
    return check_scores(forms[0], forms[1], layers=[layer], listen=nobody).outcome


def test_right_conversion_is_the_same_with_no_difference_at_all(source: Path, right: Path) -> None:
    verdict = ropeconv.verify(right, source)

    assert verdict.outcome is Outcome.SAME, verdict
    assert verdict.scores.max_difference == 0.0
    assert verdict.scores.weakest_margin > 1000
    assert (len(verdict.scores.layers), verdict.exact.num_reordered) == (2, 4)
    assert scores_alone(right, source) is Outcome.SAME


@pytest.mark.parametrize("mistake", ROWS)
def test_moved_rows_are_seen_by_scores_alone_and_by_bytes_alone(
    tmp_path: Path, source: Path, right: Path, mistake: str
) -> None:
    target = plant(right, tmp_path, ROWS[mistake])
    verdict = ropeconv.verify(target, source, layers=[])

    assert verdict.exact.outcome is Outcome.DIFFERENT
    assert verdict.outcome is Outcome.DIFFERENT
    assert verdict.exit_code == 1
    assert scores_alone(target, source) is Outcome.DIFFERENT


@pytest.mark.parametrize("mistake", OTHERS)
def test_changed_bystander_is_seen_by_bytes(
    tmp_path: Path, source: Path, right: Path, mistake: str
) -> None:
    target = plant(right, tmp_path, OTHERS[mistake])
    verdict = ropeconv.verify(target, source, layers=[])

    assert verdict.outcome is Outcome.DIFFERENT
    assert verdict.exact.findings


def test_k3_output_lost_and_a_tie_claimed_is_seen(
    tmp_path: Path, source: Path, right: Path
) -> None:
    """The output is another tensor than the embedding; transformers would use the embedding."""
    target = plant(right, tmp_path, lambda tensors: tensors.pop("lm_head.weight"))
    config = json.loads((target / "config.json").read_text()) | {"tie_word_embeddings": True}
    (target / "config.json").write_text(json.dumps(config))
    for one, other in ((target, source), (source, target)):
        verdict = ropeconv.verify(one, other, layers=[])

        assert verdict.outcome is Outcome.DIFFERENT
        assert [finding.tensor for finding in verdict.exact.findings] == ["lm_head.weight"]


@pytest.mark.parametrize("mistake", REFUSED)
def test_checkpoint_that_is_not_whole_is_refused(
    tmp_path: Path, source: Path, right: Path, mistake: str
) -> None:
    target = plant(right, tmp_path, REFUSED[mistake])

    with pytest.raises(RopeconvError) as caught:
        ropeconv.verify(target, source, layers=[])
    assert caught.value.exit_code in {4, 5}


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("A1 not reordered", "not reordered"),
        ("A3 twice", "twice"),
        ("A4 only q", "k_proj"),
        ("C3 q as one head", "one head"),
        ("K2 gate and up exchanged", "up_proj"),
    ],
)
def test_mistake_is_called_by_its_name(
    tmp_path: Path, source: Path, right: Path, mistake: str, words: str
) -> None:
    target = plant(right, tmp_path, (ROWS | OTHERS)[mistake])
    verdict = ropeconv.verify(target, source, layers=[])

    assert words in " ".join(verdict.exact.diagnosis), verdict.exact.diagnosis


def test_a7_both_sides_mislabelled_alike_never_pass_unless_the_label_is_trusted(
    tmp_path: Path,
) -> None:
    """Half-split rows in a Meta file: a right reorder of them is equal, and equally wrong.

    The weights know better: they stop the conversion that would make the target, and the proof is
    inconclusive. Only who trusts the label gets a proof under the layouts that both declare.
    """
    source = shutil.copytree(KJV, tmp_path / "mislabelled")
    for file in source.glob("*.pth"):
        weights = torch.load(file, weights_only=True)
        for name, tensor in weights.items():
            if name.split(".")[-2] in ("wq", "wk"):
                weights[name] = gather(tensor, len(tensor) // 32, 32)
        torch.save(weights, file)
    with pytest.raises(Contradiction, match="do not look interleaved"):
        ropeconv.convert(source, tmp_path / "refused", HfOptions(), look=True)
    ropeconv.convert(source, tmp_path / "target", HfOptions(), look=False)
    heard = ropeconv.verify(tmp_path / "target", source, layers=[0, 7])
    verdict = ropeconv.verify(tmp_path / "target", source, layers=[0, 7], look=False)

    assert heard.outcome is Outcome.INCONCLUSIVE
    assert heard.exit_code == 3
    assert "do not look interleaved, as it declares" in heard.scores.why
    assert verdict.outcome is Outcome.SAME
    assert verdict.scores.max_difference == 0.0
    assert (verdict.source.layout, verdict.target.layout) == ("interleaved", "half-split")
    assert CAVEAT in VERDICT[".md"](verdict)
    assert "in the layout that it declares" in " ".join(not_looked_at(verdict))
    assert detect(source).layout == "half-split"


def test_j7_context_length_is_said_to_be_left_out_and_comes_from_the_user(
    tmp_path: Path, source: Path, right: Path
) -> None:
    said = ropeconv.Said(context_length=4321)
    ropeconv.convert(source, tmp_path / "hf", HfOptions(), said=said)
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    verdict = ropeconv.verify(right, source, layers=[0])

    assert config["max_position_embeddings"] == 4321
    assert "context length" in " ".join(not_looked_at(verdict))


def config_copy(folder: Path, right: Path, **changes: Any) -> Path:
    target = folder / "mutant"
    target.mkdir()
    (target / "model.safetensors").symlink_to(right / "model.safetensors")
    config = json.loads((right / "config.json").read_text()) | changes
    text = json.dumps({key: value for key, value in config.items() if value is not ...})
    (target / "config.json").write_text(text)
    return target


PLAIN = {"rope_type": "default"}
SCALED = {
    "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


def rope(theta: float = 500000.0, **scaling: Any) -> dict[str, Any]:
    """Both spellings, so that only the number is wrong."""
    found = SCALED | scaling if scaling.get("rope_type") != "default" else PLAIN
    new = found | {"rope_theta": theta}
    return {"rope_theta": theta, "rope_scaling": found, "rope_parameters": new}


CONFIGS = {
    "none": ({}, Outcome.SAME),
    "H1 theta by default": (rope(1e4), Outcome.DIFFERENT),
    "H2 theta lost in both spellings": (
        {"rope_theta": ..., "rope_scaling": SCALED, "rope_parameters": SCALED}, "not-said",
    ),
    "H2 theta in one spelling": ({"rope_parameters": ..., "rope_scaling": SCALED}, Outcome.SAME),
    "H2 theta in the other spelling": ({"rope_theta": ..., "rope_scaling": ...}, Outcome.SAME),
    "H2 thetas that differ": ({"rope_theta": 1e4}, "contradiction"),
    "H3 scaling lost": (rope(rope_type="default"), Outcome.DIFFERENT),
    "H4 factor 8 for 32": (rope(factor=8.0), Outcome.DIFFERENT),
    "H5 low and high exchanged": (rope(low_freq_factor=4.0, high_freq_factor=1.0), "file-broken"),
    "H6 original length from the top": (
        rope(original_max_position_embeddings=131072), Outcome.DIFFERENT,
    ),
    "H7 epsilon by default": ({"rms_norm_eps": 1e-6}, Outcome.DIFFERENT),
    "J1 vocabulary of -1": ({"vocab_size": -1}, Outcome.SAME),  # shapes are the truth
    "J2 width by a formula": ({"intermediate_size": 160}, "contradiction"),
    "J3 kv heads by default": ({"num_key_value_heads": 6}, "contradiction"),
    "J5 tie denied": ({"tie_word_embeddings": False}, "source-incomplete"),
    # J7 reaches no weight: a length is no number of the model, and params.json states none to
    # compare with. The verdict says so (below); a conversion takes it from the source or the user.
    "J7 another context length": ({"max_position_embeddings": 7}, Outcome.SAME),
    "a window": ({"sliding_window": 16, "model_type": "mistral"}, Outcome.DIFFERENT),
}  # fmt: skip


@pytest.mark.parametrize("mistake", CONFIGS)
def test_changed_config_is_seen_whatever_its_spelling(
    tmp_path: Path, converted: Callable[[str], Path], mistake: str
) -> None:
    """Scores at short range move by 1e-5 standard deviations here: only numbers can tell."""
    changes, expected = CONFIGS[mistake]
    target = config_copy(tmp_path, converted("llama-tied"), **changes)
    said = ropeconv.Said(rope_factor=32.0)
    if isinstance(expected, str):
        with pytest.raises(RopeconvError) as caught:
            ropeconv.verify(target, SMALL / "llama-tied", said=said, layers=[])
        assert caught.value.code == expected
        return
    verdict = ropeconv.verify(target, SMALL / "llama-tied", said=said, layers=[])

    assert verdict.config.outcome is expected, verdict.config
    assert verdict.exact.outcome is Outcome.SAME
