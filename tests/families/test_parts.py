"""Parts of a model: which rows a command moves, what the files say, what verify sees of a tower."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from ropeconv import verify
from ropeconv.cli.app import app
from ropeconv.formats import hf
from ropeconv.formats.safetensors import read_header
from ropeconv.moving import inplace
from ropeconv.proof.verdict import Outcome
from ropeconv.story.inspection import inspect
from ropeconv.story.relayout import relayout, relayout_in_place
from ropeconv.words.errors import (
    AlreadyConverted,
    AnotherRun,
    Contradiction,
    IncompleteSource,
    Interrupted,
    Unsupported,
)
from ropeconv.words.events import BytesDone, Event
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED
from ropeconv.words.parts import Part
from tests.families.test_tables import _numbered
from tests.moving.cases import make_hf

RUNNER = CliRunner()
TEXT, VISION = Part.TEXT, Part.VISION
BOTH = (TEXT, VISION)
CONFIG = {
    "model_type": "mistral3",
    "text_config": {
        "model_type": "mistral", "hidden_size": 60, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 10, "num_hidden_layers": 1,
    },
    # as in released files: what equals transformers' default is left out
    "vision_config": {
        "model_type": "pixtral", "hidden_size": 36, "num_attention_heads": 3, "head_dim": 12,
        "num_hidden_layers": 2,
    },
}  # fmt: skip
LANGUAGE = "language_model.model.layers.0."
TOWER = "vision_tower.transformer.layers."
SHAPES = {
    "language_model.model.embed_tokens.weight": (3, 60),
    LANGUAGE + "self_attn.q_proj.weight": (60, 60),
    LANGUAGE + "self_attn.k_proj.weight": (20, 60),
    LANGUAGE + "self_attn.v_proj.weight": (20, 60),
    LANGUAGE + "self_attn.o_proj.weight": (60, 60),
    LANGUAGE + "mlp.up_proj.weight": (7, 60),
    "language_model.model.norm.weight": (60,),
    "multi_modal_projector.linear_1.weight": (60, 36),
    "vision_tower.patch_conv.weight": (36, 3, 2, 2),
    **{
        f"{TOWER}{layer}.{name}.weight": (36, 36)
        for layer in (0, 1)
        for name in (
            "attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj",
            "feed_forward.up_proj",
        )
    },
}  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    tensors = {name: _numbered(shape) for name, shape in SHAPES.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def _changed(one: Path, other: Path) -> set[str]:
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (one, other))
    return {key for key in ours if not ours[key].equal(theirs[key])}


ROTARY = {part: {k for k in SHAPES if at in k and ("q_proj" in k or "k_proj" in k)}
          for part, at in ((TEXT, LANGUAGE), (VISION, TOWER))}  # fmt: skip


@pytest.mark.parametrize("parts", [(TEXT,), (VISION,), BOTH])
def test_parts_when_moved_then_all_others_stay_and_stamps_say_it(
    source: Path, tmp_path: Path, parts: tuple[Part, ...]
) -> None:
    relayout(source, tmp_path / "moved", INTERLEAVED, parts=parts)
    found = hf.discover(tmp_path / "moved")

    assert _changed(source, tmp_path / "moved") == set().union(*(ROTARY[part] for part in parts))
    assert found.stamp == (INTERLEAVED if TEXT in parts else None)
    assert found.tower_stamps == (((VISION, INTERLEAVED),) if VISION in parts else ())
    manifest = json.loads((tmp_path / "moved" / "ropeconv.json").read_text())
    assert manifest["parts"] == [part.value for part in parts]

    relayout(tmp_path / "moved", tmp_path / "back", HALF_SPLIT, parts=parts)
    assert _changed(source, tmp_path / "back") == set()


def test_tower_when_moved_then_rows_are_those_of_its_own_heads(
    source: Path, tmp_path: Path
) -> None:
    """3 heads of 12 rows; the text has 6 of 10, whose order fits neither."""
    relayout(source, tmp_path / "moved", INTERLEAVED, parts=[VISION])
    moved = load_file(tmp_path / "moved" / "model.safetensors")
    first = [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]

    rows = moved[TOWER + "1.attention.k_proj.weight"][:, 0].tolist()
    assert rows == [head * 12 + row for head in range(3) for row in first]


def test_part_when_there_already_then_the_other_moves_or_it_is_refused(
    source: Path, tmp_path: Path
) -> None:
    relayout(source, tmp_path / "moved", INTERLEAVED, parts=[VISION])

    with pytest.raises(AlreadyConverted, match="interleaved rows already") as raised:
        relayout(tmp_path / "moved", tmp_path / "again", INTERLEAVED, parts=[VISION])
    assert raised.value.why == "its vision rows are stamped interleaved"

    relayout(tmp_path / "moved", tmp_path / "both", INTERLEAVED, parts=BOTH)
    assert _changed(tmp_path / "moved", tmp_path / "both") == ROTARY[TEXT]


def test_tower_when_moved_alone_then_verify_and_inspect_know(source: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    relayout(source, moved, INTERLEAVED, parts=[VISION])

    for one, other in ((moved, source), (source, moved)):
        verdict = verify(one, other)
        assert verdict.outcome is Outcome.SAME
        assert verdict.exact.num_reordered == len(ROTARY[VISION])
        assert [layer.layer for layer in verdict.scores.layers] == [0, 1]  # the tower is deeper
    found = inspect(moved)
    assert found.layout == HALF_SPLIT.name  # of the text
    assert "the vision tower (Pixtral, vision) is interleaved" in {n.text for n in found.notes}

    # the stamp taken away: the tower's rows are not what its family says
    tensors = load_file(moved / "model.safetensors")
    save_file(tensors, moved / "model.safetensors", metadata={"format": "pt"})
    assert verify(moved, source).outcome is Outcome.DIFFERENT


def test_tower_when_not_reordered_then_verify_sees_it_by_its_scores_too(
    source: Path, tmp_path: Path
) -> None:
    """A stamp on unmoved rows: a wrong order is named, and scores differ by themselves."""
    moved = tmp_path / "moved"
    relayout(source, moved, INTERLEAVED, parts=[VISION])
    metadata = dict(read_header(moved, "model.safetensors", 0).metadata)
    tensors = load_file(source / "model.safetensors")
    save_file(tensors, moved / "model.safetensors", metadata=metadata)
    verdict = verify(moved, source)

    assert verdict.exact.outcome is Outcome.DIFFERENT
    assert "not reordered, the rows are still half-split" in str(verdict.exact.diagnosis)
    assert verdict.scores.outcome is Outcome.DIFFERENT


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "clip_vision_model"}, "learned embeddings"),
        ({"model_type": "no_such_tower"}, "no table knows it"),
        (None, "no table knows it"),
    ],
)
def test_tower_when_nothing_rotates_or_it_is_unknown_then_refused_and_text_still_moves(
    source: Path, tmp_path: Path, config: object, reason: str
) -> None:
    changed = {**CONFIG, "model_type": "llava", "vision_config": config}
    (source / "config.json").write_text(json.dumps(changed))

    with pytest.raises(Unsupported, match="no vision tower") as raised:
        relayout(source, tmp_path / "moved", INTERLEAVED, parts=BOTH)
    assert reason in raised.value.why
    relayout(source, tmp_path / "moved", INTERLEAVED)
    assert _changed(source, tmp_path / "moved") == ROTARY[TEXT]


@pytest.mark.parametrize("part", ["vision", "audio"])
def test_model_without_towers_when_a_part_is_named_then_refused(tmp_path: Path, part: str) -> None:
    folders = [str(make_hf(tmp_path / "half")), str(tmp_path / "out")]
    done = RUNNER.invoke(app, ["convert", "half-to-interleaved", *folders, "--part", part])

    assert done.exit_code == 5
    assert f"has no {part} tower whose rows could be moved" in done.stderr.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_tower_when_something_in_it_is_unknown_then_refused_only_if_it_moves(
    source: Path, tmp_path: Path
) -> None:
    """An adapter of a tower's query would have to move with it."""
    tensors = load_file(source / "model.safetensors")
    tensors[TOWER + "0.attention.q_proj.lora_B.weight"] = _numbered((36, 2))
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(Unsupported, match="lora_B"):
        relayout(source, tmp_path / "moved", INTERLEAVED, parts=[VISION])
    relayout(source, tmp_path / "moved", INTERLEAVED)


