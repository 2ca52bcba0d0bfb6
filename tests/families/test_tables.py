"""What the tables refuse and what they say, on files made by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ropeconv import Outcome, verify
from ropeconv.formats import hf
from ropeconv.knowledge.described import read_description
from ropeconv.knowledge.families.refused import REFUSED
from ropeconv.knowledge.family import parse_rows
from ropeconv.knowledge.formula import evaluate, solve
from ropeconv.knowledge.registry import FAMILIES, find_family
from ropeconv.story.explanation import explain
from ropeconv.story.families import list_families
from ropeconv.story.inspection import inspect
from ropeconv.story.relayout import relayout, relayout_in_place
from ropeconv.thinking.family_model import switched
from ropeconv.thinking.inventory import take_stock
from ropeconv.words.errors import (
    Contradiction,
    IncompleteSource,
    NotSaid,
    RopeconvError,
    Unsupported,
    UsageError,
)
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED

AT = "model.layers.0.self_attn."
CONFIG: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 60,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "num_hidden_layers": 1,
    "vocab_size": 3,
}
SHAPES = {
    "model.embed_tokens.weight": (3, 60),
    AT + "q_proj.weight": (60, 60),
    AT + "k_proj.weight": (20, 60),
    AT + "v_proj.weight": (20, 60),
    AT + "o_proj.weight": (60, 60),
    AT + "q_norm.weight": (10,),
    AT + "k_norm.weight": (10,),
    "model.layers.0.mlp.up_proj.weight": (7, 60),
    "model.norm.weight": (60,),
}


def _numbered(shape: tuple[int, ...]) -> Tensor:
    """Each row carries its own number."""
    return torch.arange(shape[0], dtype=torch.float32).reshape(-1, *[1] * (len(shape) - 1)).expand(
        shape
    ).contiguous()  # fmt: skip


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    def make(config: dict[str, Any] | None = None, **shapes: tuple[int, ...] | None) -> Path:
        folder = tmp_path / "model"
        folder.mkdir()
        chosen = {**SHAPES, **{name.replace("__", "."): shape for name, shape in shapes.items()}}
        tensors = {name: _numbered(shape) for name, shape in chosen.items() if shape}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
        return folder

    return make


def _refusal(folder: Path, kind: type[RopeconvError]) -> RopeconvError:
    with pytest.raises(kind) as raised:
        take_stock(hf.discover(folder))
    return raised.value


def test_rows_when_moved_then_companions_follow_and_the_rest_stays(
    made: Callable[..., Path], tmp_path: Path
) -> None:
    """The order is anchored on the formula: row 2p + c of a head comes from row c * 5 + p."""
    folder = made(**{AT.replace(".", "__") + "k_proj__bias": (20,)})
    relayout(folder, tmp_path / "moved", INTERLEAVED)
    moved = load_file(tmp_path / "moved" / "model.safetensors")
    head = [0, 5, 1, 6, 2, 7, 3, 8, 4, 9]

    assert moved[AT + "q_norm.weight"].tolist() == head
    assert moved[AT + "k_norm.weight"].tolist() == head
    assert moved[AT + "k_proj.bias"].tolist() == [*head, *(10 + row for row in head)]
    assert moved[AT + "k_proj.weight"][:, 0].tolist() == [*head, *(10 + row for row in head)]
    assert moved[AT + "q_proj.weight"][20:30, 3].tolist() == [20 + row for row in head]
    for name, shape in SHAPES.items():
        if "q_" not in name and "k_" not in name:
            assert moved[name].equal(_numbered(shape)), name


@pytest.mark.parametrize(
    "name",
    [
        AT + "q_proj.lora_B.weight",
        AT + "q_proj.weight_norm",
        AT + "strange_proj.weight_scale",
        AT + "rel_pos.weight",
        "model.layers.0.cross_attn.q_proj.weight",
        "prefix.model.norm.weight",
    ],
)
def test_tensor_when_unknown_then_refused_by_name(made: Callable[..., Path], name: str) -> None:
    error = _refusal(made(**{name.replace(".", "__"): (60,)}), Unsupported)

    assert name in error.what


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"num_attention_heads": 10, "head_dim": 10}, AT + "q_proj.weight"),
        ({"num_key_value_heads": 3}, AT + "k_proj.weight"),
        ({"num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 5}, "rotated"),
        ({"head_dim": 20, "num_attention_heads": 3, "num_key_value_heads": 1}, "_norm.weight"),
    ],
)
def test_heads_when_contradictory_then_refused_by_name(
    made: Callable[..., Path], changed: dict[str, Any], named: str
) -> None:
    error = _refusal(made(changed), Contradiction)

    assert named in str(error)


def test_heads_when_not_stated_then_not_guessed(made: Callable[..., Path]) -> None:
    error = _refusal(made({"num_attention_heads": None}), NotSaid)

    assert "size H" in error.what


@pytest.mark.parametrize("missing", ["q_proj", "k_proj"])
def test_layer_when_a_projection_is_missing_then_refused(
    made: Callable[..., Path], missing: str
) -> None:
    error = _refusal(made(**{f"{AT}{missing}.weight".replace(".", "__"): None}), IncompleteSource)

    assert f"{missing}" in error.what


SLIDING = "theta 10000, scaling none in sliding attention"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rope_theta": 5e5}, "theta 500000, scaling none"),
        ({"rope_parameters": {"rope_theta": 2e4, "rope_type": "yarn", "factor": 4}},
         "theta 20000, scaling yarn"),
        ({"rope_theta": 1e6, "rope_local_base_freq": 1e4},
         "theta 1e+06, scaling none in full attention; " + SLIDING),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6, "rope_type": "proportional"},
                              "sliding_attention": {"rope_theta": 1e4}}},
         "theta 1e+06, scaling proportional in full attention; " + SLIDING),
        ({}, "theta not stated, scaling none"),
        ({"rope_theta": "ten", "rope_scaling": [4]}, "theta not stated, scaling none"),
    ],
)  # fmt: skip
def test_inspection_when_config_states_theta_then_told(
    made: Callable[..., Path], changed: dict[str, Any], said: str
) -> None:
    assert inspect(made(changed)).rotation == said


def test_layer_when_missing_then_refused(made: Callable[..., Path]) -> None:
    assert "layer 1" in _refusal(made({"num_hidden_layers": 2}), IncompleteSource).what


def test_part_of_head_when_family_rotates_all_then_refused(made: Callable[..., Path]) -> None:
    _refusal(made({"partial_rotary_factor": 0.5}), Unsupported)


@pytest.mark.parametrize(
    ("name", "word"),
    [("bloom", "ALiBi"), ("mpt", "ALiBi"), ("gpt2", "learned"), ("jamba", "rotates nothing"),
     ("vjepa2", "different angles"), ("nanochat", "opposite direction")],
)  # fmt: skip
def test_type_when_refused_then_reason_is_its_own(
    made: Callable[..., Path], name: str, word: str
) -> None:
    error = _refusal(made({"model_type": name}), Unsupported)

    assert word in error.why


def test_falcon_when_alibi_then_refused(made: Callable[..., Path]) -> None:
    error = _refusal(made({"model_type": "falcon", "alibi": True}), Unsupported)

    assert "ALiBi" in error.why


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"model_type": "minimax_m3_vl_text", "rotary_dim": 6}, "different rows"),
        ({"model_type": "youtu_llm", "rope_interleave": False}, "half-split rows"),
    ],
)
def test_setting_when_programs_read_it_differently_then_refused(
    made: Callable[..., Path], config: dict[str, Any], word: str
) -> None:
    error = _refusal(made(config), Unsupported)

    assert word in error.why


def test_type_when_unknown_then_similar_names_are_no_answer() -> None:
    with pytest.raises(Unsupported, match="no table for") as raised:
        find_family("glm4_mo", "config.json")

    assert "glm4_moe" in raised.value.why


def test_switch_when_in_config_then_in_place_is_refused(
    made: Callable[..., Path],
) -> None:
    shapes: dict[str, tuple[int, ...] | None] = {name: None for name in SHAPES if AT in name}
    shapes |= {AT + "q_proj.weight": (60, 60), AT + "kv_a_proj_with_mqa.weight": (20, 60)}
    config = {
        "model_type": "deepseek_v3", "qk_nope_head_dim": 4, "qk_rope_head_dim": 6,
        "kv_lora_rank": 14,
    }  # fmt: skip
    folder = made(config, **{name.replace(".", "__"): shape for name, shape in shapes.items()})

    with pytest.raises(Unsupported, match="in place"):
        relayout_in_place(folder, HALF_SPLIT)


def test_switch_when_set_then_said_whom_it_does_not_reach(
    made: Callable[..., Path], tmp_path: Path
) -> None:
    """DeepSeek V3 in vLLM and mlx-lm does not read it, and would run these rows."""
    done = relayout(_latent(made, 128, 64, (9, 1)), tmp_path / "moved", HALF_SPLIT)
    back = relayout(tmp_path / "moved", tmp_path / "back", INTERLEAVED)
    notes, notes_back = (
        [note.text for note in one.plan.notes if note.kind == "runtime"] for one in (done, back)
    )

    assert "is false in config.json" in notes[0]
    assert "that do not read it" in notes[0]
    assert "is true in config.json" in notes_back[0]
    assert "that do not read it" not in notes_back[0]


@pytest.mark.parametrize("text", ['{"a": 1}', '{\n  "a": 1\n}\n'])
def test_switch_when_absent_then_added(text: str) -> None:
    assert json.loads(switched(text, "rope_interleave", "false")) == {
        "a": 1,
        "rope_interleave": False,
    }


def test_every_family_when_explained_then_says_what_moves() -> None:
    for line in list_families():
        found = explain(line.name)

        assert found.moves or FAMILIES[line.name].inner
        assert found.stays
        assert all(entry.why for entry in (*found.moves, *found.stays))
        for rule in FAMILIES[line.name].rules:
            sizes = dict.fromkeys([letter for letter, _ in found.sizes] or "CFVDHK", 8)
            assert not rule.rotates or parse_rows(re.sub(r" - r\w*", "", rule.rows), sizes)


def test_names_when_refused_then_not_in_table() -> None:
    assert not set(REFUSED) & set(FAMILIES)


def test_name_when_unknown_then_explaining_is_refused() -> None:
    with pytest.raises(UsageError, match="no table knows"):
        explain("lama")


def test_layer_of_further_tokens_when_beside_the_model_then_moves_too(
    made: Callable[..., Path], tmp_path: Path
) -> None:
    """Qwen 3 Next's `mtp`: transformers leaves it out, runtimes that guess ahead do not."""
    further = "mtp.layers.0.self_attn."
    shapes = {AT + "q_proj.weight": (120, 60), further + "q_proj.weight": (120, 60),
              further + "k_proj.weight": (20, 60), further + "k_norm.weight": (10,),
              "mtp.fc.weight": (60, 120), "mtp.norm.weight": (60,)}  # fmt: skip
    config = {"model_type": "qwen3_next", "partial_rotary_factor": 0.6}
    folder = made(config, **{name.replace(".", "__"): shape for name, shape in shapes.items()})
    relayout(folder, tmp_path / "moved", INTERLEAVED)
    moved = load_file(tmp_path / "moved" / "model.safetensors")
    head = [0, 3, 1, 4, 2, 5, 6, 7, 8, 9]

    assert moved[further + "k_proj.weight"][:10, 0].tolist() == head
    assert moved[further + "q_proj.weight"][20:30, 0].tolist() == [20 + row for row in head]
    assert moved[further + "k_norm.weight"].tolist() == head
    assert moved["mtp.fc.weight"].equal(_numbered((60, 120)))


