"""Folders and configs that lie: only ropeconv's own errors come out, and nothing is left."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forge import PTH, copy_small

import ropeconv
from ropeconv import RopeconvError
from ropeconv.story.conversion import HfOptions, MetaOptions, plan_conversion
from ropeconv.words.errors import BrokenFile, HostileFile, SourceError, UsageError

Convert = Callable[[str], Path]
INDEX = "model.safetensors.index.json"


def meta_copy(folder: Path) -> Path:
    return copy_small("llama", folder)


def hf_copy(converted: Convert, folder: Path, name: str = "llama") -> Path:
    target = folder / "hf"
    target.mkdir()
    for file in converted(name).iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def edit(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text())
    for key, value in changes.items():
        values.pop(key, None)
        if value is not ...:
            values[key] = value
    path.write_text(json.dumps(values))


def plan(folder: Path) -> None:
    is_meta = "params.json" in {path.name for path in folder.iterdir()}  # it may lead nowhere
    options = HfOptions() if is_meta else MetaOptions()
    plan_conversion(folder, options)


def answer(look: Callable[[Path], object], folder: Path) -> RopeconvError | None:
    try:
        look(folder)
    except RopeconvError as error:
        return error
    return None


BAD_VALUES = (
    0, -1, 1, 7, 10**30, -(10**30), 0.5, 1e308, 5e-324, "x", "7", True, [], [1], {}, {"a": 1},
)  # fmt: skip
META_FIELDS = (
    "dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden_dim", "vocab_size",
    "multiple_of", "ffn_dim_multiplier", "norm_eps", "rope_theta", "use_scaled_rope",
    "sliding_window", "max_seq_len", "max_position_embeddings", "max_batch_size",
    "tied_embeddings", "model", "moe",
)  # fmt: skip
HF_FIELDS = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "intermediate_size", "vocab_size", "rms_norm_eps", "rope_theta", "rope_scaling",
    "rope_parameters", "max_position_embeddings", "sliding_window", "tie_word_embeddings",
    "bos_token_id", "eos_token_id", "pad_token_id", "architectures", "torch_dtype",
)  # fmt: skip


@pytest.mark.parametrize("field", META_FIELDS)
def test_params_with_any_absurd_value_give_a_plan_or_an_error_of_ropeconv(
    tmp_path: Path, field: str
) -> None:
    folder = meta_copy(tmp_path)
    honest = (folder / "params.json").read_text()
    for value in (*BAD_VALUES, ...):
        (folder / "params.json").write_text(honest)
        edit(folder / "params.json", **{field: value})
        error = answer(plan, folder)

        assert error is None or error.exit_code in {2, 4, 5}, (field, value)
        assert len(str(error)) < 1000, (field, value)


@pytest.mark.parametrize("field", HF_FIELDS)
def test_config_with_any_absurd_value_gives_a_plan_or_an_error_of_ropeconv(
    tmp_path: Path, converted: Convert, field: str
) -> None:
    folder = hf_copy(converted, tmp_path)
    honest = (folder / "config.json").read_text()
    for value in (*BAD_VALUES, ...):
        (folder / "config.json").write_text(honest)
        edit(folder / "config.json", **{field: value})
        error = answer(plan, folder)

        assert error is None or error.exit_code in {2, 4, 5}, (field, value)
        assert len(str(error)) < 1000, (field, value)


SCALINGS = {
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "linear": ("factor",),
    "dynamic": ("factor", "original_max_position_embeddings"),
    "yarn": ("factor", "beta_fast", "beta_slow", "original_max_position_embeddings"),
    "longrope": ("factor", "short_factor", "long_factor", "original_max_position_embeddings"),
}


@pytest.mark.parametrize("kind", SCALINGS)
def test_scaling_with_any_absurd_value_is_answered(
    tmp_path: Path, converted: Convert, kind: str
) -> None:
    folder = hf_copy(converted, tmp_path)
    honest = {
        "rope_type": kind, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64, "short_factor": [1.0] * 5, "long_factor": [2.0] * 5,
    }  # fmt: skip
    for field in SCALINGS[kind]:
        for value in (*BAD_VALUES, [0.0] * 5, ...):
            scaling = honest | {field: value}
            scaling = {key: value for key, value in scaling.items() if value is not ...}
            edit(folder / "config.json", rope_scaling=scaling, rope_parameters=...)
            for look in (plan, ropeconv.inspect, lambda f: ropeconv.verify(f, f, layers=[])):
                error = answer(look, folder)

                assert error is None or error.exit_code in {2, 4, 5}, (field, value)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", "{'dim': 3}", '{"dim": 60, "dim": 60}', '{"norm_eps": NaN}',
     '{"norm_eps": Infinity}', '{"norm_eps": -Infinity}', "[" * 100_000, '{"a":' * 100_000,
     '{"dim": ' + "9" * 5000 + "}", "\ufeff{}", "{}{}", "// no\n{}"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["params.json", "config.json"])
def test_config_that_is_no_honest_json_is_refused(
    tmp_path: Path, converted: Convert, name: str, text: str
) -> None:
    folder = meta_copy(tmp_path) if name == "params.json" else hf_copy(converted, tmp_path)
    (folder / name).write_text(text)

    with pytest.raises(BrokenFile):
        plan(folder)


@pytest.mark.parametrize("depth", range(900, 1000, 7))
def test_value_nested_nearly_too_deeply_is_refused_in_words(tmp_path: Path, depth: int) -> None:
    """JSON can be read a little deeper than its value can be printed in an error."""
    folder = meta_copy(tmp_path)
    (folder / "params.json").write_text('{"dim": ' + "[" * depth + "]" * depth + "}")

    with pytest.raises(BrokenFile):
        plan(folder)


def test_config_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = meta_copy(tmp_path)
    (folder / "params.json").write_bytes(b'{"dim": "\xff\xfe"}')

    with pytest.raises(BrokenFile, match="is no UTF-8 text"):
        plan(folder)


@pytest.mark.parametrize("name", ["params.json", "config.json", INDEX, PTH, "model.safetensors"])
@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "dangling"])
def test_name_that_is_no_regular_file_is_refused_without_waiting(
    tmp_path: Path, converted: Convert, name: str, kind: str
) -> None:
    """Opening a pipe waits for a writer for ever; a device never ends."""
    meta = name in {"params.json", PTH}
    folder = meta_copy(tmp_path) if meta else hf_copy(converted, tmp_path)
    path = folder / name
    path.unlink(missing_ok=True)
    if name == INDEX:
        (folder / "model.safetensors").unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "/no/such/file")

    with pytest.raises(SourceError):
        plan(folder)


def test_pipe_beside_the_weights_is_left_out(tmp_path: Path) -> None:
    folder = meta_copy(tmp_path)
    os.mkfifo(folder / "tokenizer.json")
    report = ropeconv.convert(folder, tmp_path / "out", HfOptions())

    assert not (tmp_path / "out" / "tokenizer.json").exists()
    assert "`tokenizer.json`: no regular file" in {note.text for note in report.plan.notes}


@pytest.mark.parametrize(
    "shard",
    ["../model.safetensors", "/etc/hostname", "..", ".", "", "a/b.safetensors", "a\\b.safetensors",
     "C:model.safetensors", "model.safetensors\0", "missing.safetensors", 3, None, ["a"]],
)  # fmt: skip
def test_index_that_names_anything_but_its_own_shards_is_refused(
    tmp_path: Path, converted: Convert, shard: object
) -> None:
    folder = hf_copy(converted, tmp_path)
    (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
    index = {"weight_map": {"model.norm.weight": shard}}
    (folder / INDEX).write_text(json.dumps(index))

    with pytest.raises(SourceError) as caught:
        plan(folder)
    assert caught.value.code in {"file-refused", "file-broken", "source-incomplete"}


@pytest.mark.parametrize("index", [{}, {"weight_map": 3}, {"weight_map": {}}, {"weight_map": []}])
def test_index_without_a_map_is_refused(
    tmp_path: Path, converted: Convert, index: dict[str, object]
) -> None:
    folder = hf_copy(converted, tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps(index))

    with pytest.raises(SourceError):
        plan(folder)


def cache_of(folder: Path, source: Path) -> Path:
    """A folder as huggingface_hub keeps it: every name is a link to a blob."""
    snapshot = folder / "models--a--b" / "snapshots" / "0000"
    blobs = folder / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir(parents=True)
    for number, file in enumerate(sorted(source.iterdir())):
        (blobs / str(number)).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(os.path.relpath(blobs / str(number), snapshot))
    return snapshot


def test_links_of_the_hub_cache_are_followed_and_copied(tmp_path: Path) -> None:
    folder = meta_copy(tmp_path)
    (folder / "tokenizer.json").write_text("{}")
    snapshot = cache_of(tmp_path, folder)
    ropeconv.convert(snapshot, tmp_path / "out", HfOptions())

    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    assert not (tmp_path / "out" / "tokenizer.json").is_symlink()


def test_link_to_weights_elsewhere_is_followed(tmp_path: Path) -> None:
    """People keep large files on another disk; a header is checked whoever wrote it."""
    folder = meta_copy(tmp_path)
    (folder / PTH).rename(tmp_path / "elsewhere.pth")
    (folder / PTH).symlink_to(tmp_path / "elsewhere.pth")

    plan(folder)


@pytest.mark.parametrize("target", ["/etc/hostname", "../secret"])
def test_link_out_of_the_folder_is_not_copied(tmp_path: Path, target: str) -> None:
    """A cloned repository may link `tokenizer.json` to a private key: it must not be published."""
    folder = meta_copy(tmp_path)
    (tmp_path / "secret").write_text("secret")
    (folder / "tokenizer.json").symlink_to(target)
    report = ropeconv.convert(folder, tmp_path / "out", HfOptions())

    assert not (tmp_path / "out" / "tokenizer.json").exists()
    assert any("`tokenizer.json`: a link out of" in note.text for note in report.plan.notes)


@pytest.mark.parametrize(
    "manifest",
    ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "carried": 3}',
     '{"schema": 1, "carried": {"config": 3, "embedding_split": "", "dropped": []}}',
     '{"schema": 1, "carried": {"config": "{", "embedding_split": "", "dropped": []}}',
     '{"schema": 1, "carried": {"config": "[]", "embedding_split": "", "dropped": []}}',
     '{"schema": 1, "carried": {"config": "", "embedding_split": "diagonal", "dropped": []}}',
     '{"schema": 1, "carried": {"config": "", "embedding_split": "kv rows", "dropped": []}}',
     '{"schema": 1, "carried": {"config": "", "embedding_split": "", "dropped": [3]}}'],
)  # fmt: skip
@pytest.mark.parametrize("form", ["meta", "hf"])
def test_manifest_that_no_ropeconv_wrote_is_refused(
    tmp_path: Path, converted: Convert, form: str, manifest: str
) -> None:
    folder = meta_copy(tmp_path) if form == "meta" else hf_copy(converted, tmp_path, "llama-1-rank")
    (folder / "ropeconv.json").write_text(manifest)
    if '"config": "{"' in manifest or '"config": "[]"' in manifest:
        with pytest.raises(RopeconvError):
            plan(folder)
        return

    with pytest.raises(BrokenFile):
        plan_conversion(folder, HfOptions() if form == "meta" else MetaOptions(num_ranks=2))


@pytest.mark.parametrize(
    "kept",
    [
        {"name": "rope.freqs", "dtype": "F32", "shape": [5], "data": "AAAA"},
        {"name": "rope.freqs", "dtype": "F4", "shape": [1], "data": "AAAA"},
        {"name": "rope.freqs", "dtype": "U8", "shape": [-1, -3], "data": "AAAA"},
        {"name": "rope.freqs", "dtype": "U8", "shape": ["3"], "data": "AAAA"},
        {"name": "rope.freqs", "dtype": "U8", "shape": [3], "data": "A?AA"},
        {"name": "rope.freqs", "dtype": "U8", "shape": [9] * 200_000, "data": "AAAA"},
    ],
)
def test_manifest_that_keeps_a_broken_tensor_is_refused(
    tmp_path: Path, converted: Convert, kept: dict[str, object]
) -> None:
    folder = hf_copy(converted, tmp_path)
    carried = {"config": "", "embedding_split": "", "dropped": [kept]}
    (folder / "ropeconv.json").write_text(json.dumps({"schema": 1, "carried": carried}))

    with pytest.raises(BrokenFile):
        plan(folder)


@pytest.mark.parametrize("said", [{"theta": 0.0}, {"theta": -5.0}, {"theta": float("nan")},
                                  {"theta": float("inf")}])  # fmt: skip
def test_option_that_is_no_theta_is_wrong_usage(tmp_path: Path, said: dict[str, float]) -> None:
    folder = meta_copy(tmp_path)
    edit(folder / "params.json", rope_theta=...)

    with pytest.raises(UsageError):
        plan_conversion(folder, HfOptions(), said=ropeconv.Said(**said))


@pytest.mark.parametrize("factor", [0.0, -8.0, float("nan"), float("inf")])
def test_option_that_is_no_factor_is_wrong_usage(tmp_path: Path, factor: float) -> None:
    folder = copy_small("llama-tied", tmp_path)

    with pytest.raises(UsageError):
        plan_conversion(folder, HfOptions(), said=ropeconv.Said(rope_factor=factor))


def test_two_formats_in_one_folder_are_refused_where_no_direction_says_which(
    tmp_path: Path, converted: Convert
) -> None:
    folder = hf_copy(converted, tmp_path)
    (folder / "ropeconv.json").unlink()
    for file in meta_copy(tmp_path).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())

    with pytest.raises(RopeconvError) as caught:
        ropeconv.inspect(folder)
    assert caught.value.code == "contradiction"
    report = plan_conversion(folder, HfOptions())
    assert {file.name for file in report.files} == {"model.safetensors"}


def test_hostile_file_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = meta_copy(tmp_path)
    (folder / PTH).write_bytes(b"<html>")

    with pytest.raises(RopeconvError) as caught:
        ropeconv.convert(folder, tmp_path / "out", HfOptions())
    assert isinstance(caught.value, BrokenFile | HostileFile)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llama"]
