"""safetensors headers, read and written. Data bytes are moved elsewhere.

A file is 8 bytes of little-endian header length, a JSON header, then the data. The header names for
each tensor its dtype, shape and byte range; ranges tile the data without gap or overlap.

Source:
    https://github.com/huggingface/safetensors/blob/24b0b28/safetensors/src/tensor.rs
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ropeconv.formats.checkpoint import StoredTensor, look_at, parse_object, reason
from ropeconv.formats.new_file import Fixed, NewFile, NewTensor
from ropeconv.words.dtypes import DType
from ropeconv.words.errors import BrokenFile, HostileFile, SourceError, Unsupported

if TYPE_CHECKING:
    from pathlib import Path

MAX_HEADER_NBYTES = 100_000_000  # the format's own limit
PAGE_NBYTES = 4096  # of disks, file systems and memory; a multiple of the format's own 8
STAMP_ROOM_NBYTES = 64
LENGTH_NBYTES = 8
MAX_AXES = 64  # PyTorch's own limit
MAX_SIZE = 1 << 63
STOCK_ORDER = (  # in which the stock writer lays dtypes out
    DType.U64,
    DType.I64,
    DType.F64,
    DType.F32,
    DType.U32,
    DType.I32,
    DType.BF16,
    DType.F16,
    DType.U16,
    DType.I16,
    DType.F8_E8M0,
    DType.F8_E4M3,
    DType.F8_E5M2,
    DType.I8,
    DType.U8,
    DType.BOOL,
)


@dataclass(frozen=True, kw_only=True)
class Header:
    """A parsed header: tensors in the order of their bytes, and the free-form metadata."""

    tensors: tuple[StoredTensor, ...]
    metadata: tuple[tuple[str, str], ...]


def read_header(root: Path, name: str, file: int, rank: int = 0) -> Header:
    """The header of one file, checked against the file's size before anything is allocated."""
    path = root / name
    size = look_at(root, name).nbytes
    try:
        with path.open("rb") as handle:
            head = handle.read(LENGTH_NBYTES)
            if head[:1] == b"<" and any(head[4:]):  # else a length that begins with this byte
                raise BrokenFile(
                    what=f"`{path}` is a web page, expected safetensors",
                    why="a download without permission saves the login page",
                    fix="download the file again, with access granted",
                )
            length = int.from_bytes(head, "little")
            if len(head) < LENGTH_NBYTES or length > size - LENGTH_NBYTES:
                raise BrokenFile(
                    what=f"`{path}` has {size} bytes, its header alone claims {length}",
                    fix="download the file again",
                )
            if length > MAX_HEADER_NBYTES:
                raise HostileFile(
                    what=f"`{path}` claims a header of {length} bytes, at most {MAX_HEADER_NBYTES}",
                )
            raw = handle.read(length)
    except OSError as error:
        raise SourceError(what=f"cannot read `{path}`", why=reason(error)) from error
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BrokenFile(what=f"`{path}` has a header that is no UTF-8 text") from error
    header = parse_object(text, str(path))
    metadata = header.pop("__metadata__", {})
    if not _all_strings(metadata):
        raise BrokenFile(what=f"`{path}` has metadata that does not map strings to strings")
    start = LENGTH_NBYTES + length
    tensors = [_tensor(path, key, entry, start, file, rank) for key, entry in header.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.nbytes, tensor.name))
    _check_tiling(path, tensors, start, size)
    return Header(tensors=tuple(tensors), metadata=tuple(sorted(metadata.items())))


def _all_strings(metadata: object) -> bool:
    return isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())


