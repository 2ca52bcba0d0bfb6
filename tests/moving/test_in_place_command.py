"""The command in place: described families, what a dry run lists, options that do not go along."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ropeconv.cli.app import app
from ropeconv.formats import hf
from ropeconv.knowledge.described import read_description
from ropeconv.moving import inplace
from ropeconv.story.relayout import relayout, relayout_in_place
from ropeconv.words.errors import AnotherRun, Interrupted
from ropeconv.words.events import BytesDone, Event
from ropeconv.words.layout import INTERLEAVED
from tests.moving.cases import LARGER, digests, make_hf

RUNNER = CliRunner()
DESCRIPTION = """
name = "new_model"
layout = "half-split"

[[rows]]
name = "model.layers.{layer}.self_attn.q_proj.weight"
rows = "Repeat(H, Rope(D))"
why = "every query head is rotated"

[[rows]]
name = "model.layers.{layer}.self_attn.k_proj.weight"
rows = "Repeat(K, Rope(D))"
why = "every key head is rotated"

[[stays]]
name = "{model.,}*{embed_tokens,layernorm,norm,v_proj,o_proj,mlp,lm_head}*"
why = "not rotated"
"""


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """A checkpoint of a model type that no table knows, and its description beside it."""
    folder = make_hf(tmp_path / "new", LARGER)
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "new_model"}
    (folder / "config.json").write_text(json.dumps(config))
    (tmp_path / "new.toml").write_text(DESCRIPTION)
    return folder


def test_described_family_when_in_place_then_as_into_a_new_folder(
    described: Path, tmp_path: Path
) -> None:
    file = tmp_path / "new.toml"
    words = ["convert", "half-to-interleaved", str(described)]
    into = RUNNER.invoke(app, [*words, str(tmp_path / "there"), "--family", str(file)])
    here = RUNNER.invoke(app, [*words, "--in-place", "--family", str(file)])

    assert (into.exit_code, here.exit_code) == (0, 0), here.stderr
    assert digests(described) == digests(tmp_path / "there")
    assert "by the user, new_model is half-split" in (described / "ropeconv.json").read_text()


def test_described_family_when_interrupted_then_goes_on_with_the_same_description_only(
    described: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another description would move other rows of a checkpoint that is half done."""
    monkeypatch.setattr(inplace, "PORTION_BLOCKS", 2)
    family = read_description(DESCRIPTION, "new.toml")
    other = read_description(DESCRIPTION.replace("Repeat(H", "Repeat(2 * K"), "new.toml")
    relayout(described, tmp_path / "there", INTERLEAVED, described=family)
    stop = threading.Event()

    def listen(event: Event) -> None:
        if isinstance(event, BytesDone):
            stop.set()

    with pytest.raises(Interrupted):
        relayout_in_place(
            described, INTERLEAVED, block_nbytes=512, described=family, listen=listen, stop=stop
        )
    for wrong in (other, None):
        with pytest.raises(AnotherRun):
            relayout_in_place(described, INTERLEAVED, block_nbytes=512, described=wrong)
    relayout_in_place(described, INTERLEAVED, block_nbytes=512, described=family)

    assert hf.discover(described).stamp == INTERLEAVED
    assert digests(described) == digests(tmp_path / "there")


def test_dry_run_when_in_place_then_lists_what_is_rewritten_only(tmp_path: Path) -> None:
    folder = make_hf(tmp_path / "half")
    before = digests(folder)
    done = RUNNER.invoke(
        app, ["convert", "half-to-interleaved", str(folder), "--in-place", "--dry-run", "--json"]
    )
    found = json.loads(done.stdout)
    moved = [t for t in hf.discover(folder).tensors if {"q_proj", "k_proj"} & {*t.name.split(".")}]
    heads = sum(min(t.offset for t in hf.discover(folder).tensors if t.file == n) for n in (0, 1))

    assert done.exit_code == 0
    assert [file["name"] for file in found["files"]] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "ropeconv.json",
    ]
    manifest = found["files"][-1]["nbytes"]
    assert found["written_nbytes"] == heads + sum(tensor.nbytes for tensor in moved) + manifest
    assert sum(file["nbytes"] for file in found["files"]) == found["written_nbytes"]
    assert digests(folder) == before


@pytest.mark.parametrize("option", ["--overwrite", "--restart", "--hash"])
def test_option_of_a_new_folder_when_in_place_then_wrong_usage(tmp_path: Path, option: str) -> None:
    folder = make_hf(tmp_path / "half")
    before = digests(folder)
    done = RUNNER.invoke(app, ["convert", "half-to-interleaved", str(folder), "--in-place", option])

    assert done.exit_code == 2
    assert "--in-place does not go with" in done.stderr
    assert digests(folder) == before