def test_layer_of_a_part_when_missing_then_the_other_parts_layer_does_not_hide_it(
    source: Path, tmp_path: Path
) -> None:
    config = {**CONFIG, "text_config": {**CONFIG["text_config"], "num_hidden_layers": 2}}  # type: ignore[dict-item]
    (source / "config.json").write_text(json.dumps(config))

    with pytest.raises(IncompleteSource, match="layer 1 is missing"):
        relayout(source, tmp_path / "moved", INTERLEAVED)


def test_tower_when_moved_in_place_then_as_into_a_new_folder_and_goes_on_by_part(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inplace, "PORTION_BLOCKS", 1)
    relayout(source, tmp_path / "moved", INTERLEAVED, parts=[VISION])
    stop = threading.Event()

    def listen(event: Event) -> None:
        if isinstance(event, BytesDone):
            stop.set()

    with pytest.raises(Interrupted):
        relayout_in_place(source, INTERLEAVED, parts=[VISION], listen=listen, stop=stop)
    with pytest.raises(IncompleteSource, match="in the middle"):
        hf.discover(source)
    with pytest.raises(AnotherRun):
        relayout_in_place(source, INTERLEAVED)
    relayout_in_place(source, INTERLEAVED, parts=[VISION])

    assert _changed(source, tmp_path / "moved") == set()
    assert hf.discover(source).tower_stamps == ((VISION, INTERLEAVED),)


