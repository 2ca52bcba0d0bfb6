"""What is stated of released models: sparse files of their true shapes, with params as shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ropeconv import HfOptions, MetaOptions, RopeconvError, Said
from ropeconv.formats.meta import feed_forward_width, width_rule
from ropeconv.formats.new_file import NewTensor
from ropeconv.formats.torch_zip_writer import new_torch_zip
from ropeconv.story.conversion import plan_conversion
from ropeconv.words.dtypes import DType
from ropeconv.words.errors import NotSaid


def released(
    folder: Path, *, shape: tuple[int, int, int, int], width: int, vocab: int, tied: bool = False,
    head_dim: int | None = None, **params: Any,
) -> Path:  # fmt: skip
    """A model of that dim, layers, heads, kv heads; all weights zero, the file without blocks."""
    dim, layers, heads, kv_heads = shape
    size = head_dim or dim // heads
    layer = {
        "attention.wq": (heads * size, dim), "attention.wk": (kv_heads * size, dim),
        "attention.wv": (kv_heads * size, dim), "attention.wo": (dim, heads * size),
        "feed_forward.w1": (width, dim), "feed_forward.w2": (dim, width),
        "feed_forward.w3": (width, dim), "attention_norm": (dim,), "ffn_norm": (dim,),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {
        "tok_embeddings.weight": (vocab, dim), "norm.weight": (dim,), "output.weight": (vocab, dim),
    }  # fmt: skip
    shapes |= {f"layers.{n}.{k}.weight": v for n in range(layers) for k, v in layer.items()}
    new = [NewTensor(name=k, dtype=DType.BF16, shape=v) for k, v in shapes.items()]
    file = new_torch_zip("consolidated.00", new, {})
    folder.mkdir()
    with (folder / "consolidated.00.pth").open("wb") as handle:
        handle.truncate(file.nbytes)
        for part in file.fixed:
            handle.seek(part.offset)
            handle.write(part.data)
        if not tied:
            handle.seek(file.offsets["output.weight"])
            handle.write(b"\x01")
    params = {"dim": dim, "n_layers": layers, "n_heads": heads, "n_kv_heads": kv_heads} | params
    params = {key: value for key, value in params.items() if value is not ...}
    (folder / "params.json").write_text(json.dumps(params))
    return folder


LLAMA_3 = {"vocab_size": 128256, "norm_eps": 1e-5, "rope_theta": 500000.0}
SCALED = LLAMA_3 | {"use_scaled_rope": True}
LLAMA_1 = {"vocab_size": -1, "norm_eps": 1e-6, "multiple_of": 256, "n_kv_heads": ...}
NATIVE = {"norm_eps": 1e-5, "head_dim": 128, "hidden_dim": 14336, "vocab_size": 32000}
SMALL_7B = {"shape": (4096, 32, 32, 32), "width": 11008, "vocab": 32000}
MISTRAL = {"shape": (4096, 32, 32, 8), "width": 14336, "vocab": 32000}

MODELS = {
    # params as shipped -> theta, factor, positions, bos, eos, tied
    "llama-1-7b": (SMALL_7B | LLAMA_1, (1e4, None, 2048, 1, 2, False)),
    "llama-2-7b": (
        SMALL_7B | LLAMA_1 | {"norm_eps": 1e-5},
        (1e4, None, 4096, 1, 2, False),
    ),
    "llama-2-7b-null-heads": (
        SMALL_7B | LLAMA_1 | {"norm_eps": 1e-5, "n_kv_heads": None, "ffn_dim_multiplier": None},
        (1e4, None, 4096, 1, 2, False),
    ),
    "codellama-7b": (
        SMALL_7B | LLAMA_1 | {"norm_eps": 1e-5, "rope_theta": 1000000.0, "vocab": 32016},
        (1e6, None, 16384, 1, 2, False),
    ),
    "llama-3-8b": (
        {"shape": (4096, 32, 32, 8), "width": 14336, "vocab": 128256, "multiple_of": 1024,
         "ffn_dim_multiplier": 1.3} | LLAMA_3,
        (5e5, None, 8192, 128000, 128001, False),
    ),
    "llama-3-8b-without-theta": (
        {"shape": (4096, 32, 32, 8), "width": 14336, "vocab": 128256}
        | LLAMA_3 | {"rope_theta": ...},
        (5e5, None, 8192, 128000, 128001, False),
    ),
    "llama-3.1-8b": (
        {"shape": (4096, 32, 32, 8), "width": 14336, "vocab": 128256} | SCALED,
        (5e5, 8.0, 131072, 128000, 128001, False),
    ),
    "llama-3.1-70b": (
        {"shape": (8192, 80, 64, 8), "width": 28672, "vocab": 128256} | SCALED,
        (5e5, 8.0, 131072, 128000, 128001, False),
    ),
    "llama-3.2-1b": (
        {"shape": (2048, 16, 32, 8), "width": 8192, "vocab": 2500, "tied": True}
        | SCALED | {"vocab_size": 2500},
        None,  # the released shape, but not the released vocabulary: its factor is not known
    ),
    "mistral-v0.1": (
        MISTRAL | NATIVE | {"sliding_window": 4096},
        (1e4, None, 32768, 1, 2, False),
    ),
    "mistral-v0.2": (MISTRAL | NATIVE, (1e6, None, 32768, 1, 2, False)),
    "mistral-v0.2-says": (MISTRAL | NATIVE | {"rope_theta": 1e6}, (1e6, None, 32768, 1, 2, False)),
    "mistral-nemo": (
        {"shape": (5120, 40, 32, 8), "width": 14336, "vocab": 131072} | NATIVE
        | {"vocab_size": 131072, "rope_theta": 1e6, "max_seq_len": 128000},
        (1e6, None, 128000, None, None, False),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_config_of_a_released_model_is_what_its_publisher_says(tmp_path: Path, name: str) -> None:
    params, expected = MODELS[name]
    folder = released(tmp_path / name, **params)
    if expected is None:
        with pytest.raises(NotSaid, match="not by which factor"):
            plan_conversion(folder, HfOptions())
        return
    plan = plan_conversion(folder, HfOptions())
    config = json.loads(next(f.text for f in plan.small_files if f.name == "config.json"))
    scaling = config["rope_scaling"] or {"factor": None}
    dim, layers, heads, kv_heads = params["shape"]

    assert (
        config["rope_theta"], scaling["factor"], config["max_position_embeddings"],
        config["bos_token_id"], config["eos_token_id"], config["tie_word_embeddings"],
    ) == expected  # fmt: skip
    assert (
        config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"],
        config["num_key_value_heads"], config["vocab_size"], config["intermediate_size"],
    ) == (dim, layers, heads, kv_heads, params["vocab"], params["width"])  # fmt: skip
    assert config["head_dim"] == params.get("head_dim", dim // heads)
    assert config["model_type"] == name.partition("-")[0].removeprefix("code")
    assert config.get("sliding_window") == params.get("sliding_window")
    assert plan.num_reordered == 2 * layers


@pytest.mark.parametrize(
    ("shape", "factor"), [((2048, 16, 32, 8), 32.0), ((3072, 28, 24, 8), 32.0)]
)
def test_factor_of_llama_3_2_is_inferred_by_shape_and_said(
    tmp_path: Path, shape: tuple[int, int, int, int], factor: float
) -> None:
    """8 and 32 differ in the slow half of the frequencies, which no demo shows."""
    folder = released(tmp_path / "m", shape=shape, width=8192, vocab=128256, **SCALED)
    plan = plan_conversion(folder, HfOptions())
    config = json.loads(next(f.text for f in plan.small_files if f.name == "config.json"))

    assert config["rope_scaling"]["factor"] == config["rope_parameters"]["factor"] == factor
    assert any("factor is 32" in note.text and note.kind == "inferred" for note in plan.notes)


def test_factor_that_is_said_wins_over_the_table(tmp_path: Path) -> None:
    folder = released(tmp_path / "m", shape=(2048, 16, 32, 8), width=8192, vocab=128256, **SCALED)
    plan = plan_conversion(folder, HfOptions(), said=Said(rope_factor=16.0))

    assert plan.model.rope.scaling.factor == 16.0  # type: ignore[union-attr]


def test_width_that_the_formula_denies_is_taken_from_the_shape_and_said(tmp_path: Path) -> None:
    folder = released(
        tmp_path / "m", shape=(40, 2, 4, 2), width=64, vocab=51, norm_eps=1e-5, multiple_of=256
    )
    plan = plan_conversion(folder, HfOptions())
    (note,) = [note for note in plan.notes if "intermediate size" in note.text]

    assert plan.model.geometry.intermediate_size == 64
    assert note.kind == "repaired"
    assert note.text.startswith("the intermediate size is 64 by shape; the formula of `")
    assert note.text.endswith("gives 256")


@pytest.mark.parametrize(
    ("dim", "multiple", "multiplier", "width"),
    [
        (4096, 256, None, 11008), (5120, 256, None, 13824), (6656, 256, None, 17920),
        (8192, 256, None, 22016), (8192, 4096, 1.3, 28672), (4096, 1024, 1.3, 14336),
        (16384, 4096, 1.2, 53248), (2048, 256, 1.5, 8192), (3072, 256, 1.0, 8192),
    ],
)  # fmt: skip
def test_width_of_released_models_follows_from_the_formula_and_back(
    dim: int, multiple: int, multiplier: float | None, width: int
) -> None:
    rule = width_rule(dim, width, None)

    assert feed_forward_width(dim, multiple, multiplier) == width
    assert feed_forward_width(dim, *rule) == width


@pytest.mark.parametrize("dim", [44, 60, 96, 192, 320, 4096])
def test_width_rule_gives_back_any_width(dim: int) -> None:
    wrong = [
        width for width in range(1, 6 * dim)
        if feed_forward_width(dim, *width_rule(dim, width, None)) != width
    ]  # fmt: skip

    assert wrong == []


def hf_config(**changes: Any) -> dict[str, Any]:
    config = {
        "model_type": "llama", "hidden_size": 60, "num_hidden_layers": 2, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 10, "intermediate_size": 48, "vocab_size": 51,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 999, "rope_theta": 10000.0,
    } | changes  # fmt: skip
    return {key: value for key, value in config.items() if value is not ...}


LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


@pytest.mark.parametrize(
    ("why", "changes", "code"),
    [
        ("two thetas", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
         "contradiction"),
        ("two scalings", {"rope_scaling": LLAMA3, "rope_parameters": {"rope_type": "default"}},
         "contradiction"),
        ("two factors", {"rope_scaling": LLAMA3, "rope_parameters": LLAMA3 | {"factor": 32.0}},
         "contradiction"),
        ("old keys alone", {"rope_scaling": {"type": "llama3"} | LLAMA3}, ""),
        ("new keys alone", {"rope_theta": ..., "rope_parameters": LLAMA3 | {"rope_theta": 5e5}},
         ""),
        ("both alike",
         {"rope_scaling": LLAMA3, "rope_parameters": LLAMA3 | {"rope_theta": 1e4}}, ""),
        ("for each kind of layer",
         {"rope_parameters": {"full": {"rope_theta": 1e4}, "sliding": {"rope_theta": 1e6}}},
         "unsupported"),
        ("yarn", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "unsupported"),
        ("linear", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "unsupported"),
        ("another length", {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 4096}},
         "unsupported"),
        ("unknown type", {"rope_scaling": {"rope_type": "spiral"}}, "unsupported"),
        ("window", {"sliding_window": 16}, "unsupported"),
        ("no epsilon", {"rms_norm_eps": ...}, "not-said"),
        ("no heads", {"num_attention_heads": ..., "head_dim": ...}, "not-said"),
        ("other heads", {"num_attention_heads": 5}, "contradiction"),
        ("other kv heads", {"num_key_value_heads": 1}, "contradiction"),
        ("other head_dim", {"head_dim": 20}, "contradiction"),
        ("other hidden size", {"hidden_size": 64}, "contradiction"),
        ("other width", {"intermediate_size": 64}, "contradiction"),
        ("other vocabulary", {"vocab_size": 52}, "contradiction"),
        ("more layers", {"num_hidden_layers": 3}, "source-incomplete"),
        ("fewer layers", {"num_hidden_layers": 1}, "contradiction"),
        ("claims a tie that is none", {"tie_word_embeddings": True}, "contradiction"),
        ("another family", {"model_type": "no_such_model"}, "unsupported"),
        ("no family", {"model_type": ...}, "file-broken"),
        ("partial rotary", {"partial_rotary_factor": 0.5}, "unsupported"),
        ("another activation", {"hidden_act": "gelu"}, "unsupported"),
    ],
)  # fmt: skip
def test_config_is_understood_or_refused_by_a_code(
    tmp_path: Path, converted: Any, why: str, changes: dict[str, Any], code: str
) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(converted("llama") / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(hf_config(**changes)))
    if not code:
        plan = plan_conversion(folder, MetaOptions())
        text = next(file.text for file in plan.small_files if file.name == "params.json")

        assert json.loads(text)["use_scaled_rope"] is True
        return

    with pytest.raises(RopeconvError) as caught:
        plan_conversion(folder, MetaOptions())
    assert caught.value.code == code, (why, caught.value)
