"""What a child sees of a checkpoint's weights, and what a parent makes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fixtures import meta_folder
from ropeconv.proof.detect import detect_layout
from ropeconv.proof.look import look
from ropeconv.story.conversion import HfOptions, MetaOptions, convert
from ropeconv.story.detection import detect
from ropeconv.words.errors import Contradiction
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, Repeat, Rope, reorder_rows

TRAINED = Path(__file__).parents[2] / "fixtures/kjv-llama"


@pytest.fixture(scope="module")
def mislabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interleaved rows under Hugging Face names: what a script that forgets the rows writes."""
    folder = tmp_path_factory.mktemp("look")
    right = folder / "right"
    convert(TRAINED, right, HfOptions())
    tensors = load_file(right / "model.safetensors")
    for name, tensor in tensors.items():
        heads = {"q_proj": 6, "k_proj": 2}.get(name.split(".")[-2])
        if heads:
            rows = Repeat(heads, Rope(32))
            tensors[name] = reorder_rows(tensor, rows, source=HALF_SPLIT, target=INTERLEAVED)
    wrong = folder / "wrong"
    wrong.mkdir()
    save_file(tensors, wrong / "model.safetensors", metadata={"format": "pt"})
    (wrong / "config.json").write_bytes((right / "config.json").read_bytes())
    return wrong


def test_look_at_a_trained_model_then_its_layout() -> None:
    assert look(TRAINED).verdict == INTERLEAVED


def test_look_at_heads_one_by_one_then_the_numbers_of_whole_projections() -> None:
    weights = meta_folder.read_joined(TRAINED)
    at = [f"layers.{layer}.attention" for layer in range(8)]
    layers = [(weights[f"{one}.wq.weight"], weights[f"{one}.wk.weight"]) for one in at]
    whole, seen = detect_layout(layers, head_dim=32), look(TRAINED)

    assert whole.z_by_hypothesis == pytest.approx(seen.z_by_hypothesis, rel=1e-5)
    assert (whole.margin, whole.order) == pytest.approx((seen.margin, seen.order), rel=1e-5)


def test_look_at_few_random_heads_then_inconclusive() -> None:
    found = detect(TRAINED.parent / "small/llama")

    assert (found.conclusive, found.layout) == (False, "")


def test_detect_what_cannot_be_read_then_inconclusive_with_the_reason(tmp_path: Path) -> None:
    found = detect(tmp_path)

    assert not found.conclusive
    assert "could not be looked at" in found.why


def test_convert_what_the_weights_contradict_then_refused_and_nothing_left(
    mislabelled: Path, tmp_path: Path
) -> None:
    """The label says half-split, and a proof would agree with it: only the weights know."""
    with pytest.raises(Contradiction, match="do not look half-split"):
        convert(mislabelled, tmp_path / "meta", MetaOptions(), look=True)

    assert list(tmp_path.iterdir()) == []


def test_convert_without_looking_then_as_declared(mislabelled: Path, tmp_path: Path) -> None:
    assert convert(mislabelled, tmp_path / "meta", MetaOptions(), look=False).done


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_look_when_stored_otherwise_then_the_same(tmp_path: Path, dtype: torch.dtype) -> None:
    convert(TRAINED, tmp_path / "right", HfOptions())
    tensors = load_file(tmp_path / "right/model.safetensors")
    folder = tmp_path / "other"
    folder.mkdir()
    save_file({n: t.to(dtype) for n, t in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_bytes((tmp_path / "right/config.json").read_bytes())
    found = look(folder)

    assert (found.verdict, found.num_heads) == (HALF_SPLIT, 16)
    assert found.margin == pytest.approx(look(TRAINED).margin, rel=0.02)


def test_look_then_torch_is_never_imported() -> None:
    """It would be most of the time and of the memory of a look."""
    command = [sys.executable, "-X", "importtime", "-P", "-m", "ropeconv.proof.look", str(TRAINED)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}

    assert '"layout": "interleaved"' in done.stdout
    assert "numpy" in imported
    assert not imported & {"torch", "triton", "safetensors"}