def test_assistant_when_all_keys_are_the_target_models_then_queries_move(
    made: Callable[..., Path], tmp_path: Path
) -> None:
    """Layers that use another layer's keys have none of their own; here all do."""
    no_keys = {f"{AT}{name}.weight".replace(".", "__"): None for name in ("k_proj", "k_norm")}
    text = {**CONFIG, "model_type": "gemma4_text", "num_kv_shared_layers": 1,
            "layer_types": ["full_attention"], "global_head_dim": 10}  # fmt: skip
    config = {"model_type": "gemma4_assistant", "text_config": text}
    folder = made(config, pre_projection__weight=(60, 8), **no_keys)
    relayout(folder, tmp_path / "moved", INTERLEAVED)
    moved = load_file(tmp_path / "moved" / "model.safetensors")

    assert moved[AT + "q_proj.weight"][:4, 0].tolist() == [0, 5, 1, 6]
    assert moved["pre_projection.weight"].equal(_numbered((60, 8)))


DESCRIPTION = """
name = "new_model"
layout = "half-split"

[sizes]
H = "heads.count"

[[rows]]
name = "model.layers.{layer}.self_attn.{q_proj,k_proj}.weight"
rows = "Repeat(H, Rope(D))"
why = "rotated"

[[stays]]
name = "model.{embed_tokens,norm}.weight"
why = "not rotated"

[[stays]]
name = "model.layers.{layer}.{mlp.up_proj,self_attn.v_proj,self_attn.o_proj}.weight"
why = "not rotated"
"""
NEW = {"model_type": "new_model", "heads": {"count": 6}}
NO_NORMS = {f"{AT}{name}_norm.weight".replace(".", "__"): None for name in "qk"}


