"""Sources that must not be converted: each has its code, and nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ropeconv
from fixtures import make_small
from ropeconv import HfOptions, MetaOptions, RopeconvError, Said
from ropeconv.formats.stamps import STAMP_KEY
from ropeconv.story.relayout import relayout
from ropeconv.words.layout import HALF_SPLIT

Tensors = dict[str, torch.Tensor]
PTH = "consolidated.00.pth"


def refusal(source: Path, options: HfOptions | MetaOptions, **said: Any) -> RopeconvError:
    """The error; the folder around the target is as it was before."""
    target = source.parent / "target"
    before = sorted(path for path in source.parent.rglob("*"))
    with pytest.raises(RopeconvError) as caught:
        ropeconv.convert(source, target, options, **said)

    assert sorted(path for path in source.parent.rglob("*")) == before
    return caught.value


def meta_copy(folder: Path, name: str = "llama") -> Path:
    return Path(shutil.copytree(make_small.FOLDER / name, folder / name))


def spoil_pth(folder: Path, spoil: Callable[[Tensors], Any], name: str = PTH) -> None:
    tensors = torch.load(folder / name, weights_only=True)
    spoil(tensors)
    torch.save(tensors, folder / name)


def spoil_params(folder: Path, **changes: Any) -> None:
    params = json.loads((folder / "params.json").read_text())
    params = {k: v for k, v in (params | changes).items() if v is not ...}
    (folder / "params.json").write_text(json.dumps(params))


def hf_copy(converted: Callable[[str], Path], folder: Path, name: str = "llama") -> Path:
    target = Path(shutil.copytree(converted(name), folder / "hf"))
    (target / "ropeconv.json").unlink()
    return target


def spoil_hf(
    folder: Path, spoil: Callable[[Tensors], Any], stamp: str | None = "half-split"
) -> None:
    tensors = load_file(folder / "model.safetensors")
    spoil(tensors)
    metadata = {"format": "pt"} | ({} if stamp is None else {STAMP_KEY: stamp})
    save_file(tensors, folder / "model.safetensors", metadata)


def rename(old: str, new: str) -> Callable[[Tensors], Any]:
    return lambda tensors: tensors.update({new: tensors.pop(old)})


def drop(*names: str) -> Callable[[Tensors], Any]:
    return lambda tensors: [tensors.pop(name) for name in names]


def add(**new: torch.Tensor) -> Callable[[Tensors], Any]:
    return lambda tensors: tensors.update({k.replace("__", "."): v for k, v in new.items()})


def drop_layers(tensors: Tensors) -> None:
    for name in [name for name in tensors if name.startswith(("layers.", "model.layers."))]:
        del tensors[name]


WQ = "layers.1.attention.wq.weight"


@pytest.mark.parametrize(
    ("why", "spoil", "code"),
    [
        ("a missing tensor", drop(WQ), "source-incomplete"),
        ("a missing output", drop("output.weight"), "source-incomplete"),
        ("a missing embedding", drop("tok_embeddings.weight"), "source-incomplete"),
        ("a missing norm", drop("norm.weight"), "source-incomplete"),
        ("no layers at all", drop_layers, "source-incomplete"),
        ("nothing at all", lambda tensors: tensors.clear(), "source-incomplete"),
        ("a stray tensor", add(extra__weight=torch.zeros(3)), "unsupported"),
        ("a bias", add(layers__0__attention__wq__bias=torch.zeros(60)), "unsupported"),
        ("a q norm", add(layers__0__attention__q_norm__weight=torch.zeros(10)), "unsupported"),
        ("a name with a tail", rename(WQ, WQ + ".old"), "unsupported"),
        ("a name with a head", rename(WQ, "module." + WQ), "unsupported"),
        ("a layer in other digits", rename(WQ, "layers.\u0661.attention.wq.weight"), "unsupported"),
        ("a layer with a zero before", rename(WQ, "layers.01.attention.wq.weight"), "unsupported"),
        ("a layer far away", rename(WQ, "layers.7.attention.wq.weight"), "source-incomplete"),
        ("a layer without end", rename(WQ, "layers.99999.attention.wq.weight"), "contradiction"),
        ("a shape with no rows", lambda t: t.update({WQ: t[WQ][:0]}), "contradiction"),
        ("a query of too few rows", lambda t: t.update({WQ: t[WQ][:50].clone()}), "contradiction"),
        ("a vector for a matrix", lambda t: t.update({WQ: t[WQ][:, 0].clone()}), "contradiction"),
        ("freqs of another theta", add(rope__freqs=10000.0 ** (-torch.arange(0, 10, 2) / 10)),
         "contradiction"),
        ("freqs of one value", add(rope__freqs=torch.ones(1)), "contradiction"),
        ("no freqs at all", add(rope__freqs=torch.ones(0)), "contradiction"),
        ("freqs of NaN", add(rope__freqs=torch.full((5,), torch.nan)), "contradiction"),
        ("freqs of integers", add(rope__freqs=torch.ones(5, dtype=torch.int64)), "unsupported"),
        ("freqs as large as weights", add(rope__freqs=torch.zeros(70_000)), "unsupported"),
    ],
)  # fmt: skip
def test_meta_source_with_something_wrong_is_refused(
    tmp_path: Path, why: str, spoil: Callable[[Tensors], Any], code: str
) -> None:
    source = meta_copy(tmp_path)
    spoil_pth(source, spoil)
    error = refusal(source, HfOptions())

    assert error.code == code, (why, error)


@pytest.mark.parametrize(
    ("why", "changes", "code"),
    [
        ("other kv heads", {"n_kv_heads": 3}, "contradiction"),
        ("kv heads that do not divide", {"n_kv_heads": 4}, "contradiction"),
        ("other heads", {"n_heads": 5}, "contradiction"),
        ("more heads than rows", {"n_heads": 1000}, "contradiction"),
        ("no heads", {"n_heads": ...}, "not-said"),
        ("no epsilon", {"norm_eps": ...}, "not-said"),
        ("scaling without factor", {"use_scaled_rope": True}, "not-said"),
        ("experts", {"moe": {"num_experts": 8}}, "unsupported"),
        ("quantised", {"quantization_args": {"group_size": 32}}, "unsupported"),
        ("an adapter", {"lora_args": {"rank": 16}}, "unsupported"),
        ("a vision tower", {"vision_chunk_size": 448}, "unsupported"),
        ("yarn", {"yarn": {"factor": 4}}, "unsupported"),
        ("a key that nobody knows", {"rope_direction": "left"}, "unsupported"),
    ],
)
def test_params_with_something_wrong_are_refused(
    tmp_path: Path, why: str, changes: dict[str, Any], code: str
) -> None:
    source = meta_copy(tmp_path)
    spoil_params(source, **changes)
    error = refusal(source, HfOptions())

    assert error.code == code, (why, error)


def test_half_a_rank_set_is_refused(tmp_path: Path) -> None:
    source = meta_copy(tmp_path, "llama-replicated-kv")
    (source / "consolidated.02.pth").unlink()
    error = refusal(source, HfOptions())

    assert error.code == "source-incomplete"
    assert "[0, 1, 3]" in error.what


def test_last_rank_missing_is_refused(tmp_path: Path) -> None:
    """No number is left out, so only shapes can tell."""
    source = meta_copy(tmp_path, "llama-2-ranks")
    (source / "consolidated.01.pth").unlink()

    assert refusal(source, HfOptions()).exit_code in {4, 5}


def test_one_rank_twice_under_two_names_is_refused(tmp_path: Path) -> None:
    source = meta_copy(tmp_path, "llama-2-ranks")
    shutil.copy(source / "consolidated.01.pth", source / "consolidated.1.pth")

    assert refusal(source, HfOptions()).code == "source-incomplete"


def test_rank_without_a_tensor_is_refused(tmp_path: Path) -> None:
    source = meta_copy(tmp_path, "llama-2-ranks")
    spoil_pth(source, drop(WQ), "consolidated.01.pth")

    assert refusal(source, HfOptions()).code == "source-incomplete"


@pytest.mark.parametrize("name", ["layers.0.attention.wk.weight", "layers.1.attention.wv.weight"])
def test_copies_of_a_kv_head_that_differ_are_refused(tmp_path: Path, name: str) -> None:
    source = meta_copy(tmp_path, "llama-replicated-kv")
    spoil_pth(
        source, lambda t: t[name].view(torch.int16)[3, 3].bitwise_xor_(1), "consolidated.03.pth"
    )
    error = refusal(source, HfOptions())

    assert error.code == "contradiction"
    assert "copies of" in error.what


def test_tiled_kv_heads_are_refused(tmp_path: Path) -> None:
    """0 1 0 1 as a known resharder writes them: ranks 1 and 2 exchanged, in k and v alone."""
    source = meta_copy(tmp_path, "llama-replicated-kv")
    one, two = (torch.load(source / f"consolidated.0{n}.pth", weights_only=True) for n in (1, 2))
    for name in [name for name in one if name.endswith(("wk.weight", "wv.weight"))]:
        one[name], two[name] = two[name], one[name]
    torch.save(one, source / "consolidated.01.pth")
    torch.save(two, source / "consolidated.02.pth")

    assert refusal(source, HfOptions()).code == "contradiction"


@pytest.mark.parametrize(("drift", "allowed"), [(0.005, True), (0.5, False)])
def test_norms_that_drift_are_reported_and_beyond_a_bound_refused(
    tmp_path: Path, drift: float, *, allowed: bool
) -> None:
    source = meta_copy(tmp_path, "llama-2-ranks")
    spoil_pth(source, lambda t: t["norm.weight"].add_(drift), "consolidated.01.pth")
    if not allowed:
        error = refusal(source, HfOptions())
        assert (error.code, "`allow_drift=True`" in error.fix) == ("contradiction", True)
    report = ropeconv.convert(source, tmp_path / "out", HfOptions(), allow_drift=not allowed)
    found = load_file(tmp_path / "out" / "model.safetensors")["model.norm.weight"]

    assert any(note.kind == "drift" for note in report.plan.notes)
    rank_0 = torch.load(source / PTH, weights_only=True)["norm.weight"]
    torch.testing.assert_close(found, rank_0, rtol=0, atol=0)


@pytest.mark.parametrize("ending", ["wv", "wk"])
def test_rank_with_too_few_rows_is_refused_in_words(tmp_path: Path, ending: str) -> None:
    source = meta_copy(tmp_path, "llama-2-ranks")
    name = f"layers.1.attention.{ending}.weight"
    for rank in (0, 1):
        spoil_pth(
            source, lambda t: t.update({name: t[name][:2].clone()}), f"consolidated.0{rank}.pth"
        )

    assert refusal(source, HfOptions()).code == "contradiction"


def test_rank_of_another_dtype_is_refused(tmp_path: Path) -> None:
    source = meta_copy(tmp_path, "llama-2-ranks")
    spoil_pth(source, lambda t: t.update({WQ: t[WQ].half()}), "consolidated.01.pth")

    assert refusal(source, HfOptions()).code == "contradiction"


K_PROJ = "model.layers.0.self_attn.k_proj.weight"


@pytest.mark.parametrize(
    ("why", "spoil", "code"),
    [
        ("a missing tensor", drop(K_PROJ), "source-incomplete"),
        ("no layers at all", drop_layers, "source-incomplete"),
        ("a bias", add(model__layers__0__self_attn__q_proj__bias=torch.zeros(60)), "unsupported"),
        ("an indexer", add(model__layers__0__self_attn__indexer__wk=torch.zeros(3)), "unsupported"),
        ("a quantised scale", add(model__norm__weight_scale=torch.zeros(1)), "unsupported"),
        ("an output that nobody ties", drop("lm_head.weight"), "source-incomplete"),
        ("k as large as q", lambda t: t.update({K_PROJ: torch.zeros(60, 60)}), "contradiction"),
    ],
)
def test_hf_source_with_something_wrong_is_refused(
    tmp_path: Path, converted: Callable[[str], Path], why: str, spoil: Callable[[Tensors], Any],
    code: str,
) -> None:  # fmt: skip
    source = hf_copy(converted, tmp_path)
    spoil_hf(source, spoil)
    error = refusal(source, MetaOptions())

    assert error.code == code, (why, error)


def test_source_in_the_format_asked_for_is_refused(
    tmp_path: Path, converted: Callable[[str], Path]
) -> None:
    meta, hf = meta_copy(tmp_path), hf_copy(converted, tmp_path)

    for source, options, title, back in (
        (hf, HfOptions(), "Hugging Face's", "hf-to-meta"),
        (meta, MetaOptions(), "Meta's", "meta-to-hf"),
    ):
        error = refusal(source, options)

        assert (error.code, int(error.exit_code)) == ("already-converted", 5)
        assert error.what == f"`{source}` is in {title} format already"
        assert f"`ropeconv convert {back} {source} DST`" in error.fix


def test_source_in_meta_format_whose_rows_alone_shall_move_is_refused(tmp_path: Path) -> None:
    source = meta_copy(tmp_path)
    with pytest.raises(RopeconvError) as caught:
        relayout(source, tmp_path / "out", HALF_SPLIT)

    assert caught.value.code == "unsupported"
    assert f"`ropeconv convert meta-to-hf {source} DST`" in caught.value.fix


@pytest.mark.parametrize("name", ["config.json", "params.json", "notes.txt"])
def test_folder_without_weights_is_no_checkpoint_in_either_direction(
    tmp_path: Path, name: str
) -> None:
    """One of neither format is unreadable (4), not refused (5): there is nothing to recognise."""
    source = tmp_path / "source"
    source.mkdir()
    (source / name).write_text("{}")
    for options in (HfOptions(), MetaOptions()):
        assert int(refusal(source, options).exit_code) == 4


@pytest.mark.parametrize("stamp", ["interleaved", "spiral"])
def test_source_whose_stamp_denies_its_format_is_refused(
    tmp_path: Path, converted: Callable[[str], Path], stamp: str
) -> None:
    source = hf_copy(converted, tmp_path)
    spoil_hf(source, lambda _: None, stamp)
    expected = "contradiction" if stamp == "interleaved" else "unsupported"

    assert refusal(source, MetaOptions()).code == expected


def test_source_without_a_stamp_is_converted(
    tmp_path: Path, converted: Callable[[str], Path]
) -> None:
    """The control: nearly every checkpoint in the world has none."""
    source = hf_copy(converted, tmp_path)
    spoil_hf(source, lambda _: None, None)

    assert ropeconv.convert(source, tmp_path / "out", MetaOptions()).done


def test_missing_shard_is_refused(tmp_path: Path) -> None:
    ropeconv.convert(make_small.FOLDER / "llama", tmp_path / "hf", HfOptions(max_shard_nbytes=9000))
    shards = sorted((tmp_path / "hf").glob("model-*"))
    assert len(shards) > 3
    shards[2].unlink()
    error = refusal(tmp_path / "hf", MetaOptions())

    assert error.code == "source-incomplete"
    assert f"shard `{shards[2].name}` is missing" in error.what


def test_shards_without_their_index_are_refused(tmp_path: Path) -> None:
    ropeconv.convert(make_small.FOLDER / "llama", tmp_path / "hf", HfOptions(max_shard_nbytes=9000))
    (tmp_path / "hf" / "model.safetensors.index.json").unlink()

    assert refusal(tmp_path / "hf", MetaOptions()).code == "source-incomplete"


def test_shard_of_another_conversion_is_refused(tmp_path: Path) -> None:
    """A tensor where the index does not have it, and one in two shards."""
    ropeconv.convert(make_small.FOLDER / "llama", tmp_path / "hf", HfOptions(max_shard_nbytes=9000))
    shards = sorted((tmp_path / "hf").glob("model-*"))
    shutil.copy(shards[1], shards[2])

    assert refusal(tmp_path / "hf", MetaOptions()).exit_code == 4


@pytest.mark.parametrize("name", ["model.safetensors", "notes.txt"])
def test_target_that_exists_is_left_alone(tmp_path: Path, name: str) -> None:
    source = meta_copy(tmp_path)
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / name).write_text("mine")
    error = refusal(source, HfOptions())

    assert (error.code, error.exit_code) == ("target-exists", 6)
    assert (tmp_path / "target" / name).read_text() == "mine"


def test_target_that_is_a_file_or_lies_in_the_source_is_refused(tmp_path: Path) -> None:
    source = meta_copy(tmp_path)
    (tmp_path / "file").write_text("mine")
    for target in (tmp_path / "file", source, source / "out"):
        with pytest.raises(RopeconvError) as caught:
            ropeconv.convert(source, target, HfOptions())
        assert caught.value.exit_code == 6
    assert sorted(path.name for path in source.iterdir()) == [PTH, "params.json"]


def test_empty_target_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()

    assert ropeconv.convert(meta_copy(tmp_path), tmp_path / "target", HfOptions()).done


@pytest.mark.parametrize("num_ranks", [4, 5, 7, 12])
def test_ranks_that_sizes_cannot_be_divided_among_are_refused(
    tmp_path: Path, converted: Callable[[str], Path], num_ranks: int
) -> None:
    source = hf_copy(converted, tmp_path, "llama-1-rank")
    error = refusal(source, MetaOptions(num_ranks=num_ranks))

    assert error.code == "unsupported"
    assert f"cannot be divided among {num_ranks} ranks" in error.what


@pytest.mark.parametrize(
    ("said", "code"),
    [({"theta": 7.0}, "contradiction"), ({"rope_factor": 8.0}, "contradiction")],
)
def test_option_that_the_config_denies_is_refused(
    tmp_path: Path, said: dict[str, float], code: str
) -> None:
    assert refusal(meta_copy(tmp_path), HfOptions(), said=Said(**said)).code == code


def test_stray_files_are_named_and_not_copied(tmp_path: Path) -> None:
    source = meta_copy(tmp_path)
    for name in ("optimizer.pth", "old.safetensors", "checklist.chk", ".hidden", "tokenizer.model"):
        (source / name).write_text(name)
    (source / "logs").mkdir()
    report = ropeconv.convert(source, tmp_path / "out", HfOptions())
    said = " ".join(note.text for note in report.plan.notes)

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json", "model.safetensors", "ropeconv.json", "tokenizer.model",
    ]  # fmt: skip
    assert all(f"`{name}`" in said for name in ("optimizer.pth", "old.safetensors", "logs"))


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    report = ropeconv.convert(meta_copy(tmp_path), tmp_path / "out", HfOptions(), dry_run=True)

    assert not report.done
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llama"]
