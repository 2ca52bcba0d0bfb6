"""safetensors headers that lie about themselves, their tensors or the file."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from forge import safetensors

from fixtures import make_small
from ropeconv.formats.safetensors import MAX_HEADER_NBYTES, read_header
from ropeconv.words.errors import BrokenFile, HostileFile, RopeconvError, Unsupported

NAME = "model.safetensors"
HONEST = make_small.FOLDER / "mistral" / "consolidated.safetensors"


def entry(
    begin: object = 0, end: object = 12, shape: object = (2, 3), dtype: object = "BF16"
) -> Any:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def refusal(folder: Path) -> RopeconvError:
    with pytest.raises(RopeconvError) as caught:
        read_header(folder, NAME, 0)

    assert len(str(caught.value)) < 1000
    return caught.value


def test_honest_header_of_this_forge_is_read(tmp_path: Path) -> None:
    safetensors(tmp_path / NAME, {"w": entry()}, bytes(12))

    assert read_header(tmp_path, NAME, 0).tensors[0].shape == (2, 3)


@pytest.mark.parametrize("length", [60, 60 + 256, 63])
def test_header_whose_length_looks_like_a_bracket_is_read(tmp_path: Path, length: int) -> None:
    """A length of 60 begins with the byte of `<`: that alone is no web page."""
    header = json.dumps({"w": entry()}).encode()
    safetensors(tmp_path / NAME, header.ljust(max(length, len(header))), bytes(12))
    if len(header) > length:
        header = json.dumps({"w": entry()}, separators=(",", ":")).encode()
        safetensors(tmp_path / NAME, header.ljust(length), bytes(12))

    assert (tmp_path / NAME).read_bytes()[0] == length % 256
    assert read_header(tmp_path, NAME, 0).tensors[0].nbytes == 12


@pytest.mark.parametrize("page", [b"<!DOCTYPE html>", b"<html><head></head></html>", b"<?xml ?>  "])
def test_web_page_is_called_one(tmp_path: Path, page: bytes) -> None:
    (tmp_path / NAME).write_bytes(page)

    assert "is a web page" in refusal(tmp_path).what


@pytest.mark.parametrize("claim", [1, 8, 2**31, 2**63, 2**64 - 1])
def test_header_longer_than_the_file_is_refused_with_both_sizes(tmp_path: Path, claim: int) -> None:
    (tmp_path / NAME).write_bytes(claim.to_bytes(8, "little"))
    error = refusal(tmp_path)

    assert isinstance(error, BrokenFile)
    assert f"has 8 bytes, its header alone claims {claim}" in error.what


def test_header_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / NAME).open("wb") as handle:
        handle.write((MAX_HEADER_NBYTES + 1).to_bytes(8, "little"))
        handle.truncate(2 * MAX_HEADER_NBYTES)  # sparse: takes no room

    assert isinstance(refusal(tmp_path), HostileFile)


def test_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = HONEST.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for size in [*range(0, header, 11), *range(header, len(whole), 1499), len(whole) - 1]:
        (tmp_path / NAME).write_bytes(whole[:size])

        assert isinstance(refusal(tmp_path), BrokenFile), size


def test_file_with_flipped_bits_is_read_inside_its_bounds_or_refused(tmp_path: Path) -> None:
    path = safetensors(
        tmp_path / NAME,
        {"__metadata__": {"format": "pt"}, "w": entry(), "v": entry(12, 24)},
        bytes(24),
    )
    whole = path.read_bytes()
    rng = random.Random(20)
    refused = 0
    for _ in range(800):
        bent = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 8))):
            bent[rng.randrange(len(bent))] ^= 1 << rng.randrange(8)
        path.write_bytes(bent)
        try:
            found = read_header(tmp_path, NAME, 0).tensors
        except RopeconvError:
            refused += 1
        else:
            assert all(t.offset >= 0 and t.offset + t.nbytes <= len(bent) for t in found), bent
    assert 200 < refused < 795, "most flips must matter, and some must not"


@pytest.mark.parametrize(
    ("why", "header", "kind"),
    [
        ("no JSON", b"{", BrokenFile),
        ("no object", b"[]", BrokenFile),
        ("no UTF-8", b'{"\xff": 1}', BrokenFile),
        ("NaN", b'{"w": NaN}', BrokenFile),
        ("nested", b"[" * 200_000, BrokenFile),
        ("nested objects", b'{"a":' * 200_000, BrokenFile),
        ("name twice", b'{"w": 1, "w": 2}', BrokenFile),
        ("number", {"w": 3}, BrokenFile),
        ("no dtype", {"w": {"shape": [6], "data_offsets": [0, 12]}}, BrokenFile),
        ("unknown dtype", {"w": entry(dtype="F4")}, Unsupported),
        ("dtype that is a number", {"w": entry(dtype=3)}, BrokenFile),
        ("dtype by attribute", {"w": entry(dtype="__class__")}, Unsupported),
        ("shape of strings", {"w": entry(shape=["2", "3"])}, BrokenFile),
        ("shape of truths", {"w": entry(shape=[True, 6])}, BrokenFile),
        ("shape of fractions", {"w": entry(shape=[2.0, 3])}, BrokenFile),
        ("negative shape", {"w": entry(shape=[-2, -3])}, BrokenFile),
        ("too many elements", {"w": entry(shape=[2, 4])}, BrokenFile),
        ("too few elements", {"w": entry(shape=[2, 2])}, BrokenFile),
        ("huge shape", {"w": entry(shape=[2**62, 2**62])}, BrokenFile),
        ("size of 4000 digits", {"w": entry(shape=[10**4000, 10**4000])}, BrokenFile),
        ("size of 5000 digits", b'{"w": {"shape": [' + b"9" * 5000 + b"]}}", BrokenFile),
        ("many axes", {"w": entry(shape=[9] * 200_000)}, BrokenFile),
        ("ends before it begins", {"w": entry(12, 0)}, BrokenFile),
        ("begins below zero", {"w": entry(-12, 0)}, BrokenFile),
        ("offsets of fractions", {"w": entry(0.0, 12.0)}, BrokenFile),
        ("one offset", {"w": entry() | {"data_offsets": [12]}}, BrokenFile),
        ("gap at the start", {"w": entry(1, 13)}, BrokenFile),
        ("overlap", {"w": entry(), "v": entry(6, 18)}, BrokenFile),
        ("same bytes", {"w": entry(), "v": entry()}, BrokenFile),
        ("gap", {"w": entry(), "v": entry(13, 25)}, BrokenFile),
        ("nothing described", {}, BrokenFile),
        ("metadata of numbers", {"__metadata__": {"a": 1}, "w": entry()}, BrokenFile),
        ("metadata that is a list", {"__metadata__": [], "w": entry()}, BrokenFile),
        ("long name", {"w" * 10**6: entry(1, 13)}, BrokenFile),
    ],
)  # fmt: skip
def test_header_that_lies_is_refused(
    tmp_path: Path, why: str, header: object, kind: type[RopeconvError]
) -> None:
    safetensors(tmp_path / NAME, header, bytes(12))

    assert type(refusal(tmp_path)) is kind, why


def test_header_of_many_equal_names_is_refused_quickly(tmp_path: Path) -> None:
    """Which name stands twice must not be searched for once for each name."""
    names = ",".join(f'"{number}":0' for number in [*range(150_000), 149_999])
    safetensors(tmp_path / NAME, f"{{{names}}}".encode())

    assert "has the key `149999` twice" in refusal(tmp_path).what


def test_bytes_after_the_last_tensor_are_refused(tmp_path: Path) -> None:
    """Something else could hide there, and be believed by another reader."""
    safetensors(tmp_path / NAME, {"w": entry()}, bytes(13))

    assert isinstance(refusal(tmp_path), BrokenFile)