def test_described_family_when_shapes_fit_then_moved_and_recorded(
    made: Callable[..., Path], tmp_path: Path
) -> None:
    key = (AT + "k_proj.weight").replace(".", "__")
    folder = made(NEW, **NO_NORMS, **{key: (60, 60)})
    described = read_description(DESCRIPTION, "new.toml")
    relayout(folder, tmp_path / "moved", INTERLEAVED, described=described)
    moved = load_file(tmp_path / "moved" / "model.safetensors")

    assert moved[AT + "k_proj.weight"][:4, 0].tolist() == [0, 5, 1, 6]
    assert "by the user" in (tmp_path / "moved" / "ropeconv.json").read_text()


def test_described_family_when_a_layer_has_sizes_of_its_own_then_they_count(
    made: Callable[..., Path], tmp_path: Path
) -> None:
    key = (AT + "k_proj.weight").replace(".", "__")
    folder = made({**NEW, "wide": [12]}, **NO_NORMS, **{key: (60, 60)})
    text = DESCRIPTION.replace("[[rows]]", '[layer_sizes]\nH = "wide[layer] // 2"\n\n[[rows]]', 1)
    relayout(folder, tmp_path / "moved", INTERLEAVED, described=read_description(text, "new.toml"))
    wrong = read_description(text.replace("// 2", "// 3"), "new.toml")

    with pytest.raises(Contradiction, match=r"expected 40 rows"):
        take_stock(hf.discover(folder), described=wrong)


