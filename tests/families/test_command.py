"""`ropeconv families`, and verify and inspect on families other than Llama."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ropeconv import verify
from ropeconv.cli.app import app
from ropeconv.proof.verdict import Outcome
from ropeconv.story.families import as_markdown, list_families
from ropeconv.story.inspection import inspect
from ropeconv.story.relayout import relayout
from ropeconv.words.layout import Keep, Repeat, Rope, spans
from tests.families.cases import other_layout, random_model

ROOT = Path(__file__).parents[2]
RUNNER = CliRunner()


def test_page_when_rendered_then_it_is_the_one_in_docs() -> None:
    """Rewrite it with what `as_markdown` returns."""
    assert as_markdown() == (ROOT / "docs" / "families.md").read_text()


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md"])
def test_page_when_it_counts_families_then_it_is_right(page: str) -> None:
    assert f" {len(list_families())} model types" in (ROOT / page).read_text()


def test_recipe_when_it_quotes_code_then_the_code_has_it() -> None:
    """CONTRIBUTING shows how families were added by lines that still stand where it says."""
    recipe = (ROOT / "CONTRIBUTING.md").read_text()
    for line, path in (
        ('plain("hunyuan_vl_text", "HunYuan VL, text", HUNYUAN),',
         "ropeconv/knowledge/families/dense.py"),
        ('"hunyuan_vl_text": _SECTIONS', "ropeconv/proof/tiny_models.py"),
        ('plain("telechat3", "TeleChat 3"),', "ropeconv/knowledge/families/remote.py"),
        ('"telechat3": _BIAS,', "tests/families/mlx_cases.py"),
    ):  # fmt: skip
        whole = re.compile(rf"(?<!\w){re.escape(line)}")
        assert whole.search(recipe)
        assert whole.search((ROOT / path).read_text())


def test_list_when_printed_then_has_families_and_refusals() -> None:
    done = RUNNER.invoke(app, ["families"])

    assert done.exit_code == 0
    assert "deepseek_v3" in done.stdout
    assert "bloom: it adds ALiBi" in done.stdout


def test_types_without_a_table_when_there_are_none_then_that_is_said() -> None:
    done = RUNNER.invoke(app, ["families", "--probe", "lacking"])

    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.startswith("none: every model type")


def test_list_when_json_then_one_line() -> None:
    found = json.loads(RUNNER.invoke(app, ["families", "--json"]).stdout)

    assert found["type"] == "families"
    assert {"name": "glm", "title": "GLM 4 (2024)", "layout": "interleaved",
            "other": "no switch in transformers"} in found["families"]  # fmt: skip


def test_explanation_when_asked_then_names_tensors_and_reasons() -> None:
    done = RUNNER.invoke(app, ["families", "deepseek_v32"])

    assert done.exit_code == 0
    assert "Keep(R), Rope(r)" in done.stdout
    assert "the indexer is half-split" in done.stdout


@pytest.mark.parametrize(
    ("name", "program"), [("chatglm", "MindNLP"), ("internlm2", "mlx-lm"), ("glm", "transformers")]
)
def test_explanation_when_code_is_not_in_transformers_then_says_what_measures_it(
    name: str, program: str
) -> None:
    said = RUNNER.invoke(app, ["families", name]).stdout
    body = json.loads(RUNNER.invoke(app, ["families", name, "--json"]).stdout)

    assert body["measured_by"] == program
    assert (f"measured against {program}'s" in said) == (program != "transformers")
    assert ("the code that comes with it cannot run these" in said) == (program != "transformers")


def test_explanation_when_layers_differ_in_size_then_says_how() -> None:
    assert (
        "D of a layer = (per_layer_config" in RUNNER.invoke(app, ["families", "gemma4_text"]).stdout
    )


def test_name_when_unknown_then_usage_error() -> None:
    done = RUNNER.invoke(app, ["families", "lama"])

    assert done.exit_code == 2
    assert "llama" in done.stderr


@pytest.mark.peer
@pytest.mark.parametrize(("name", "code"), [("glm", 0), ("nanochat", 3), ("no_such_model", 5)])
def test_probe_when_run_then_exit_code_says_it(name: str, code: int) -> None:
    assert RUNNER.invoke(app, ["families", "--probe", name]).exit_code == code


def test_spans_when_nested_then_each_is_found() -> None:
    rows = (Repeat(2, Keep(1), Rope(4)), Keep(3), Rope(2))

    assert spans(rows) == [range(1, 5), range(6, 10), range(13, 15)]


@pytest.mark.peer
@pytest.mark.parametrize("name", ["gpt_neox", "deepseek_v3", "smollm3", "laguna", "t5gemma"])
def test_verify_when_moved_then_same_and_when_mistaken_then_different(
    tmp_path: Path, name: str
) -> None:
    model = random_model(name, {}).float()
    model.save_pretrained(tmp_path / "source")
    relayout(tmp_path / "source", tmp_path / "moved", other_layout(name))

    assert verify(tmp_path / "moved", tmp_path / "source").outcome is Outcome.SAME
    assert inspect(tmp_path / "moved").layout == other_layout(name).name

    config = tmp_path / "moved" / "config.json"
    text = config.read_text()
    changed = text.replace('"rope_theta": ', '"rope_theta": 1')
    assert changed != text
    config.write_text(changed)

    assert verify(tmp_path / "moved", tmp_path / "source").outcome is Outcome.DIFFERENT

    config.write_text(text)
    weights = tmp_path / "moved" / "model.safetensors"
    stamped = weights.read_bytes()
    source = (tmp_path / "source" / "model.safetensors").read_bytes()
    weights.write_bytes(stamped[: -len(source) // 2] + source[-len(source) // 2 :])

    assert verify(tmp_path / "moved", tmp_path / "source").outcome is Outcome.DIFFERENT
