"""Checkpoints that bring code of their own: it is not read, and everything says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import ropeconv
from ropeconv.cli.app import app
from ropeconv.formats import hf
from ropeconv.knowledge.described import read_description
from ropeconv.reports.sentences import not_looked_at
from ropeconv.thinking.inventory import take_stock
from ropeconv.words.errors import UsageError
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED
from ropeconv.words.model import Note
from tests.reports.test_report_files import check

RUNNER = CliRunner()
CLASS = "modeling_new.NewForCausalLM"
MAP = {"AutoConfig": "configuration_new.NewConfig", "AutoModelForCausalLM": CLASS}
SIZES = {
    "num_hidden_layers": 1, "hidden_size": 48, "head_dim": 12, "num_attention_heads": 4,
    "num_key_value_heads": 2, "rope_theta": 10000.0,
}  # fmt: skip
ROWS = {"q_proj": 48, "k_proj": 24, "v_proj": 24}
DESCRIPTION = """
name = "qwen2"
layout = "interleaved"

[[rows]]
name = "model.layers.{layer}.self_attn.q_proj.weight"
rows = "Repeat(H, Keep(4), Rope(D - 4))"
why = "its own code rotates the last rows of a head"

[[rows]]
name = "model.layers.{layer}.self_attn.k_proj.weight"
rows = "Repeat(K, Keep(4), Rope(D - 4))"
why = "its own code rotates the last rows of a head"

