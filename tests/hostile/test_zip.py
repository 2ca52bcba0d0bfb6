"""Zip files that were cut, bent or forged: an error of ropeconv's, quickly, and nothing else."""

from __future__ import annotations

import random
import struct
import warnings
import zipfile
from pathlib import Path

import pytest
from forge import DATA, PTH, entries, pth, state_dict, tensor, zip_file

from fixtures import make_small
from ropeconv.formats import torch_zip
from ropeconv.formats.torch_zip import read_record, read_tensors
from ropeconv.words.errors import BrokenFile, HostileFile, RopeconvError, SourceError, Unsupported

HONEST = make_small.FOLDER / "llama-1-rank" / PTH
PROGRAM = state_dict(("w", tensor()))


def refusal(folder: Path) -> RopeconvError:
    with pytest.raises(RopeconvError) as caught:
        read_tensors(folder, PTH, 0, 0)
    return caught.value


def test_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = HONEST.read_bytes()
    assert len(read_tensors(HONEST.parent, PTH, 0, 0)) == 21
    tail = range(len(whole) - 2500, len(whole), 7)  # the directory
    for size in [*range(0, len(whole), 1501), *tail, len(whole) - 1]:
        (tmp_path / PTH).write_bytes(whole[:size])
        error = refusal(tmp_path)

        assert error.exit_code == 4, (size, error)


def test_file_with_flipped_bits_is_read_inside_its_bounds_or_refused(tmp_path: Path) -> None:
    """Flips in the pickle, the directory and the headers: nothing but an answer may come out."""
    whole = pth(tmp_path, PROGRAM).read_bytes()
    rng = random.Random(20)
    refused = 0
    for _ in range(500):
        bent = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 8))):
            bent[rng.randrange(len(bent))] ^= 1 << rng.randrange(8)
        (tmp_path / PTH).write_bytes(bent)
        try:
            found = read_tensors(tmp_path, PTH, 0, 0)
        except RopeconvError:
            refused += 1
        else:
            assert all(t.offset >= 0 and t.offset + t.nbytes <= len(bent) for t in found), bent
    assert 100 < refused < 495, "most flips must matter, and some must not"


def test_entry_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile's, about exactly this
        zip_file(tmp_path / PTH, [*entries(PROGRAM), ("a/data/0", bytes(48))])

    assert isinstance(refusal(tmp_path), BrokenFile)


def test_two_pickles_are_refused(tmp_path: Path) -> None:
    zip_file(tmp_path / PTH, [*entries(PROGRAM), ("b/data.pkl", PROGRAM)])

    assert "2 entries `data.pkl`" in refusal(tmp_path).what


def test_zip_without_a_pickle_is_refused(tmp_path: Path) -> None:
    zip_file(tmp_path / PTH, [("a/data/0", DATA)])

    assert "0 entries `data.pkl`" in refusal(tmp_path).what


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_entries_are_refused(tmp_path: Path, method: int) -> None:
    """A pickle of a few bytes could unpack to any number of them."""
    zip_file(tmp_path / PTH, entries(PROGRAM), method)

    assert isinstance(refusal(tmp_path), Unsupported)


def directory_field(data: bytes, name: bytes, field: int) -> int:
    """The place of a field of an entry's record in the central directory."""
    at = -1
    while True:
        at = data.index(b"PK\x01\x02", at + 1)
        if data[at + 46 :].startswith(name):
            return at + field


@pytest.mark.parametrize(
    ("why", "field", "form", "value"),
    [
        ("encrypted", 8, "<H", 1),
        ("larger than the file", 24, "<I", 1 << 30),
        ("another size unpacked", 24, "<I", 47),
        ("begins in the middle", 42, "<I", 7),
        ("begins outside", 42, "<I", 1 << 30),
        ("on another disk", 34, "<H", 9),
    ],
)
def test_directory_that_lies_is_refused(
    tmp_path: Path, why: str, field: int, form: str, value: int
) -> None:
    data = bytearray(pth(tmp_path, PROGRAM).read_bytes())
    struct.pack_into(form, data, directory_field(data, b"a/data/0", field), value)
    (tmp_path / PTH).write_bytes(data)
    if why == "on another disk":  # no reader of weights looks at it; what counts is the place
        assert len(read_tensors(tmp_path, PTH, 0, 0)) == 1
        return

    assert isinstance(refusal(tmp_path), BrokenFile | Unsupported), why