def _tensor(path: Path, name: str, entry: object, start: int, file: int, rank: int) -> StoredTensor:
    match entry:
        case {"dtype": str(spelling), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise BrokenFile(what=f"`{path}` describes tensor `{name[:120]}` in an unknown form")
    if spelling not in DType.__members__:
        raise Unsupported(
            what=f"tensor `{name[:120]}` has the dtype `{spelling[:20]}`, which ropeconv does not"
            " know",
            why=f"known are {', '.join(DType.__members__)}",
        )
    # bounded before they are multiplied: the product of many sizes takes for ever
    if len(shape) > MAX_AXES or not all(type(s) is int and 0 <= s < MAX_SIZE for s in shape):
        raise BrokenFile(what=f"`{path}` gives tensor `{name[:120]}` an impossible shape")
    dtype = DType(spelling)
    expected = math.prod(shape) * dtype.nbytes
    if end - begin != expected or begin < 0:
        raise BrokenFile(
            what=f"tensor `{name[:120]}` in `{path}` has {end - begin} bytes, expected {expected}",
            why=f"its shape is {shape}, its dtype {spelling}",
        )
    return StoredTensor(
        name=name, dtype=dtype, shape=tuple(shape), file=file, offset=start + begin, rank=rank
    )


def _check_tiling(path: Path, tensors: Sequence[StoredTensor], start: int, size: int) -> None:
    position = start
    for tensor in tensors:
        if tensor.offset != position:
            word = "overlaps" if tensor.offset < position else "leaves a gap after"
            raise BrokenFile(
                what=f"tensor `{tensor.name[:120]}` in `{path}` {word} the tensor before it"
            )
        position += tensor.nbytes
    if position != size:
        raise BrokenFile(
            what=f"`{path}` has {size} bytes, its header describes {position}",
            fix="the file is truncated or has bytes appended; download it again",
        )


def new_safetensors(tensors: Sequence[NewTensor], metadata: Mapping[str, str]) -> NewFile:
    """A file with a deterministic header: wide dtypes first, so that each is aligned, then names.

    Data begins at a page, so that disks and reflinks can take it whole, and the header has room for
    another stamp, so that a layout can change in place.

    The order is that of the stock writer; keys of the metadata are sorted, which it does not do.
    """
    ordered = sorted(tensors, key=lambda tensor: (STOCK_ORDER.index(tensor.dtype), tensor.name))
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    begins: dict[str, int] = {}
    position = 0
    for tensor in ordered:
        begins[tensor.name] = position
        position += tensor.nbytes
        entries[tensor.name] = {
            "dtype": tensor.dtype.value,
            "shape": list(tensor.shape),
            "data_offsets": [begins[tensor.name], position],
        }
    text = _encoded(entries)
    data = _padded(
        text, -(-(LENGTH_NBYTES + len(text) + STAMP_ROOM_NBYTES) // PAGE_NBYTES) * PAGE_NBYTES
    )
    offsets = {name: len(data) + begin for name, begin in begins.items()}
    return NewFile(
        nbytes=len(data) + position,
        fixed=(Fixed(offset=0, data=data),),
        checksums=(),
        offsets=offsets,
    )


def restamped_header(header: Header, data_start: int, metadata: Mapping[str, str]) -> bytes:
    """A file's first bytes with other metadata, and its tensors as they were.

    Args:
        header: as it was read.
        data_start: where the data begins in the file as it is.
        metadata: all of it.

    Returns:
        Bytes that end where the data begins: at data_start if they fit, else whole pages later, so
        that data keeps its place within a page.
    """
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    for tensor in header.tensors:
        begin = tensor.offset - data_start
        entries[tensor.name] = {
            "dtype": tensor.dtype.value,
            "shape": list(tensor.shape),
            "data_offsets": [begin, begin + tensor.nbytes],
        }
    text = _encoded(entries)
    pages = max(0, -(-(LENGTH_NBYTES + len(text) - data_start) // PAGE_NBYTES))
    return _padded(text, data_start + pages * PAGE_NBYTES)


def _encoded(entries: Mapping[str, object]) -> bytes:
    return json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()


def _padded(text: bytes, end: int) -> bytes:
    """The length, the text and as many spaces as the file's data needs to begin at the end."""
    length = end - LENGTH_NBYTES
    return length.to_bytes(LENGTH_NBYTES, "little") + text.ljust(length)
