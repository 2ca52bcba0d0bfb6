"""A described family from end to end: converted, proved, inspected, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import ropeconv
from ropeconv.cli.app import app
from ropeconv.knowledge.described import read_description, write_description
from ropeconv.proof.look import look
from ropeconv.reports.sentences import not_looked_at, repair
from ropeconv.story.conversion import HfOptions, convert
from ropeconv.story.describing import described_family
from ropeconv.story.detection import detect
from ropeconv.words.errors import Contradiction, UsageError
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED
from tests.reports.test_report_files import check

TRAINED = Path(__file__).parents[2] / "fixtures/kjv-llama"
RUNNER = CliRunner()
AT = "model.layers.0.self_attn."
DESCRIPTION = """
name = "new_model"
layout = "half-split"

[sizes]
H = "num_attention_heads"

[[rows]]
name = "model.layers.{layer}.self_attn.q_proj.weight"
rows = "Repeat(H, Rope(D))"
why = "every query head is rotated"

[[rows]]
name = "model.layers.{layer}.self_attn.k_proj.weight"
rows = "Repeat(K, Rope(D))"
why = "every key head is \\"rotated\\""

[[stays]]
name = "*"
why = "not rotated"
"""
CONFIG = {
    "model_type": "new_model", "num_hidden_layers": 1, "hidden_size": 48, "head_dim": 12,
    "num_attention_heads": 4, "num_key_value_heads": 2, "rope_theta": 10000.0,
}  # fmt: skip
ROWS = {"q_proj": 48, "k_proj": 24, "v_proj": 24}


def run(*words: object) -> Result:
    return RUNNER.invoke(app, [str(word) for word in words])


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """A checkpoint of a model type that no table knows; its description is `new.toml` beside it."""
    folder = tmp_path / "new"
    folder.mkdir()
    torch.manual_seed(0)
    tensors = {f"{AT}{name}.weight": torch.randn(rows, 48) / 7 for name, rows in ROWS.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "new.toml").write_text(DESCRIPTION)
    return folder


@pytest.fixture
def moved(described: Path, tmp_path: Path) -> Path:
    """The same with interleaved rows."""
    folder = tmp_path / "moved"
    family = described_family(tmp_path / "new.toml")
    ropeconv.relayout(described, folder, INTERLEAVED, described=family)
    return folder


def test_described_when_converted_then_the_proof_that_is_offered_says_the_same_model(
    described: Path, tmp_path: Path
) -> None:
    file = tmp_path / "new.toml"
    moved = tmp_path / "moved"
    done = run("convert", "half-to-interleaved", described, moved, "--family", file)
    offered = done.stderr[done.stderr.index("next: ropeconv ") :].split()[2:]

    assert offered[:2] == ["verify", "checkpoint"]
    assert offered[-2:] == ["--family", str(file)]

    report = tmp_path / "report.json"
    proof = run(*offered, "--report", report)

    assert proof.exit_code == 0, proof.output
    assert "the same model, under the layouts that both declare" in proof.stdout
    assert "the rows that the user describes" in proof.stdout

    found = check(report.read_text())

    assert found["target"]["layout"] == "interleaved"
    assert found["target"]["family"] == "new_model"
    assert found["exact"]["num_reordered"] == 2
    assert len(found["scores"]["layers"]) == 1
    assert "`model.layers.{layer}.self_attn.k_proj.weight` has" in found["described"][1]


def test_described_when_rows_are_wrong_then_different_and_named(
    described: Path, moved: Path, tmp_path: Path
) -> None:
    file = moved / "model.safetensors"
    source = load_file(described / "model.safetensors")
    planted = {**load_file(file), AT + "k_proj.weight": source[AT + "k_proj.weight"]}
    save_file(planted, file, metadata={"format": "pt", "ropeconv.layout": "interleaved"})
    words = ("verify", "checkpoint", moved, "--against", described)
    proof = run(*words, "--family", tmp_path / "new.toml")

    assert proof.exit_code == 1, proof.output
    assert "k_proj" in proof.stdout
    assert "not reordered" in proof.stdout
    assert f"half-to-interleaved {described} NEW --family FILE" in proof.stderr
    assert f"--against {described} --family FILE" in proof.stderr


def test_verdict_when_described_then_reports_say_what_it_rests_on(
    described: Path, moved: Path, tmp_path: Path
) -> None:
    family = described_family(tmp_path / "new.toml")
    verdict = ropeconv.verify(moved, described, described=family)
    words = "Whether the user's description of the rows is right"

    assert verdict.outcome is ropeconv.Outcome.SAME
    assert words in " ".join(not_looked_at(verdict))
    assert words not in " ".join(not_looked_at(replace(verdict, described=())))
    assert repair(verdict) is None


def test_described_when_proved_or_inspected_without_its_description_then_refused(
    described: Path, moved: Path
) -> None:
    for words in (["verify", "checkpoint", moved, "--against", described], ["inspect", moved]):
        done = run(*words)

        assert done.exit_code == 5
        assert "which ropeconv has no table for" in done.stderr


def test_description_when_it_does_not_fit_the_shapes_then_no_proof(
    described: Path, moved: Path, tmp_path: Path
) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(DESCRIPTION.replace("Repeat(K,", "Repeat(H,"))
    for words in (["verify", "checkpoint", moved, "--against", described], ["inspect", moved]):
        done = run(*words, "--family", file)

        assert done.exit_code == 5
        assert "k_proj.weight` has the shape [24, 48], expected 48 rows" in done.stderr


@pytest.mark.parametrize(
    ("query", "key"),
    [("q_proj", "k_proj"), ("wq", "wk"), ("self.query", "self.key"), ("q", "k"), ("to_q", "to_k")],
)
def test_description_when_queries_and_keys_have_other_spans_then_refused(
    described: Path, tmp_path: Path, query: str, key: str
) -> None:
    """Two heads of 24 rows have as many rows as four of 12: shapes do not tell."""
    renamed(described / "model.safetensors", query, key)
    text = DESCRIPTION.replace("q_proj", query).replace("k_proj", key)
    wide = read_description(text.replace("Repeat(H, Rope(D))", "Repeat(2, Rope(24))"), "new")
    with pytest.raises(
        UsageError, match=rf"the lengths \[24\], and of its key `\S+{key}\S+ \[12\]"
    ):
        ropeconv.relayout(described, tmp_path / "moved", INTERLEAVED, described=wide)

    still = read_description(text.replace("Repeat(K, Rope(D))", "Repeat(K, Keep(D))"), "new")
    with pytest.raises(UsageError, match=rf"the lengths \[12\], and of its key `\S+{key}\S+ \[\]"):
        ropeconv.relayout(described, tmp_path / "moved", INTERLEAVED, described=still)

    ropeconv.relayout(
        described, tmp_path / "moved", INTERLEAVED, described=read_description(text, "")
    )


def renamed(file: Path, query: str, key: str) -> None:
    """The same tensors, as another maker names them."""
    found = load_file(file).items()
    named = {name.replace("q_proj", query).replace("k_proj", key): one for name, one in found}
    save_file(named, file, metadata={"format": "pt"})


def test_description_when_it_is_of_another_model_type_then_no_proof(
    described: Path, moved: Path
) -> None:
    other = read_description(DESCRIPTION.replace("new_model", "newer"), "new.toml")
    with pytest.raises(UsageError, match="the description is of `newer`"):
        ropeconv.verify(moved, described, described=other)
    with pytest.raises(UsageError, match="the description is of `newer`"):
        ropeconv.inspect(moved, described=other)


def test_inspect_when_described_then_says_what_it_is_and_who_said_so(
    moved: Path, tmp_path: Path
) -> None:
    done = run("inspect", moved, "--family", tmp_path / "new.toml")

    assert done.exit_code == 0, done.output
    assert "new_model" in done.stdout
    assert "interleaved rows, by its stamp" in done.stdout
    assert "by the user, new_model is half-split" in done.stderr


def test_description_when_written_and_read_again_then_equal() -> None:
    text = DESCRIPTION.replace("[sizes]", '[layer_sizes]\nK = "k[layer]"\n\n[sizes]', 1)
    text = text.replace("[[stays]]", 'layers = "layer > 0"\noptional = true\n\n[[stays]]', 1)
    text = text.replace("not rotated", "caf\u00e9 \\\\ \\u007f \\n")
    family = read_description(text, "new.toml")

    assert family.rules[1].optional
    assert "\x7f" in family.stays[0][1]
    assert read_description(write_description(family), "again") == family


def test_described_when_the_weights_contradict_it_then_no_command_takes_it_for_true(
    tmp_path: Path,
) -> None:
    """Only the weights know that a description has the wrong layout."""
    convert(TRAINED, tmp_path / "new", HfOptions())
    config = tmp_path / "new/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "new_model"}))
    wrong = read_description(DESCRIPTION.replace("half-split", "interleaved"), "new.toml")
    folder, to = tmp_path / "new", tmp_path / "moved"
    file = folder / "model.safetensors"
    save_file(load_file(file), file, metadata={"format": "pt"})  # which has no stamp

    for command in (
        lambda: ropeconv.relayout(folder, to, HALF_SPLIT, described=wrong, look=True),
        lambda: ropeconv.relayout_in_place(folder, HALF_SPLIT, described=wrong, look=True),
    ):
        with pytest.raises(Contradiction, match="do not look interleaved"):
            command()

    assert not to.exists()

    ropeconv.relayout(folder, to, HALF_SPLIT, described=wrong)
    verdict = ropeconv.verify(to, folder, described=wrong, layers=[0])
    seen = ropeconv.inspect(folder, look=True, described=wrong)

    assert verdict.outcome is ropeconv.Outcome.INCONCLUSIVE
    assert "do not look interleaved" in verdict.scores.why
    assert seen.detected is not None
    assert (seen.layout, seen.detected.layout) == ("interleaved", "half-split")
    assert "could not be looked at" in detect(folder).why


def test_weights_when_named_otherwise_then_asked_for_their_layout(tmp_path: Path) -> None:
    """What a maker calls queries and keys says nothing of their rows."""
    convert(TRAINED, tmp_path / "new", HfOptions())
    config = tmp_path / "new/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "new_model"}))
    renamed(tmp_path / "new/model.safetensors", "wq", "wk")
    text = DESCRIPTION.replace("q_proj", "wq").replace("k_proj", "wk")
    seen = look(tmp_path / "new", read_description(text, "new.toml"))

    assert seen.verdict == HALF_SPLIT


def test_description_when_it_cannot_be_read_then_wrong_usage(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.toml", tmp_path):
        with pytest.raises(UsageError, match=r"nowhere|is no regular file") as caught:
            described_family(path)
        assert "TOML" in caught.value.fix
