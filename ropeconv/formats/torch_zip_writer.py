"""The frame of a PyTorch zip file (`.pth`): every byte but the tensors' own, laid out in advance.

The result is what `torch.save` makes of a dict of contiguous tensors: stored entries, storages
aligned to 64 bytes by a padding field, zip64 records where sizes need them. CRC-32 fields are
listed to be patched, because they are known only when the data has passed by; `zipfile` and lazy
readers refuse a wrong one.

Source:
    https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, sections 4.3 to 4.5
    https://github.com/pytorch/pytorch/blob/v2.6.0/caffe2/serialize/inline_container.cc
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ropeconv.formats.new_file import Checksum, Fixed, NewFile, NewTensor
from ropeconv.formats.torch_pickle import STORAGE_NAMES
from ropeconv.formats.torch_zip import LOCAL_HEADER_NBYTES
from ropeconv.words.errors import Unsupported

ALIGNMENT = 64  # of a storage in the file, in bytes: PyTorch's own
LIMIT_32 = 0xFFFFFFFF
LIMIT_16 = 0xFFFF
JANUARY_1980 = 0x21  # the zip format's oldest date; a clock would make two runs differ
PADDING_FIELD = 0x4246  # "FB": PyTorch's id for the padding before a storage
ZIP64_FIELD = 1


@dataclass(frozen=True, kw_only=True)
class _Entry:
    name: bytes
    nbytes: int
    crc: int
    header_offset: int
    data_offset: int


def new_torch_zip(root: str, tensors: Sequence[NewTensor], records: Mapping[str, bytes]) -> NewFile:
    """The frame of a `.pth` with these tensors, in this order.

    Args:
        root: name of the folder inside the zip.
        tensors: what it is to hold.
        records: further small entries; torch ignores the names it does not know.
    """
    fixed: list[Fixed] = []
    entries: list[_Entry] = []
    offsets: dict[str, int] = {}
    position = 0

    def add(name: str, nbytes: int, data: bytes | None) -> int:
        nonlocal position
        crc = 0 if data is None else zlib.crc32(data)
        header = _local_header(f"{root}/{name}".encode(), nbytes, crc, position)
        entry = _Entry(
            name=f"{root}/{name}".encode(),
            nbytes=nbytes,
            crc=crc,
            header_offset=position,
            data_offset=position + len(header),
        )
        fixed.append(Fixed(offset=position, data=header + (data or b"")))
        entries.append(entry)
        position = entry.data_offset + nbytes
        return entry.data_offset

    small = {"data.pkl": _pickle(tensors), "byteorder": b"little", "version": b"3\n", **records}
    for name, data in small.items():
        add(name, len(data), data)
    moved: list[_Entry] = []
    for number, tensor in enumerate(tensors):
        offsets[tensor.name] = add(f"data/{number}", tensor.nbytes, None)
        moved.append(entries[-1])
    directory, crc_places = _directory(entries, position)
    fixed.append(Fixed(offset=position, data=directory))
    checksums = tuple(
        Checksum(
            begin=entry.data_offset,
            nbytes=entry.nbytes,
            places=(entry.header_offset + 14, crc_places[entry.name]),
        )
        for entry in moved
    )
    return NewFile(
        nbytes=position + len(directory),
        fixed=tuple(fixed),
        checksums=checksums,
        offsets=offsets,
    )


def _local_header(name: bytes, nbytes: int, crc: int, position: int) -> bytes:
    large = nbytes >= LIMIT_32
    extra = struct.pack("<HHQQ", ZIP64_FIELD, 16, nbytes, nbytes) if large else b""
    start = position + LOCAL_HEADER_NBYTES + len(name) + len(extra) + 4
    padding = -start % ALIGNMENT
    extra += struct.pack("<HH", PADDING_FIELD, padding) + b"Z" * padding
    size = LIMIT_32 if large else nbytes
    return (
        struct.pack(
            "<4sHHHHHIIIHH",
            b"PK\x03\x04", 45 if large else 20, 0, 0, 0, JANUARY_1980,
            crc, size, size, len(name), len(extra),
        )
        + name
        + extra
    )  # fmt: skip


def _directory(entries: Sequence[_Entry], start: int) -> tuple[bytes, dict[bytes, int]]:
    """The central directory, and the place in the file of each entry's CRC."""
    parts: list[bytes] = []
    places: dict[bytes, int] = {}
    nbytes = 0
    for entry in entries:
        large = entry.nbytes >= LIMIT_32
        far = entry.header_offset >= LIMIT_32
        wide = [entry.nbytes, entry.nbytes] if large else []
        wide += [entry.header_offset] if far else []
        extra = struct.pack(f"<HH{len(wide)}Q", ZIP64_FIELD, 8 * len(wide), *wide) if wide else b""
        size = LIMIT_32 if large else entry.nbytes
        record = struct.pack(
            "<4sHHHHHHIIIHHHHHII",
            b"PK\x01\x02", 45, 45 if wide else 20, 0, 0, 0, JANUARY_1980,
            entry.crc, size, size, len(entry.name), len(extra), 0, 0, 0, 0,
            LIMIT_32 if far else entry.header_offset,
        ) + entry.name + extra  # fmt: skip
        places[entry.name] = start + nbytes + 16
        parts.append(record)
        nbytes += len(record)
    count = len(entries)
    if start >= LIMIT_32 or nbytes >= LIMIT_32 or count >= LIMIT_16:
        parts.append(
            struct.pack(
                "<4sQHHIIQQQQ",
                b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, nbytes, start,
            )
        )  # fmt: skip
        parts.append(struct.pack("<4sIQI", b"PK\x06\x07", 0, start + nbytes, 1))
    short = min(count, LIMIT_16)
    parts.append(
        struct.pack(
            "<4sHHHHIIH",
            b"PK\x05\x06", 0, 0, short, short,
            min(nbytes, LIMIT_32), min(start, LIMIT_32), 0,
        )
    )  # fmt: skip
    return b"".join(parts), places


def _pickle(tensors: Sequence[NewTensor]) -> bytes:
    """A protocol-2 pickle of a dict of tensors, one storage each, as `torch.save` writes it."""
    program = [b"\x80\x02}("]
    for number, tensor in enumerate(tensors):
        kind = STORAGE_NAMES.get(tensor.dtype)
        if kind is None:
            raise Unsupported(
                what=f"tensor `{tensor.name}` has the dtype {tensor.dtype.value}",
                why="Meta's files have no storage of this kind",
                fix="convert to a format that has it, or leave this tensor out",
            )
        numel = tensor.nbytes // tensor.dtype.nbytes
        strides: list[int] = []
        step = 1
        for size in reversed(tensor.shape):
            strides.insert(0, step)
            step *= max(size, 1)
        program += [
            _text(tensor.name),
            b"ctorch._utils\n_rebuild_tensor_v2\n((",
            _text("storage"),
            f"ctorch\n{kind}\n".encode(),
            _text(str(number)),
            _text("cpu"),
            _integer(numel),
            b"tQ",  # the persistent id: (storage, kind, key, device, numel)
            _integer(0),
            b"(" + b"".join(map(_integer, tensor.shape)) + b"t",
            b"(" + b"".join(map(_integer, strides)) + b"t",
            b"\x89ccollections\nOrderedDict\n)RtR",  # requires_grad False, no hooks
        ]
    return b"".join([*program, b"u."])


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _integer(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes((value.bit_length() + 8) // 8, "little")
    return b"\x8a" + bytes([len(data)]) + data
