"""Whole models: layer by layer as all at once, in the memory of a layer; told apart when wrong."""

from __future__ import annotations

import ctypes
import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file

import ropeconv
from ropeconv.formats import discover
from ropeconv.proof import runtimes
from ropeconv.proof.runtimes import Runner, Runtime
from ropeconv.story.relayout import relayout
from ropeconv.story.verification import LogitsRequest
from ropeconv.thinking.family_model import state_family
from ropeconv.thinking.inventory import take_stock
from ropeconv.words.errors import Unsupported, UsageError
from ropeconv.words.events import Event, LayerDone, LayersPlanned, nobody
from ropeconv.words.layout import INTERLEAVED
from tests.conftest import SMALL, said_of
from tests.families.cases import other_layout, random_model

TOKENS_BT = torch.tensor([[3, 7, 4, 9, 5, 8, 6, 11, 2, 50, 1, 12]])
WIDE, LAYERS = 256, 24
M_MMAP_THRESHOLD = -3  # of malloc.h
MB = 1 << 20

transformers.logging.disable_progress_bar()
transformers.logging.set_verbosity_error()


def runner(folder: Path) -> Runner:
    inventory = take_stock(discover(folder))
    return Runner(inventory=inventory, model=state_family(inventory)[0])


def at_once(folder: Path, dtype: torch.dtype) -> torch.Tensor:
    """The whole model in memory, loaded as users load it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    with torch.no_grad():
        logits: torch.Tensor = model(TOKENS_BT).logits
    return logits


def by_layers(
    folder: Path, dtype: torch.dtype, listen: Callable[[Event], None] = nobody
) -> torch.Tensor:
    return runtimes.run(runner(folder), Runtime.TRANSFORMERS, TOKENS_BT, dtype, listen)


@pytest.mark.parametrize("name", ["llama", "llama-tied", "mistral"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_layer_by_layer_is_bit_for_bit_what_all_at_once_is(
    converted: Callable[[str], Path], name: str, dtype: torch.dtype
) -> None:
    heard: list[Event] = []
    found = by_layers(converted(name), dtype, heard.append)

    assert found.equal(at_once(converted(name), dtype))
    planned = [event for event in heard if isinstance(event, LayersPlanned)]
    done = [event.layer for event in heard if isinstance(event, LayerDone)]
    assert [event.num_layers for event in planned] == [len(done)]
    assert done == list(range(len(done)))


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many layers of 4 MB in float32, a small vocabulary."""
    folder = tmp_path_factory.mktemp("deep")
    config = transformers.LlamaConfig(
        hidden_size=WIDE, intermediate_size=4 * WIDE, num_hidden_layers=LAYERS, vocab_size=51,
        num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    with torch.device("meta"):
        hollow = transformers.LlamaForCausalLM(config)
    tensors = {
        name: torch.full(tensor.shape, 0.01, dtype=torch.bfloat16)
        for name, tensor in hollow.state_dict().items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    return folder


def growth(work: Callable[[], object]) -> int:
    """Bytes by which this process was larger at its peak than when the work began.

    What earlier tests left to the allocator goes back first: work that is done in it would be
    invisible. From then on tensors come straight from the system and go back to it.
    """
    gc.collect()
    system = ctypes.CDLL(None)
    system.malloc_trim(0)
    system.mallopt(M_MMAP_THRESHOLD, 1 << 16)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is forgotten
    before = _resident("VmRSS")
    work()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if field in line]
    return int(line.split()[1]) * 1024


def test_memory_holds_one_layer_whatever_the_depth(deep: Path) -> None:
    layer = (4 + 3 * 4) * WIDE * WIDE * 4
    all_layers = LAYERS * layer
    by_layers(deep, torch.float32)  # what is imported on the first run is no part of it
    small = growth(lambda: by_layers(deep, torch.float32))
    large = growth(lambda: at_once(deep, torch.float32))

    assert all_layers == 96 * MB
    assert small < all_layers / 2
    assert large > all_layers  # the control: the whole model is seen, and what it is read from


def logits_of(target: Path, source: Path) -> ropeconv.Verdict:
    return ropeconv.verify(target, source, said=said_of(source.name), layers=[],
                           logits=LogitsRequest())  # fmt: skip


@pytest.mark.parametrize("name", ["llama", "llama-tied"])
def test_right_conversion_speaks_alike_and_a_wrong_theta_does_not(
    tmp_path: Path, converted: Callable[[str], Path], name: str
) -> None:
    right = logits_of(converted(name), SMALL / name).logits
    wrong = shutil.copytree(converted(name), tmp_path / "wrong")
    config = json.loads((wrong / "config.json").read_text())
    for place in (config, config.get("rope_parameters") or {}):
        place["rope_theta"] = 123.0
    (wrong / "config.json").write_text(json.dumps(config))
    other = logits_of(wrong, SMALL / name).logits

    assert right is not None
    assert right.outcome is ropeconv.Outcome.SAME
    assert 0 < right.rms_error <= right.bound
    assert (right.source_runtime, right.target_runtime) == ("plain Meta form", "transformers")
    assert other is not None
    assert other.outcome is ropeconv.Outcome.DIFFERENT
    assert other.rms_error > 100 * other.bound


def test_weights_of_nan_say_nothing(converted: Callable[[str], Path]) -> None:
    found = logits_of(converted("llama-odd-bits"), SMALL / "llama-odd-bits").logits

    assert found is not None
    assert found.outcome is ropeconv.Outcome.INCONCLUSIVE


@pytest.mark.peer
@pytest.mark.parametrize("name", ["deepseek_v3", "youtu"])
def test_family_with_a_switch_runs_in_both_layouts(tmp_path: Path, name: str) -> None:
    """DeepSeek's experts are joined as they are loaded: it runs at once; Youtu layer by layer."""
    source, moved, wrong = (tmp_path / at for at in ("source", "moved", "wrong"))
    random_model(name, {}).save_pretrained(source)
    relayout(source, moved, other_layout(name))
    shutil.copytree(source, wrong)
    shutil.copy(moved / "config.json", wrong)  # the switch says moved, the rows are not

    right = logits_of(moved, source).logits
    assert right is not None
    assert right.outcome is ropeconv.Outcome.SAME, right
    found = logits_of(wrong, source).logits
    assert found is not None
    assert found.outcome is ropeconv.Outcome.DIFFERENT
    assert found.rms_error > 100 * found.bound


@pytest.mark.peer
def test_family_without_a_switch_runs_in_its_own_layout_only(tmp_path: Path) -> None:
    source, moved = tmp_path / "source", tmp_path / "moved"
    random_model("qwen3", {}).save_pretrained(source)
    relayout(source, moved, INTERLEAVED)

    found = logits_of(source, source).logits
    assert found is not None
    assert found.outcome is ropeconv.Outcome.SAME
    with pytest.raises(Unsupported, match="cannot be run as a whole") as refused:
        logits_of(moved, source)
    assert "rotates half-split pairs" in refused.value.why
    assert "has no switch" in refused.value.why


@pytest.mark.peer
def test_model_that_runs_at_once_only_and_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_model("deepseek_v3", {}).save_pretrained(tmp_path / "source")
    monkeypatch.setattr(runtimes, "free_memory", lambda: 1000)

    with pytest.raises(Unsupported, match="1000 are free") as refused:
        logits_of(tmp_path / "source", tmp_path / "source")
    assert "cannot be read one by one" in refused.value.why


def test_text_that_cannot_be_tokens_is_refused_before_anything_is_read(
    converted: Callable[[str], Path],
) -> None:
    heard: list[Event] = []
    with pytest.raises(UsageError, match="cannot be turned into tokens"):
        ropeconv.verify(
            converted("llama"), SMALL / "llama", logits=LogitsRequest(text=Path(__file__)),
            listen=heard.append,
        )  # fmt: skip

    assert heard == []


def test_code_beside_a_checkpoint_is_not_run(
    tmp_path: Path, converted: Callable[[str], Path]
) -> None:
    target = shutil.copytree(converted("llama"), tmp_path / "target")
    config = json.loads((target / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.EvilConfig"}
    (target / "config.json").write_text(json.dumps(config))
    (target / "evil.py").write_text("raise SystemExit('this code must not run')\n")

    found = logits_of(target, SMALL / "llama").logits
    assert found is not None
    assert found.outcome is ropeconv.Outcome.SAME