[[stays]]
name = "*"
why = "not rotated"
"""


def make(folder: Path, config: dict[str, Any], rows: dict[str, int] | None = None) -> Path:
    folder.mkdir()
    torch.manual_seed(0)
    at = "model.layers.0.self_attn."
    shapes = ROWS if rows is None else rows
    tensors = {f"{at}{name}.weight": torch.randn(size, 48) / 7 for name, size in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**SIZES, **config}))
    return folder


def said(folder: Path) -> list[str]:
    return _of_own_code(take_stock(hf.discover(folder)).notes)


def _of_own_code(notes: tuple[Note, ...]) -> list[str]:
    return [note.text for note in notes if note.kind == "own-code"]


def test_own_code_when_converted_then_notes_json_and_manifest_say_so(tmp_path: Path) -> None:
    folder, moved = make(tmp_path / "new", {"model_type": "qwen2", "auto_map": MAP}), tmp_path / "m"
    words = ["convert", "half-to-interleaved", str(folder), str(moved)]
    done = RUNNER.invoke(app, [*words, "--json"])
    notes = json.loads(done.stdout)["notes"]

    assert done.exit_code == 0, done.output
    assert [note["kind"] for note in notes] == ["own-code", *["runtime"] * 3]
    assert f"`{CLASS}`, which is neither read nor run" in notes[0]["text"]
    assert "its own Qwen 1.5, 2 and 2.5, for which rows are treated here" in notes[0]["text"]
    assert notes == json.loads((moved / "ropeconv.json").read_text())["notes"]
    assert "own-code: the checkpoint brings code of its own" in done.stderr


def test_own_code_when_inspected_or_proved_then_both_say_so(tmp_path: Path) -> None:
    folder, moved = make(tmp_path / "new", {"model_type": "qwen2", "auto_map": MAP}), tmp_path / "m"
    ropeconv.relayout(folder, moved, INTERLEAVED)
    seen = RUNNER.invoke(app, ["inspect", str(folder)])
    report = tmp_path / "verdict.json"
    words = ["verify", "checkpoint", str(moved), "--against", str(folder)]
    proof = RUNNER.invoke(app, [*words, "--report", str(report)])
    verdict = ropeconv.verify(moved, folder)

    assert seen.exit_code == proof.exit_code == 0, proof.output
    assert CLASS in seen.stderr
    assert CLASS in proof.stderr
    assert len(check(report.read_text())["own_code"]) == 1
    assert "(`auto_map`): it may rotate otherwise" in " ".join(not_looked_at(verdict))


@pytest.mark.parametrize(
    "found",
    [
        None,
        {"AutoConfig": "configuration_new.NewConfig", "AutoTokenizer": ["new.Tokenizer", None]},
        ["AutoModel"],
    ],
)
def test_map_when_it_names_no_model_then_nothing_is_said(tmp_path: Path, found: object) -> None:
    folder = make(tmp_path / "new", {"model_type": "qwen2", "auto_map": found})

    assert said(folder) == []


@pytest.mark.parametrize("name", ["new.New\n\x1b[31m", ["new.New"], "n" * 121])
def test_name_when_it_is_none_of_a_class_then_not_repeated(tmp_path: Path, name: object) -> None:
    folder = make(tmp_path / "new", {"model_type": "qwen2", "auto_map": {"AutoModel": name}})

    assert "code of its own, `auto_map`," in said(folder)[0]


def test_own_code_when_the_table_is_measured_elsewhere_then_says_where(tmp_path: Path) -> None:
    folder = make(tmp_path / "new", {"model_type": "mimo", "auto_map": MAP})

    assert "rows are treated as mlx-lm's MiMo has them" in said(folder)[0]
    assert "trust_remote_code" not in said(folder)[0]


def test_own_code_when_of_a_llama_then_said_as_of_others(
    tmp_path: Path, converted: Callable[[str], Path]
) -> None:
    """Llama and Mistral have tables of another kind."""
    folder = shutil.copytree(converted("llama"), tmp_path / "new")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": MAP}))
    done = ropeconv.convert(folder, tmp_path / "meta", ropeconv.MetaOptions())

    assert CLASS in _of_own_code(done.plan.notes)[0]
    assert said(converted("llama")) == []


def test_own_code_when_it_is_of_the_language_model_inside_then_said(tmp_path: Path) -> None:
    text = {**SIZES, "model_type": "qwen2", "auto_map": MAP}
    folder = make(tmp_path / "new", {"model_type": "llava", "text_config": text})

    assert CLASS in said(folder)[0]


def test_switch_when_set_for_own_code_then_said_how_to_load(tmp_path: Path) -> None:
    """DeepSeek V3's own code does not read the switch, and most people run it."""
    sizes = {"qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "kv_lora_rank": 20}
    rows = {"q_proj": 48, "kv_a_proj_with_mqa": 24}
    config = {"model_type": "deepseek_v3", "auto_map": MAP, **sizes}
    folder = make(tmp_path / "new", config, rows)
    done = ropeconv.relayout(folder, tmp_path / "moved", HALF_SPLIT)
    back = ropeconv.relayout(tmp_path / "moved", tmp_path / "back", INTERLEAVED)
    words = f"`{CLASS}`, which this checkpoint brings, may be such code"

    assert words in done.plan.notes[1].text
    assert words not in back.plan.notes[1].text
    assert "llama.cpp rotates interleaved pairs" in done.plan.notes[2].text


def test_map_when_taken_out_as_advised_then_still_the_same_model(tmp_path: Path) -> None:
    folder = make(tmp_path / "new", {"model_type": "qwen2", "auto_map": MAP})
    ropeconv.relayout(folder, tmp_path / "moved", INTERLEAVED)
    file = tmp_path / "moved" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({key: one for key, one in config.items() if key != "auto_map"}))

    assert ropeconv.verify(tmp_path / "moved", folder).outcome is ropeconv.Outcome.SAME


def test_description_when_the_checkpoint_brings_code_then_takes_the_tables_place(
    tmp_path: Path,
) -> None:
    folder = make(tmp_path / "new", {"model_type": "qwen2", "auto_map": MAP})
    described = read_description(DESCRIPTION, "new.toml")
    done = ropeconv.relayout(folder, tmp_path / "moved", HALF_SPLIT, described=described)
    name = "model.layers.0.self_attn.k_proj.weight"
    source, moved = (
        load_file(at / "model.safetensors")[name] for at in (folder, tmp_path / "moved")
    )

    assert moved[:12].equal(source[[0, 1, 2, 3, 4, 6, 8, 10, 5, 7, 9, 11]])
    assert _of_own_code(done.plan.notes) == []

    verdict = ropeconv.verify(tmp_path / "moved", folder, described=described)

    assert verdict.outcome is ropeconv.Outcome.SAME
    assert verdict.own_code == ()

    plain = make(tmp_path / "plain", {"model_type": "qwen2"})
    with pytest.raises(UsageError, match="has a table") as refused:
        ropeconv.relayout(plain, tmp_path / "no", HALF_SPLIT, described=described)

    assert "auto_map" in refused.value.why