def test_part_when_named_on_the_command_line_then_said(source: Path, tmp_path: Path) -> None:
    words = ["convert", "half-to-interleaved", str(source), str(tmp_path / "out")]
    done = RUNNER.invoke(app, [*words, "--part", "vision", "--part", "text", "--json"])

    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["parts"] == ["text", "vision"]

    plain = RUNNER.invoke(app, [*words, "--overwrite"])
    assert "the vision tower (Pixtral, vision) stays half-split" in plain.stderr.replace("\n", " ")
    tower = RUNNER.invoke(app, [*words, "--overwrite", "--part", "vision"])
    assert "from half-split to interleaved rows (vision)" in tower.stdout.replace("\n", " ")


def test_sizes_when_the_nested_config_leaves_them_out_then_those_that_transformers_takes(
    source: Path, tmp_path: Path
) -> None:
    """Gemma 3 4B's config names neither head counts nor head_dim; shapes still decide."""
    text = {"model_type": "gemma3_text", "hidden_size": 60, "num_hidden_layers": 1}
    config = {**CONFIG, "model_type": "gemma3", "text_config": text}
    (source / "config.json").write_text(json.dumps(config))
    tensors = load_file(source / "model.safetensors")
    tensors[LANGUAGE + "self_attn.q_proj.weight"] = _numbered((8 * 256, 60))
    tensors[LANGUAGE + "self_attn.k_proj.weight"] = _numbered((4 * 256, 60))
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    relayout(source, tmp_path / "moved", INTERLEAVED)
    moved = load_file(tmp_path / "moved" / "model.safetensors")

    rows = moved[LANGUAGE + "self_attn.k_proj.weight"][256:260, 0].tolist()
    assert rows == [256, 256 + 128, 257, 257 + 128]

    tensors[LANGUAGE + "self_attn.k_proj.weight"] = _numbered((2 * 256, 60))
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Contradiction, match="k_proj"):
        relayout(source, tmp_path / "other", INTERLEAVED)


@pytest.mark.parametrize("said", [{}, {"rope_interleave": True}])
def test_switch_when_text_is_inside_then_set_there(
    source: Path, tmp_path: Path, said: dict[str, bool]
) -> None:
    text = {
        "model_type": "mistral4", "hidden_size": 60, "num_attention_heads": 6,
        "num_key_value_heads": 6, "num_hidden_layers": 1, "qk_nope_head_dim": 4,
        "qk_rope_head_dim": 6, "kv_lora_rank": 14,
    }  # fmt: skip
    (source / "config.json").write_text(json.dumps({**CONFIG, "text_config": {**text, **said}}))
    tensors = load_file(source / "model.safetensors")
    del tensors[LANGUAGE + "self_attn.k_proj.weight"]
    tensors[LANGUAGE + "self_attn.kv_a_proj_with_mqa.weight"] = _numbered((20, 60))
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    relayout(source, tmp_path / "moved", HALF_SPLIT)
    config = json.loads((tmp_path / "moved" / "config.json").read_text())

    assert config == {**CONFIG, "text_config": {**text, "rope_interleave": False}}
    assert verify(tmp_path / "moved", source).outcome is Outcome.SAME
    with pytest.raises(AlreadyConverted):
        relayout(tmp_path / "moved", tmp_path / "again", HALF_SPLIT)
