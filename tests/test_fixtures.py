"""The fixtures are what their scripts and expected.json say, and they can tell right from wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures import make_small, meta_folder, train
from ropeconv.proof.forward import greedy

KJV = Path(train.__file__).parent / "kjv-llama"
# Nats per byte. The same float32 sums in another order moved the loss by 6e-8 between two machines.
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((KJV / "expected.json").read_text())
    return facts


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return meta_folder.read_joined(KJV)


architecture = meta_folder.architecture_of(meta_folder.read_params(KJV))
heldout = (KJV / "heldout.txt").read_bytes()


def test_trained_files_are_those_that_were_described(expected: dict[str, Any]) -> None:
    found = {
        name: hashlib.sha256((KJV / name).read_bytes()).hexdigest() for name in expected["sha256"]
    }

    assert found == expected["sha256"]
    assert sum(file.stat().st_size for file in KJV.iterdir()) < 6_000_000


def test_trained_model_gives_the_expected_loss(
    expected: dict[str, Any], weights: dict[str, torch.Tensor]
) -> None:
    loss = train.heldout_loss(weights, architecture, heldout)

    assert loss == pytest.approx(expected["measured"]["loss_nats_per_byte"], abs=ROUNDING)
    assert loss < 1.0


def test_trained_model_fails_when_rows_are_not_reordered(
    expected: dict[str, Any], weights: dict[str, torch.Tensor]
) -> None:
    """The control: what makes the loss a test of the layout at all."""
    wrong = train.not_reordered(weights, architecture)
    loss = train.heldout_loss(wrong, architecture, heldout)

    assert loss == pytest.approx(expected["measured"]["loss_not_reordered"], abs=ROUNDING)
    assert loss > 3.0


def test_trained_model_continues_as_expected(
    expected: dict[str, Any], weights: dict[str, torch.Tensor]
) -> None:
    prompt = train.as_tokens(expected["greedy"]["prompt"].encode()).long()
    text = bytes(greedy(weights, architecture, prompt, 40).tolist()).decode()

    # A tie would make the text depend on rounding.
    assert expected["greedy"]["smallest_lead"] > 1e-3
    assert text == expected["greedy"]["prompt"] + expected["greedy"]["continuation"][:40]


def test_trained_weights_tell_their_layout(weights: dict[str, torch.Tensor]) -> None:
    evidence = train.layout_evidence(weights, architecture)
    z = {shuffles: train.z_of(scores) for shuffles, scores in evidence.items()}

    assert z.keys() == {0, 1, 2, -1, -2}  # head_dim 32: five reorders are none
    assert z.pop(0) > 10
    assert max(z.values()) < 3


def test_trained_weights_reordered_tell_how_often(weights: dict[str, torch.Tensor]) -> None:
    """Taken for half-split and moved to interleaved: once the wrong way."""
    wrong = train.not_reordered(weights, architecture)
    evidence = train.layout_evidence(wrong, architecture)

    assert max(evidence, key=lambda shuffles: train.z_of(evidence[shuffles])) == -1


def test_every_rank_tensor_has_a_storage_of_its_own_size() -> None:
    for folder in (KJV, *sorted(make_small.FOLDER.glob("llama*"))):
        for rank in meta_folder.read_ranks(folder):
            storages = {tensor.untyped_storage().data_ptr() for tensor in rank.values()}
            oversized = [
                name
                for name, tensor in rank.items()
                if tensor.untyped_storage().nbytes() != tensor.nbytes
            ]

            assert oversized == []
            assert len(storages) == len(rank)


def test_small_fixtures_are_what_their_script_makes() -> None:
    assert make_small.differences(make_small.FOLDER) == []


def test_small_fixtures_with_a_flipped_bit_or_a_stray_file_are_noticed(tmp_path: Path) -> None:
    """The control of the test above, on the bits of a NaN: they compare unequal to themselves."""
    folder = tmp_path / "small"
    shutil.copytree(make_small.FOLDER, folder)
    file = folder / "llama-odd-bits" / "consolidated.00.pth"
    tensors = torch.load(file, weights_only=True)
    bits = tensors["layers.0.attention.wq.weight"].view(torch.int16)
    bits[0, 1] ^= 1
    torch.save(tensors, file)
    (folder / "llama" / "optimizer.pth").touch()

    assert make_small.differences(folder) == [
        "llama-odd-bits/consolidated.00.pth: `layers.0.attention.wq.weight` differs",
        "llama/optimizer.pth: not expected",
    ]


def test_small_ranks_join_to_the_model_that_was_never_split() -> None:
    whole = meta_folder.read_joined(make_small.FOLDER / "llama-1-rank")
    joined = meta_folder.read_joined(make_small.FOLDER / "llama-2-ranks")

    assert {name: make_small.fingerprint(tensor) for name, tensor in joined.items()} == {
        name: make_small.fingerprint(tensor) for name, tensor in whole.items()
    }


def test_small_replicated_heads_lie_on_neighbouring_ranks() -> None:
    """Column 0 holds row / 256: ranks 0 and 1 begin with row 0, ranks 2 and 3 with row 10."""
    ranks = meta_folder.read_ranks(make_small.FOLDER / "llama-replicated-kv")
    first_rows = [256 * float(rank["layers.1.attention.wk.weight"][0, 0]) for rank in ranks]

    assert first_rows == [0, 0, 10, 10]
    joined = meta_folder.read_joined(make_small.FOLDER / "llama-replicated-kv")
    assert joined["layers.1.attention.wk.weight"].shape == (20, 80)


def test_small_first_generation_splits_embeddings_by_feature() -> None:
    ranks = meta_folder.read_ranks(make_small.FOLDER / "llama-first-generation")

    assert [tuple(rank["tok_embeddings.weight"].shape) for rank in ranks] == [(52, 30), (52, 30)]
    assert {rank["rope.freqs"].dtype for rank in ranks} == {torch.float16}


def test_small_odd_bits_keep_payloads_and_minus_zero() -> None:
    (rank,) = meta_folder.read_ranks(make_small.FOLDER / "llama-odd-bits")
    found = {
        dtype: {
            number & (0xFFFF if dtype != torch.float32 else 0xFFFFFFFF)
            for tensor in rank.values()
            if tensor.dtype == dtype
            for number in tensor.view(make_small.ODD_BITS[dtype][0]).flatten().tolist()
        }
        for dtype in make_small.ODD_BITS
    }

    missing = {
        dtype: set(patterns) - found[dtype] for dtype, (_, patterns) in make_small.ODD_BITS.items()
    }
    assert not any(missing.values()), missing