def test_described_family_when_shapes_do_not_fit_then_refused(
    made: Callable[..., Path], tmp_path: Path
) -> None:
    folder = made(NEW, **NO_NORMS)
    with pytest.raises(Contradiction, match=r"k_proj\.weight"):
        relayout(
            folder,
            tmp_path / "moved",
            INTERLEAVED,
            described=read_description(DESCRIPTION, "new.toml"),
        )


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('layout = "half-split"', 'layout = "neox"', "neox"),
        ('name = "new_model"', "", "no `name`"),
        ("[[rows]]", "[[row]]", "key `row`"),
        ("[sizes]", "[sizes", "no TOML"),
        ('why = "rotated"', 'because = "rotated"', "key `because`"),
        ('H = "heads.count"', 'H = "heads * ("', "is no formula"),
        ('why = "rotated"', 'why = "rotated"\nlayers = "layer <"', "is no formula"),
    ],
)
def test_description_when_wrong_then_refused(old: str, new: str, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        read_description(DESCRIPTION.replace(old, new, 1), "new.toml")


def test_description_when_type_has_a_table_then_refused(made: Callable[..., Path]) -> None:
    described = read_description(DESCRIPTION.replace("new_model", "qwen3"), "new.toml")
    with pytest.raises(UsageError, match="has a table"):
        take_stock(hf.discover(made()), described=described)


def test_formula_when_it_is_code_then_no_meaning() -> None:
    for text in ("__import__('os')", "a.b()", "lambda: 1", "[x for x in a]"):
        with pytest.raises(Contradiction):
            evaluate(text, {"a": {}})


def test_letters_when_they_need_each_other_then_solved_in_any_order() -> None:
    assert solve([("D", "C // H"), ("C", "c"), ("H", "h")], {"c": 60, "h": 6})["D"] == 10


def _latent(made: Callable[..., Path], nope: int, rope: int, scale: tuple[int, ...]) -> Path:
    shapes: dict[str, tuple[int, ...] | None] = {name: None for name in SHAPES if AT in name}
    shapes |= {
        AT + "q_proj.weight": (6 * (nope + rope), 60),
        AT + "q_proj.weight_scale_inv": scale,
        AT + "kv_a_proj_with_mqa.weight": (128 + rope, 60),
        AT + "o_proj.weight_scale_inv": (1, 1),
    }
    config = {
        "model_type": "deepseek_v3", "qk_nope_head_dim": nope, "qk_rope_head_dim": rope,
        "kv_lora_rank": 128, "quantization_config": {"weight_block_size": [128, 128]},
    }  # fmt: skip
    return made(config, **{name.replace(".", "__"): shape for name, shape in shapes.items()})


def test_block_scales_when_no_row_leaves_its_block_then_stay(made: Callable[..., Path]) -> None:
    """DeepSeek's own geometry, 128 + 64: a span starts at a multiple of 64."""
    inventory = take_stock(hf.discover(_latent(made, 128, 64, (9, 1))))

    assert inventory.layout == INTERLEAVED
    scales = [tensor for tensor in inventory.tensors if "scale" in tensor.name]
    assert len(scales) == 2
    assert not any(tensor.rule.rotates for tensor in scales)


def test_block_scales_when_of_a_language_model_then_the_whole_config_says_the_blocks(
    made: Callable[..., Path],
) -> None:
    at = "model.language_model.layers.0.self_attn."
    shapes: dict[str, tuple[int, ...] | None] = dict.fromkeys(SHAPES)
    shapes |= {at + "q_proj.weight": (768, 60), at + "q_proj.weight_scale_inv": (6, 1),
               at + "k_proj.weight": (256, 60), at + "k_proj.weight_scale_inv": (2, 1)}  # fmt: skip
    text = {**CONFIG, "model_type": "qwen3_vl_text", "head_dim": 128}
    config = {"model_type": "qwen3_vl", "text_config": text,
              "quantization_config": {"weight_block_size": [128, 128]}}  # fmt: skip
    folder = made(config, **{name.replace(".", "__"): shape for name, shape in shapes.items()})

    assert sum(t.rule.rotates for t in take_stock(hf.discover(folder)).tensors) == 2


@pytest.mark.parametrize(
    ("nope", "rope", "scale", "word"),
    [(128, 48, (9, 1), "leave the blocks"), (128, 64, (1152, 1), "expected 9 blocks")],
)
def test_block_scales_when_rows_leave_them_then_refused(
    made: Callable[..., Path], nope: int, rope: int, scale: tuple[int, ...], word: str
) -> None:
    assert word in _refusal(_latent(made, nope, rope, scale), Unsupported).what


PACKED = {AT + "k_proj.weight": None, AT + "k_proj.weight_packed": (20, 8)}


@pytest.mark.parametrize(
    "shapes",
    [
        {AT + "k_proj.weight_scale": (20, 1), AT + "k_proj.weight_zero_point": (20, 1)},
        {AT + "k_proj.weight_scale": (20,), AT + "k_proj.k_scale": (20,)},
        {**PACKED, AT + "k_proj.weight_scale": (20, 4), AT + "k_proj.weight_shape": (2,)},
        {AT + "k_proj.SCB": (20,), AT + "k_scale": (20,)},
        {AT + "k_proj.scales": (20, 2), AT + "k_proj.biases": (20, 2)},
    ],
)
def test_companion_when_each_row_has_its_own_then_it_follows(
    made: Callable[..., Path], tmp_path: Path, shapes: dict[str, tuple[int, ...] | None]
) -> None:
    """FP8 and INT8 by channel, packed by rows, bitsandbytes' INT8 and MLX's groups."""
    whole = {AT + "k_proj.input_scale": (1,), AT + "q_proj.weight_scale": (1,)}
    values = {AT + "v_proj.weight_scale": (20, 1), AT + "o_proj.SCB": (60,)}
    chosen = {**shapes, **whole, **values}
    folder = made(**{name.replace(".", "__"): shape for name, shape in chosen.items()})
    relayout(folder, tmp_path / "moved", INTERLEAVED)
    moved = load_file(tmp_path / "moved" / "model.safetensors")
    head = [0, 5, 1, 6, 2, 7, 3, 8, 4, 9]

    for name, shape in shapes.items():
        if shape is not None and shape[0] == 20:
            assert moved[name].reshape(20, -1)[:10, 0].tolist() == head, name
    for name, shape in {**whole, **values}.items():
        assert moved[name].equal(_numbered(shape)), name


def test_packed_rows_when_moved_then_verified(made: Callable[..., Path], tmp_path: Path) -> None:
    """As MLX packs: unsigned integers, and scales beside which they are huge."""
    folder = made({"rope_theta": 1e4}, **{f"{AT}k_proj.scales".replace(".", "__"): (20, 2)})
    tensors = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.rand(x.shape, generator=generator) for name, x in tensors.items()}
    packed = torch.randint(0, 2**32, (20, 8), generator=generator)
    tensors[AT + "k_proj.weight"] = packed.to(torch.uint32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    relayout(folder, tmp_path / "moved", INTERLEAVED)

    assert verify(tmp_path / "moved", folder).outcome is Outcome.SAME


@pytest.mark.parametrize(
    ("name", "shape", "word"),
    [
        ("k_proj.qweight", (8, 20), "columns"),
        ("k_proj.qzeros", (8, 3), "columns"),
        ("k_proj.weight.absmax", (15,), "ends of rows"),
        ("k_proj.weight_zero_point", (3, 4), "packed along rows"),
        ("k_proj.weight_scale", (2, 1), "several rows share"),
        ("k_scale", (10,), "several rows share"),
    ],
)
def test_companion_when_rows_share_it_then_refused(
    made: Callable[..., Path], name: str, shape: tuple[int, ...], word: str
) -> None:
    error = _refusal(made(**{(AT + name).replace(".", "__"): shape}), Unsupported)

    assert name in error.what
    assert word in error.why


def test_layer_of_further_tokens_when_beyond_the_depth_then_moves_too(
    made: Callable[..., Path], tmp_path: Path
) -> None:
    """DeepSeek V3's layer 61: forgetting it leaves a draft head that guesses wrong, quietly."""
    shapes: dict[str, tuple[int, ...] | None] = {name: None for name in SHAPES if AT in name}
    for layer in (0, 1):
        at = f"model.layers.{layer}.self_attn."
        shapes |= {at + "q_b_proj.weight": (60, 18), at + "kv_a_proj_with_mqa.weight": (20, 60)}
    shapes |= {"model.layers.1." + name: (60,) for name in ("enorm.weight", "hnorm.weight")}
    config = {
        "model_type": "deepseek_v3", "qk_nope_head_dim": 4, "qk_rope_head_dim": 6,
        "kv_lora_rank": 14,
    }  # fmt: skip
    folder = made(config, **{name.replace(".", "__"): shape for name, shape in shapes.items()})
    relayout(folder, tmp_path / "moved", HALF_SPLIT)
    moved = load_file(tmp_path / "moved" / "model.safetensors")

    for layer in (0, 1):
        at = f"model.layers.{layer}.self_attn."
        query = moved[at + "q_b_proj.weight"][:10, 0].tolist()
        key = moved[at + "kv_a_proj_with_mqa.weight"][:, 0].tolist()
        assert query == [0, 1, 2, 3, 4, 6, 8, 5, 7, 9]
        assert key == [*range(14), 14, 16, 18, 15, 17, 19]
    assert json.loads((tmp_path / "moved" / "config.json").read_text())["rope_interleave"] is False