def test_entries_that_overlap_are_refused(tmp_path: Path) -> None:
    """Two names for the same bytes: what a scanner reads is not what a loader takes."""
    zip_file(tmp_path / PTH, [*entries(PROGRAM), ("a/data/1", DATA)])
    data = bytearray((tmp_path / PTH).read_bytes())
    first = struct.unpack_from("<I", data, directory_field(data, b"a/data/0", 42))[0]
    struct.pack_into("<I", data, directory_field(data, b"a/data/1", 42), first)
    (tmp_path / PTH).write_bytes(data)

    assert "overlaps the one before it" in refusal(tmp_path).what


def test_offset_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    """A zip64 field of 2^64 - 1 is larger than the system's own offsets."""
    data = bytearray(pth(tmp_path, PROGRAM).read_bytes())
    at = directory_field(data, b"a/data/0", 0)
    name_length = 8
    extra = struct.pack("<HHQ", 1, 8, 2**64 - 1)
    struct.pack_into("<H", data, at + 30, len(extra))
    struct.pack_into("<I", data, at + 42, 0xFFFFFFFF)
    data[at + 46 + name_length : at + 46 + name_length] = extra
    end = data.rindex(b"PK\x05\x06")
    size = struct.unpack_from("<I", data, end + 12)[0]
    struct.pack_into("<I", data, end + 12, size + len(extra))
    (tmp_path / PTH).write_bytes(data)

    assert isinstance(refusal(tmp_path), BrokenFile)


def test_more_entries_than_any_checkpoint_has_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_zip, "MAX_ENTRIES", 2)
    pth(tmp_path, PROGRAM)

    assert isinstance(refusal(tmp_path), HostileFile)


def test_pickle_of_absurd_size_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_zip, "MAX_PICKLE_NBYTES", 10)
    pth(tmp_path, PROGRAM)

    assert isinstance(refusal(tmp_path), HostileFile)


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"", BrokenFile, "is no PyTorch file"),
        (b"<!DOCTYPE html><html><title>Sign in</title></html>", BrokenFile, "is a web page"),
        (b"\n  <html>", BrokenFile, "is a web page"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", Unsupported, "before 1.6"),
        (b"version https://git-lfs.github.com/spec/v1\n", BrokenFile, "is no PyTorch file"),
        (b"PK\x03\x04", BrokenFile, "is no intact zip file"),
        (b"PK\x05\x06" + bytes(18), BrokenFile, "is no PyTorch file"),
    ],
)
def test_file_that_is_something_else_is_called_by_its_name(
    tmp_path: Path, content: bytes, kind: type[RopeconvError], words: str
) -> None:
    (tmp_path / PTH).write_bytes(content)
    error = refusal(tmp_path)

    assert isinstance(error, kind)
    assert words in error.what


def test_big_endian_file_is_refused(tmp_path: Path) -> None:
    listed = [(n, b"big" if n.endswith("order") else data) for n, data in entries(PROGRAM)]
    zip_file(tmp_path / PTH, listed)

    assert "is big-endian" in refusal(tmp_path).what


def test_missing_file_is_said_to_be_unreadable(tmp_path: Path) -> None:
    assert isinstance(refusal(tmp_path), SourceError)


def test_record_beside_the_tensors_is_read_in_part_only(tmp_path: Path) -> None:
    zip_file(tmp_path / PTH, [*entries(PROGRAM), ("a/ropeconv.layout", b"\xff" * 10**6)])
    found = read_record(tmp_path, PTH, "ropeconv.layout")

    assert found is not None
    assert len(found) == 256
