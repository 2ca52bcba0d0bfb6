"""Models of vision or sound and language: one part moves, the others stay, the whole computes on.

Each is a tiny one of its own class, saved and loaded by transformers. Its text is moved and run by
another model's rotation inside the whole; its tower's rule is tested by itself (`test_towers`), and
here only that it finds all of the tower's tensors in the whole, and no others.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from ropeconv.formats import hf
from ropeconv.knowledge.families.composite import COMPOSITE
from ropeconv.knowledge.families.dense import INNER
from ropeconv.knowledge.families.sparse import ABSENT
from ropeconv.knowledge.family import Tower
from ropeconv.knowledge.formula import solve
from ropeconv.knowledge.registry import FAMILIES
from ropeconv.knowledge.tensors import tensors_of
from ropeconv.proof.family_probe import part_of
from ropeconv.story.relayout import relayout
from ropeconv.thinking.inventory import Inventory, take_stock
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, RopeLayout
from ropeconv.words.parts import Part
from tests.families.cases import difference, other_layout, random_model
from tests.families.swap import rotating, rotating_inside
from tests.families.tensor_names import REWRITE, templates_of
from tests.families.tiny_wrappers import CHOICES, inputs_of, tiny_wrapper

pytestmark = pytest.mark.peer
transformers.logging.disable_progress_bar()
transformers.logging.set_verbosity_error()

# what transformers cannot make without a further package
UNMADE = {
    "gemma3n": "its vision tower is timm's",
    "gemma4_assistant": "it reads the keys of the model that it assists",
    "gemma4_unified_assistant": "it reads the keys of the model that it assists",
    "kimi_k25": "transformers 5.23 writes its text under names that it does not read",
    "kimi_vl": "its code comes with the checkpoint",
    "lfm2-vl": "transformers knows it as lfm2_vl",
    "qwen2_5_omni": "five models in one; what thinks in it is made by itself",
    "qwen3_omni_moe": "five models in one; what thinks in it is made by itself",
}
MADE = tuple(family.name for family in COMPOSITE if family.name not in UNMADE)
TOWERS = {
    Part.VISION: re.compile(
        "(vision|image|video)_(tower|model|encoder)|visual[.]|vit[.]|qwen2_model[.]"
    ),
    Part.AUDIO: re.compile("audio_(tower|model|encoder)"),
}
QUERIES_AND_KEYS = re.compile(
    "[.](q_proj|k_proj|wq|wk|qkv|q|k|q_norm|k_norm|q_layernorm|k_layernorm)[.]"
)


SAME_CODE = {"voxtral_realtime"}  # its tower rotates by the functions of its language model


def _logits(model: Any, other: RopeLayout | None = None) -> torch.Tensor:
    """Of the whole; its language model rotates in another layout if one is said."""
    name = model.config.model_type
    (path,) = (one.inner for one in COMPOSITE if one.name == name)
    wanted = part_of(model.config, path).model_type
    (language, *_) = (
        module
        for module in model.modules()
        if isinstance(module, transformers.PreTrainedModel)
        and module is not model
        and module.config.model_type == wanted
    )
    given = inputs_of(name)
    with torch.no_grad():
        if other is None:
            found = model(**given, use_cache=False)
        else:
            with (
                rotating_inside(language, other) if name in SAME_CODE else rotating(language, other)
            ):
                found = model(**given, use_cache=False)
    return found["logits" if "logits" in found else "last_hidden_state"]


def other_of(layout: RopeLayout) -> RopeLayout:
    return HALF_SPLIT if layout == INTERLEAVED else INTERLEAVED


def _changed(one: Path, other: Path) -> set[str]:
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (one, other))
    return {key for key in ours if not ours[key].equal(theirs[key])}


def _rotary(inventory: Inventory, part: Part) -> set[str]:
    return {t.name for t in inventory.tensors if t.rule.rotates and t.part is part}


@pytest.mark.parametrize("name", MADE)
def test_text_when_moved_then_whole_computes_the_same_and_towers_stay(
    tmp_path: Path, name: str
) -> None:
    model = tiny_wrapper(name)
    model.save_pretrained(tmp_path / "source")
    assert templates_of(tmp_path / "source", name) == tensors_of(name), REWRITE
    inventory = take_stock(hf.discover(tmp_path / "source"))
    other = other_of(inventory.layout)
    relayout(tmp_path / "source", tmp_path / "moved", other)
    twin = type(model).from_pretrained(tmp_path / "moved", dtype=torch.float64, **CHOICES).eval()
    expected, actual, control = _logits(model), _logits(twin, other), _logits(twin)

    # the model was made in float32, the twin in float64: their tables of angles are rounded apart
    assert difference(expected, actual) <= 1e-5
    assert difference(expected, control) >= 1e-2

    changed = _changed(tmp_path / "source", tmp_path / "moved")
    assert changed == _rotary(inventory, Part.TEXT)
    assert not [key for key in changed if any(names.search(key) for names in TOWERS.values())]

    for tower in inventory.family.towers:
        if tower.family is not None:
            _check_tower(tmp_path, tower, other_of(tower.family.layout))


def _check_tower(folder: Path, tower: Tower, other: RopeLayout) -> None:
    """All queries and keys of the tower move, as its names say, and nothing else."""
    relayout(folder / "source", folder / "tower", other, parts=[tower.part])
    names = load_file(folder / "source" / "model.safetensors")
    own = TOWERS[tower.part]
    expected = {key for key in names if own.search(key) and QUERIES_AND_KEYS.search(key)}
    assert expected
    assert _changed(folder / "source", folder / "tower") == expected
    assert hf.discover(folder / "tower").stamp is None
    assert hf.discover(folder / "tower").tower_stamps == ((tower.part, other),)


def test_tower_of_mistrals_files_when_moved_then_rows_are_those_that_transformers_loads(
    tmp_path: Path,
) -> None:
    """Pixtral's two axes: transformers writes Mistral's files, and reorders by its own code.

    The row order of the tower is anchored there, in both directions.
    """
    model = tiny_wrapper("mistral_large4")
    model.save_pretrained(tmp_path / "source")
    relayout(tmp_path / "source", tmp_path / "tower", HALF_SPLIT, parts=[Part.VISION])
    native, moved = (load_file(tmp_path / at / "model.safetensors") for at in ("source", "tower"))
    at = "transformer.layers.1.attention."
    for letter in "qk":
        loaded = model.state_dict()[f"model.vision_tower.{at}{letter}_proj.weight"]
        name = f"vision_encoder.{at}w{letter}.weight"

        assert not native[name].equal(loaded)
        assert moved[name].equal(loaded)


@pytest.mark.parametrize("name", sorted(ABSENT))
def test_text_config_when_bare_then_sizes_are_those_that_transformers_takes(name: str) -> None:
    """Transformers 4 left out of nested configs what equals the default; 5 writes them whole."""
    family = INNER.get(name, FAMILIES[name])
    plain = transformers.CONFIG_MAPPING[name]().to_dict()
    bare, whole = (solve(family.sizes, names) for names in (dict(ABSENT[name]), plain))

    assert {letter: bare[letter] for letter in "CHKDL"} == {
        letter: whole[letter] for letter in "CHKDL"
    }


def test_tower_of_kimis_files_when_moved_then_rows_are_those_that_transformers_loads(
    tmp_path: Path,
) -> None:
    """MoonViT's fused rows, anchored on the reordering that transformers itself does."""
    model = tiny_wrapper("kimi_k25")
    model.save_pretrained(tmp_path / "source")
    weights = tmp_path / "source" / "model.safetensors"
    named = {
        name.replace("language_model.model.blocks.", "language_model.model.layers."): tensor
        for name, tensor in load_file(weights).items()
    }
    save_file(named, weights, metadata={"format": "pt"})
    relayout(tmp_path / "source", tmp_path / "tower", HALF_SPLIT, parts=[Part.VISION])
    moved = load_file(tmp_path / "tower" / "model.safetensors")
    loaded = model.state_dict()
    for end in ("weight", "bias"):
        name = f"vision_tower.encoder.blocks.1.wqkv.{end}"
        own = [loaded[f"model.vision_tower.layers.1.attn.{x}_proj.{end}"] for x in "qkv"]

        assert not named[name].equal(torch.cat(own))
        assert moved[name].equal(torch.cat(own))
    expected = {key for key in named if "wqkv" in key}
    assert _changed(tmp_path / "source", tmp_path / "tower") == expected


