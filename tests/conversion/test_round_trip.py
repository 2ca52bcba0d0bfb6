"""There and back again, from both starts, byte for byte; alone blind to mistakes made both ways."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import ropeconv
from fixtures import make_small, meta_folder
from ropeconv import HfOptions, MetaOptions
from tests.conftest import SMALL, said_of
from tests.oracles import published

SIZES = {"dim", "n_layers", "n_heads", "norm_eps"}
EIGHT = make_small.Case(
    purpose="eight ranks for two kv heads",
    params={
        "dim": 80, "n_layers": 2, "n_heads": 8, "n_kv_heads": 2, "vocab_size": 56, "multiple_of": 8,
        "ffn_dim_multiplier": 0.25, "norm_eps": 1e-5, "rope_theta": 10000.0,
    },
    values="eight",
    vocab_size=56,
    num_ranks=8,
)  # fmt: skip


def write_case(folder: Path, case: make_small.Case) -> Path:
    folder.mkdir()
    (folder / "params.json").write_text(make_small.params_text(case))
    for name, tensors in make_small.rank_files(case).items():
        torch.save(tensors, folder / name)
    return folder


def ranks_of(folder: Path) -> list[dict[str, Any]]:
    return [published.bits(rank) for rank in meta_folder.read_ranks(folder)]


@pytest.mark.parametrize("name", sorted(make_small.CASES))
def test_meta_to_hf_and_back_gives_every_rank_its_bytes(
    tmp_path: Path, converted: Callable[[str], Path], name: str
) -> None:
    case = make_small.CASES[name]
    ropeconv.convert(converted(name), tmp_path / "back", MetaOptions(num_ranks=case.num_ranks))
    before, after = (meta_folder.read_params(f) for f in (SMALL / name, tmp_path / "back"))

    assert ranks_of(tmp_path / "back") == ranks_of(SMALL / name)
    assert {key: after[key] for key in SIZES} == {key: before[key] for key in SIZES}
    assert after["vocab_size"] == case.vocab_size
    assert after["n_kv_heads"] == (before.get("n_kv_heads") or before["n_heads"])
    assert after["rope_theta"] == before.get("rope_theta", 1e4)
    assert meta_folder.feed_forward_width(after) == meta_folder.feed_forward_width(before)


def test_meta_in_eight_ranks_to_hf_and_back_gives_every_rank_its_bytes(tmp_path: Path) -> None:
    source = write_case(tmp_path / "eight", EIGHT)
    ropeconv.convert(source, tmp_path / "hf", HfOptions())
    ropeconv.convert(tmp_path / "hf", tmp_path / "back", MetaOptions(num_ranks=8))
    whole = make_small.whole_weights(EIGHT)

    assert ranks_of(tmp_path / "back") == ranks_of(source)
    expected = published.to_hf(whole, 8, 2)
    assert published.bits(load_file(tmp_path / "hf" / "model.safetensors")) == published.bits(
        expected
    )


@pytest.mark.parametrize("name", sorted(make_small.CASES))
def test_hf_to_meta_and_back_gives_the_same_files(
    tmp_path: Path, converted: Callable[[str], Path], name: str
) -> None:
    """Not only tensors: config.json and the weights are the same bytes."""
    ropeconv.convert(converted(name), tmp_path / "meta", MetaOptions())
    ropeconv.convert(tmp_path / "meta", tmp_path / "back", HfOptions(), said=said_of(name))

    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "back" / file).read_bytes() == (converted(name) / file).read_bytes(), (
            file
        )


def pretrained(folder: Path, *, tied: bool = False, **options: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(7)
    config = transformers.LlamaConfig(
        hidden_size=60, intermediate_size=48, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, vocab_size=52, rms_norm_eps=1e-6, max_position_embeddings=999,
        tie_word_embeddings=tied, bos_token_id=3, eos_token_id=[4, 5], pad_token_id=6,
        rope_parameters={"rope_type": "llama3", "rope_theta": 12345.0, "factor": 8.0,
                         "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 8192},
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder, **options)
    return config


def tensors_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for file in folder.glob("*.safetensors"):
        found |= published.bits(load_file(file))
    return found


@pytest.mark.peer
@pytest.mark.parametrize(
    ("tied", "options", "num_files"),
    [(False, {}, 1), (True, {}, 1), (False, {"max_shard_size": "20KB"}, None)],
    ids=["whole", "tied", "sharded"],
)
def test_folder_that_transformers_saved_survives_the_trip(
    tmp_path: Path, *, tied: bool, options: dict[str, str], num_files: int | None
) -> None:
    transformers = pytest.importorskip("transformers")
    config = pretrained(tmp_path / "hf", tied=tied, **options)
    files = list((tmp_path / "hf").glob("*.safetensors"))
    assert len(files) == num_files if num_files else len(files) > 3
    assert "rope_theta" not in json.loads((tmp_path / "hf" / "config.json").read_text())
    ropeconv.convert(tmp_path / "hf", tmp_path / "meta", MetaOptions(num_ranks=2))
    limit = 20_000 if num_files is None else 10**9
    ropeconv.convert(tmp_path / "meta", tmp_path / "back", HfOptions(max_shard_nbytes=limit))
    back = transformers.AutoConfig.from_pretrained(tmp_path / "back")
    new = {"_name_or_path", "dtype", "torch_dtype", "rope_theta", "rope_scaling", "architectures"}

    assert tensors_of(tmp_path / "back") == tensors_of(tmp_path / "hf")
    assert ("lm_head.weight" in tensors_of(tmp_path / "back")) is not tied
    for key, value in config.to_dict().items():
        if key not in new:
            assert getattr(back, key) == value, key
    if num_files is None:
        index = json.loads((tmp_path / "back" / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(
            len(data) for _, _, data in tensors_of(tmp_path / "hf").values()
        )
        assert set(index["weight_map"]) == set(tensors_of(tmp_path / "hf"))


@pytest.mark.parametrize(("num_ranks", "firsts"), [(1, [0]), (2, [0, 10]), (4, [0, 0, 10, 10])])
def test_kv_heads_on_more_ranks_than_heads_lie_on_neighbours(
    tmp_path: Path, converted: Callable[[str], Path], num_ranks: int, firsts: list[int]
) -> None:
    """Head 0 on ranks 0 and 1, head 1 on 2 and 3; the other way, 0 1 0 1, is a silent mistake."""
    ropeconv.convert(
        converted("llama-replicated-kv"), tmp_path / "out", MetaOptions(num_ranks=num_ranks)
    )
    ranks = meta_folder.read_ranks(tmp_path / "out")
    whole = meta_folder.read_joined(SMALL / "llama-replicated-kv")
    expected = meta_folder.split(whole, num_ranks=num_ranks, num_kv_heads=2, embedding_axis=0)

    assert [256 * float(rank["layers.1.attention.wk.weight"][0, 0]) for rank in ranks] == firsts
    assert [published.bits(rank) for rank in ranks] == [published.bits(rank) for rank in expected]


def test_embedding_is_split_by_feature_for_the_first_generations(
    tmp_path: Path, converted: Callable[[str], Path]
) -> None:
    """A vocabulary below 32768 and no trace of the original: as Llama 1 and 2 have it."""
    plain = tmp_path / "hf"
    plain.mkdir()
    for name in ("config.json", "model.safetensors"):
        (plain / name).write_bytes((converted("llama-1-rank") / name).read_bytes())
    ropeconv.convert(plain, tmp_path / "out", MetaOptions(num_ranks=2))
    ranks = meta_folder.read_ranks(tmp_path / "out")

    assert [tuple(rank["tok_embeddings.weight"].shape) for rank in ranks] == [(52, 30)] * 2
    assert {rank["rope.freqs"].dtype for rank in ranks} == {torch.float32}
    torch.testing.assert_close(
        ranks[1]["rope.freqs"], 500000.0 ** (-torch.arange(0, 10, 2) / 10), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(("jobs", "block_nbytes"), [(1, 1 << 20), (8, 1 << 20), (2, 4096)])
def test_target_is_the_same_bytes_for_any_effort(
    tmp_path: Path, converted: Callable[[str], Path], jobs: int, block_nbytes: int
) -> None:
    from ropeconv.moving.effort import Effort  # noqa: PLC0415 - not part of the public names

    effort = Effort(jobs=jobs, block_nbytes=block_nbytes)
    ropeconv.convert(SMALL / "llama-2-ranks", tmp_path / "out", HfOptions(), effort=effort)

    assert contents(tmp_path / "out") == contents(converted("llama-2-ranks"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
