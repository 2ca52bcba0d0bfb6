"""Models of vision and language: the language model moves, towers stay, the whole computes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from ropeconv.formats import hf
from ropeconv.proof.tiny_models import tiny_config
from ropeconv.story.relayout import relayout
from ropeconv.thinking.inventory import take_stock
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED
from tests.families.cases import TOKENS, difference
from tests.families.swap import rotating

pytestmark = pytest.mark.peer
transformers.logging.disable_progress_bar()

TOWER = {
    "hidden_size": 32, "embed_dim": 32, "num_hidden_layers": 2, "depth": 2,
    "num_attention_heads": 2, "num_heads": 2, "intermediate_size": 24, "image_size": 28,
    "patch_size": 14, "out_hidden_size": 60, "deepstack_visual_indexes": [0], "head_dim": 16,
}  # fmt: skip
LANGUAGE = {
    "aria": "aria_text",
    "aya_vision": "cohere2",
    "cohere_compass": "cohere_compass_text",
    "emu3": "emu3_text_model",
    "fuyu": "persimmon",
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_unified_text",
    "glm4v": "glm4v_text",
    "internvl": "qwen2",
    "llava": "llama",
    "mistral3": "mistral",
    "mllama": "mllama_text_model",
    "paligemma": "gemma",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen2_vl": "qwen2_vl_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
    "qwen4_exp": "qwen4_exp_text",
    "smolvlm": "llama",
}
# parts beside the language model, where they are not one tower for images
OTHER_PARTS: dict[str, dict[str, Any]] = {
    "emu3": {"vq_config": {"base_channels": 32, "channel_multiplier": [1], "num_res_blocks": 1,
                           "attn_resolutions": [], "codebook_size": 8},
             "vocabulary_map": {"<|extra_200|>": 1, "<image>": 2, "<|visual token 000000|>": 3}},
    "fuyu": {"patch_size": 2},
    "gemma4": {},
    "gemma4_unified": {},
}  # fmt: skip


def _tiny(name: str) -> Any:
    kind = transformers.CONFIG_MAPPING[name]
    parts = OTHER_PARTS.get(name)
    if parts is None:
        tower = kind().vision_config.to_dict()
        parts = {"vision_config": {key: TOWER.get(key, value) for key, value in tower.items()}}
    config = kind(text_config=tiny_config(LANGUAGE[name]).to_dict(), **parts)
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(
        config, attn_implementation="eager", experts_implementation="eager"
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (parameter.ndim == 1))
    return model.eval()


def _logits(kind: Any, folder: Path, other: Any) -> torch.Tensor:
    model = kind.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    inner = model.model
    language = getattr(inner, "language_model", None) or inner.text_model
    with torch.no_grad():
        if other is None:
            return model(input_ids=TOKENS, use_cache=False).logits
        with rotating(language, other):
            return model(input_ids=TOKENS, use_cache=False).logits


@pytest.mark.parametrize("name", sorted(LANGUAGE))
def test_language_model_when_moved_then_whole_computes_the_same(tmp_path: Path, name: str) -> None:
    model = _tiny(name)
    model.save_pretrained(tmp_path / "source")
    native = take_stock(hf.discover(tmp_path / "source")).layout
    other = HALF_SPLIT if native == INTERLEAVED else INTERLEAVED
    relayout(tmp_path / "source", tmp_path / "moved", other)
    expected = _logits(type(model), tmp_path / "source", None)
    actual = _logits(type(model), tmp_path / "moved", other)
    control = _logits(type(model), tmp_path / "moved", None)

    assert difference(expected, actual) <= 3e-6
    assert difference(expected, control) >= 1e-2

    source, moved = (load_file(tmp_path / at / "model.safetensors") for at in ("source", "moved"))
    changed = [key for key in source if not source[key].equal(moved[key])]
    assert changed
    assert not [key for key in changed if "vision" in key or "visual" in key]
