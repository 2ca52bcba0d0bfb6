"""Files from which a projection, or a whole layer of one of several stacks, is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from ropeconv.cli.app import app
from ropeconv.formats import hf
from ropeconv.thinking.inventory import take_stock
from ropeconv.words.errors import Contradiction, IncompleteSource, Refused, RopeconvError

HIDDEN, HEADS = 60, 6
SIZES = {"hidden_size": HIDDEN, "num_attention_heads": HEADS, "num_hidden_layers": 2}
# names of one layer's attention, with their rows
APART = {"q_proj": 60, "k_proj": 60, "v_proj": 60, "o_proj": 60}
NOMIC = {"attn.Wqkv": 180, "attn.out_proj": 60}
MOONSHINE = SIZES | {
    "model_type": "moonshine",
    "encoder_num_attention_heads": HEADS,
    "decoder_num_attention_heads": HEADS,
    "encoder_num_hidden_layers": 2,
    "decoder_num_hidden_layers": 2,
}
DEPTH = {"hidden_size": HIDDEN, "num_attention_heads": 3, "num_hidden_layers": 2}
CSM = SIZES | {"model_type": "csm", "depth_decoder_config": DEPTH}
NEW = {
    "nomic_bert": SIZES | {"model_type": "nomic_bert"},
    "gte": SIZES | {"model_type": "gte"},
    "moonshine": MOONSHINE,
    "csm": CSM,
}


def names(start: str, within: dict[str, int], layers: int = 2) -> Iterator[tuple[str, int]]:
    for layer in range(layers):
        for name, rows in within.items():
            yield f"{start}{layer}.{name}.weight", rows


def attention(at: str) -> dict[str, int]:
    return {f"{at}.{name}": rows for name, rows in APART.items()}


WHOLE = {
    "nomic_bert": dict(names("encoder.layers.", NOMIC)),
    "gte": dict(names("model.layers.", attention("self_attn"))),
    "moonshine": {
        **dict(names("model.encoder.layers.", attention("self_attn"))),
        **dict(names("model.decoder.layers.", attention("self_attn"))),
    },
    "csm": {
        **dict(names("backbone_model.layers.", attention("self_attn"))),
        **dict(names("depth_decoder.model.layers.", attention("self_attn"))),
        **dict(names("codec_model.encoder_transformer.layers.", attention("self_attn"))),
    },
}


def stock(folder: Path, name: str, without: str = "", **changed: Any) -> None:
    """Take stock of a model without the tensors whose names begin so."""
    folder.mkdir()
    kept = {key for key in WHOLE[name] if not (without and key.startswith(without))}
    tensors = {key: np.ones((WHOLE[name][key], HIDDEN), np.float32) for key in kept}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(NEW[name] | changed))
    take_stock(hf.discover(folder))


@pytest.mark.parametrize("name", WHOLE)
def test_model_when_it_is_whole_then_read(tmp_path: Path, name: str) -> None:
    stock(tmp_path / "model", name)


@pytest.mark.parametrize(
    ("name", "without", "said"),
    [
        ("nomic_bert", "encoder.layers.1.attn.Wqkv", "`encoder.layers.1` of"),
        ("gte", "model.layers.1.self_attn.k", "has `model.layers.1.self_attn.q_proj.weight` and"),
        ("gte", "model.layers.0.self_attn.q", "has `model.layers.0.self_attn.k_proj.weight` and"),
        ("moonshine", "model.encoder.layers.0.self_attn.q_proj", "layer 0 of"),
        ("moonshine", "model.decoder.layers.1.self_attn.k_proj", "layer 1 of"),
        ("csm", "backbone_model.layers.1.", "layer 1 is missing"),
        ("csm", "depth_decoder.model.layers.1.", "layer 1 of"),
        ("csm", "depth_decoder.", "layer 0 of"),
    ],
)
def test_model_when_something_is_missing_then_refused(
    tmp_path: Path, name: str, without: str, said: str
) -> None:
    with pytest.raises(IncompleteSource) as caught:
        stock(tmp_path / "model", name, without)

    assert said in caught.value.what


@pytest.mark.parametrize(
    ("name", "changed", "error"),
    [
        ("csm", {"depth_decoder_config": DEPTH | {"num_hidden_layers": 1}}, Contradiction),
        ("csm", {"depth_decoder_config": DEPTH | {"num_hidden_layers": None}}, Refused),
        ("moonshine", {"encoder_num_attention_heads": 3}, Refused),
    ],
)
def test_stacks_when_the_config_says_other_sizes_then_refused(
    tmp_path: Path, name: str, changed: dict[str, Any], error: type[RopeconvError]
) -> None:
    with pytest.raises(error):
        stock(tmp_path / "model", name, **changed)


def test_inspect_when_the_config_states_no_vocabulary_then_none_is_said(tmp_path: Path) -> None:
    stock(tmp_path / "model", "nomic_bert")
    said = CliRunner().invoke(app, ["inspect", "--no-look", str(tmp_path / "model")]).stdout

    assert "hidden 60\n" in said
    assert "vocabulary" not in said