# wrappers that are not made here: their text, how its tensors begin inside, and where its config is
_OMNI = ("thinker.model.", "thinker.lm_head.", "thinker_config.text_config")
BY_HAND = {
    "gemma3n": ("gemma3n_text", "model.language_model.", "lm_head.", "text_config"),
    "kimi_k25": ("deepseek_v3", "language_model.model.", "language_model.lm_head.", "text_config"),
    "lfm2-vl": ("lfm2", "language_model.model.", "language_model.lm_head.", "text_config"),
    "qwen2_5_omni": ("qwen2_5_omni_text", *_OMNI),
    "qwen3_omni_moe": ("qwen3_omni_moe_text", *_OMNI),
    "kimi_vl": ("deepseek_v3", "language_model.model.", "language_model.lm_head.", "text_config"),
}


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_wrapper_when_made_by_hand_then_its_text_moves_as_the_text_alone(
    tmp_path: Path, name: str
) -> None:
    """The text alone is run in the other layout by `test_relayout`; here only names differ."""
    text, inside, head, path = BY_HAND[name]
    random_model(text, {}).save_pretrained(tmp_path / "alone")
    config = json.loads((tmp_path / "alone" / "config.json").read_text())
    tensors = load_file(tmp_path / "alone" / "model.safetensors")
    names = {
        key: head + key.removeprefix("lm_head.")
        if key.startswith("lm_head.")
        else inside + key.removeprefix("model.")
        for key in tensors
    }
    named = {names[key]: tensor for key, tensor in tensors.items()}
    (tmp_path / "whole").mkdir()
    at = "thinker.visual" if "omni" in name else "model.vision_tower"
    towers = {f"{at}.blocks.0.attn.q_proj.weight": torch.ones(4, 2)}
    save_file({**named, **towers}, tmp_path / "whole" / "model.safetensors", {"format": "pt"})
    for key in reversed(path.split(".")):
        config = {key: config}
    whole = {"model_type": name, **config}
    (tmp_path / "whole" / "config.json").write_text(json.dumps(whole))
    for at in ("alone", "whole"):
        relayout(tmp_path / at, tmp_path / f"{at} moved", other_layout(text))

    changed = _changed(tmp_path / "alone", tmp_path / "alone moved")
    assert changed
    assert _changed(tmp_path / "whole", tmp_path / "whole moved") == {names[key] for key in changed}
    alone, inner = (
        load_file(tmp_path / f"{at} moved" / "model.safetensors") for at in ("alone", "whole")
    )
    assert all(alone[key].equal(inner[names[key]]) for key in changed)
