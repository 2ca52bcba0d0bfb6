"""PyTorch's zip files (`.pth`), read and written without torch and without running a pickle.

A file is a zip of stored entries under one root folder: `data.pkl` describes the tensors, `data/N`
holds the bytes of storage N. `torch_pickle` reads the description.

Source:
    https://github.com/pytorch/pytorch/blob/v2.6.0/torch/serialization.py and torch/_utils.py
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ropeconv.formats.checkpoint import StoredTensor, look_at, reason
from ropeconv.formats.torch_pickle import PickledTensor, interpret, kind_of
from ropeconv.words.errors import BrokenFile, HostileFile, SourceError, Unsupported

if TYPE_CHECKING:
    from pathlib import Path

MAX_PICKLE_NBYTES = 64 * 10**6  # 405B in 16 ranks has 0.2 MB; 100 000 tensors have 20 MB
MAX_ENTRIES = 200_000
LOCAL_HEADER_NBYTES = 30


@dataclass(frozen=True, kw_only=True)
class _Entry:
    offset: int  # of the data, in the file
    nbytes: int


def read_tensors(root: Path, name: str, file: int, rank: int) -> tuple[StoredTensor, ...]:
    """Every tensor of one `.pth`, with the place of its bytes in the file.

    Raises:
        HostileFile: the pickle asks for something that no weights need.
        BrokenFile: the zip, or an extent in it, does not hold together.
        Unsupported: a legacy file, or tensors that are no plain contiguous ones.
    """
    path = root / name
    entries, prefix = _entries(path, look_at(root, name).nbytes)
    pickle = entries[prefix + "data.pkl"]
    if pickle.nbytes > MAX_PICKLE_NBYTES:
        raise HostileFile(what=f"`{path}` describes its tensors in {pickle.nbytes} bytes")
    with path.open("rb") as handle:
        handle.seek(pickle.offset)
        program = handle.read(pickle.nbytes)
        if prefix + "byteorder" in entries:
            order = entries[prefix + "byteorder"]
            handle.seek(order.offset)
            if handle.read(min(order.nbytes, 16)) != b"little":
                raise Unsupported(
                    what=f"`{path}` is big-endian",
                    fix="load and save it once with torch on a little-endian machine",
                )
    found = interpret(program, path)
    if isinstance(found, dict) and set(found) in ({"model"}, {"state_dict"}):
        (found,) = found.values()  # one wrapper in use around Meta's own names
    if not isinstance(found, dict):
        raise Unsupported(
            what=f"`{path}` holds a {kind_of(found)}, expected a state dict",
            fix="save the state dict of the model alone",
        )
    return tuple(
        _place(path, key, value, entries, prefix, file, rank) for key, value in found.items()
    )


def read_record(root: Path, name: str, record: str) -> str | None:
    """A small text entry beside the tensors; None if there is none."""
    path = root / name
    entries, prefix = _entries(path, look_at(root, name).nbytes)
    entry = entries.get(prefix + record)
    if entry is None:
        return None
    with path.open("rb") as handle:
        handle.seek(entry.offset)
        return handle.read(min(entry.nbytes, 256)).decode("ascii", "replace")


def _entries(path: Path, size: int) -> tuple[dict[str, _Entry], str]:
    try:
        with path.open("rb") as handle:
            _check_magic(path, handle.read(64))
            with zipfile.ZipFile(handle) as archive:
                listed = archive.infolist()
            if len(listed) > MAX_ENTRIES:
                raise HostileFile(what=f"`{path}` has {len(listed)} entries, at most {MAX_ENTRIES}")
            entries: dict[str, _Entry] = {}
            for info in listed:
                if info.filename in entries:
                    raise BrokenFile(what=f"`{path}` has the entry `{info.filename[:80]}` twice")
                if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                    raise Unsupported(
                        what=f"`{path}` has a compressed or encrypted entry `{info.filename[:80]}`",
                        why="PyTorch stores tensors as they are",
                        fix="load and save it once with torch.save",
                    )
                handle.seek(info.header_offset)
                header = handle.read(LOCAL_HEADER_NBYTES)
                if len(header) < LOCAL_HEADER_NBYTES or header[:4] != b"PK\x03\x04":
                    raise BrokenFile(what=f"`{path}` has no entry where its directory says")
                skip = int.from_bytes(header[26:28], "little") + int.from_bytes(
                    header[28:30], "little"
                )
                offset = info.header_offset + LOCAL_HEADER_NBYTES + skip
                if offset + info.file_size > size or info.file_size != info.compress_size:
                    raise BrokenFile(
                        what=f"entry `{info.filename[:80]}` of `{path}` ends outside the file",
                        fix="the file is truncated; download it again",
                    )
                entries[info.filename] = _Entry(offset=offset, nbytes=info.file_size)
    except OSError as error:
        raise SourceError(what=f"cannot read `{path}`", why=reason(error)) from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError) as error:
        raise BrokenFile(
            what=f"`{path}` is no intact zip file",
            why=str(error)[:200].lower(),
            fix="the file is truncated or damaged; download it again",
        ) from error
    _check_apart(path, entries)
    prefixes = [key[: -len("data.pkl")] for key in entries if key.endswith("/data.pkl")]
    if len(prefixes) != 1:
        raise BrokenFile(what=f"`{path}` has {len(prefixes)} entries `data.pkl`, expected one")
    return entries, prefixes[0]


def _check_magic(path: Path, head: bytes) -> None:
    if head.startswith(b"PK\x03\x04"):
        return
    if head.lstrip()[:1] == b"<":
        raise BrokenFile(
            what=f"`{path}` is a web page, expected weights",
            why="a download without permission saves the login page",
            fix="download the file again, with access granted",
        )
    if head.startswith((b"\x80\x02", b"\x80\x04")):
        raise Unsupported(
            what=f"`{path}` is in PyTorch's format from before 1.6, which is a bare pickle",
            why="such a file can only be read by executing it",
            fix="load and save it once with a current torch.save, on a machine that may run it",
        )
    raise BrokenFile(what=f"`{path}` is no PyTorch file", why="it does not begin like a zip file")


def _check_apart(path: Path, entries: dict[str, _Entry]) -> None:
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if entry.offset < position:
            raise BrokenFile(what=f"entry `{name[:80]}` of `{path}` overlaps the one before it")
        position = entry.offset + entry.nbytes


def _place(
    path: Path,
    key: object,
    value: object,
    entries: dict[str, _Entry],
    prefix: str,
    file: int,
    rank: int,
) -> StoredTensor:
    if not isinstance(key, str) or not isinstance(value, PickledTensor):
        raise Unsupported(
            what=f"`{path}` holds a {kind_of(value)} under"
            f" `{str(key)[:80]}`,"
            " expected tensors only",
            fix="save the state dict of the model alone",
        )
    entry = entries.get(f"{prefix}data/{value.storage.key}")
    if entry is None:
        raise BrokenFile(
            what=f"tensor `{key[:120]}` of `{path}` lies in a storage that is not there"
        )
    if not _is_contiguous(value.shape, value.stride):
        raise Unsupported(
            what=f"tensor `{key[:120]}` of `{path}` has strides {value.stride} for shape"
            f" {value.shape}",
            why="a transposed or sliced view was saved",
            fix="call .contiguous() on it before torch.save",
        )
    begin = value.offset * value.dtype.nbytes
    nbytes = math.prod(value.shape) * value.dtype.nbytes
    if begin < 0 or begin + nbytes > entry.nbytes:
        raise BrokenFile(
            what=f"tensor `{key[:120]}` of `{path}` reaches to byte {begin + nbytes} of a storage"
            " with"
            f" {entry.nbytes}",
        )
    return StoredTensor(
        name=key,
        dtype=value.dtype,
        shape=value.shape,
        file=file,
        offset=entry.offset + begin,
        rank=rank,
    )


def _is_contiguous(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    if len(shape) != len(stride) or any(size < 0 for size in shape):
        return False
    expected = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size not in (0, 1) and step != expected:
            return False
        expected *= max(size, 1)
    return True
