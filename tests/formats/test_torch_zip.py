"""`.pth` files: what torch.save writes is read without torch; what is written is read by torch."""

from __future__ import annotations

import struct
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from ropeconv.formats.new_file import NewFile, NewTensor
from ropeconv.formats.torch_zip import read_record, read_tensors
from ropeconv.formats.torch_zip_writer import new_torch_zip
from ropeconv.words.dtypes import BY_TORCH_NAME, DType
from ropeconv.words.errors import Unsupported

NAME = "consolidated.00.pth"
DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip
LATER = [
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu, torch.uint16, torch.uint32,
    torch.uint64,
]  # fmt: skip


def values(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Any bits, as that dtype; every element different where it has room."""
    count = torch.tensor(shape).prod().item() * torch.empty((), dtype=dtype).element_size()
    data = torch.arange(int(count), dtype=torch.int64) * 7 % 251
    if dtype is torch.bool:
        return (data % 3 == 0).view(shape)
    return data.to(torch.uint8).view(dtype).view(shape)


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def read(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    data = (folder / NAME).read_bytes()
    return {
        t.name: (t.dtype.torch_name, t.shape, data[t.offset : t.offset + t.nbytes])
        for t in read_tensors(folder, NAME, 0, 0)
    }


def expected(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {
        name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), raw(tensor))
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_state_dict_of_every_dtype_is_read(tmp_path: Path, protocol: int) -> None:
    tensors = {str(dtype): values(dtype, 5, 6) for dtype in (*DTYPES, *LATER)}
    torch.save(tensors, tmp_path / NAME, pickle_protocol=protocol)

    assert read(tmp_path) == expected(tensors)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (3, 0, 2), (1, 1), (2, 3, 4, 5)])
def test_tensor_of_any_shape_is_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    tensors = {"a": values(torch.float32, *shape), "b": values(torch.bfloat16, 3)}
    torch.save(tensors, tmp_path / NAME)

    assert read(tmp_path) == expected(tensors)


def test_slices_that_share_a_storage_are_read_at_their_offsets(tmp_path: Path) -> None:
    """Readers that forget the offset return the storage's first bytes for every slice."""
    whole = values(torch.float16, 10, 6)
    tensors = {"first": whole[:3], "second": whole[3:7], "row": whole[9], "whole": whole}
    torch.save(tensors, tmp_path / NAME)

    assert read(tmp_path) == expected(tensors)
    assert len(set(read(tmp_path).values())) == 4


def test_parameters_modules_and_wrappers_are_read(tmp_path: Path) -> None:
    """A state dict carries `_metadata`; parameters come through another constructor."""
    module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.LayerNorm(5))
    plain = {name: tensor.detach() for name, tensor in module.state_dict().items()}
    for saved in (
        module.state_dict(),
        OrderedDict(module.named_parameters()),
        dict(module.named_parameters()),
        {"model": module.state_dict()},
        {"state_dict": plain},
    ):
        torch.save(saved, tmp_path / NAME)

        assert read(tmp_path) == expected(plain)


@pytest.mark.parametrize(
    "saved",
    [
        {"w": torch.zeros(4, 6).T},
        {"w": torch.zeros(4, 6)[:, ::2]},
        {"w": torch.zeros(4, 6)[:, :3]},
        {"w": torch.zeros(3), "step": 7},
        {"w": torch.zeros(3), "optimizer": {"lr": 0.1}},
        torch.zeros(3),
        {3: torch.zeros(3)},
    ],
    ids=["transposed", "strided", "columns", "step", "optimizer", "tensor", "key"],
)
def test_what_is_no_plain_state_dict_is_refused(tmp_path: Path, saved: object) -> None:
    torch.save(saved, tmp_path / NAME)

    with pytest.raises(Unsupported):
        read_tensors(tmp_path, NAME, 0, 0)


def test_file_of_the_time_before_zip_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(3)}, tmp_path / NAME, _use_new_zipfile_serialization=False)

    with pytest.raises(Unsupported, match=r"before 1\.6"):
        read_tensors(tmp_path, NAME, 0, 0)


def write(path: Path, file: NewFile, tensors: dict[str, torch.Tensor]) -> None:
    """Carry a frame out as the mover does: data, then headers, then checksums."""
    data = bytearray(file.nbytes)
    for part in file.fixed:
        data[part.offset : part.offset + len(part.data)] = part.data
    for name, tensor in tensors.items():
        data[file.offsets[name] : file.offsets[name] + len(raw(tensor))] = raw(tensor)
    for checksum in file.checksums:
        crc = zipfile.crc32(data[checksum.begin : checksum.begin + checksum.nbytes])  # type: ignore[attr-defined]
        for place in checksum.places:
            data[place : place + 4] = crc.to_bytes(4, "little")
    path.write_bytes(data)


def new(tensors: dict[str, torch.Tensor]) -> list[NewTensor]:
    return [
        NewTensor(
            name=name,
            dtype=BY_TORCH_NAME[str(tensor.dtype).removeprefix("torch.")],
            shape=tuple(tensor.shape),
        )
        for name, tensor in tensors.items()
    ]


@pytest.mark.parametrize("mmap", [False, True])
def test_written_file_is_loaded_by_torch_and_whole(tmp_path: Path, *, mmap: bool) -> None:
    tensors = {str(dtype): values(dtype, 5, 7) for dtype in DTYPES}
    tensors |= {"empty": torch.zeros(0, 3), "one": values(torch.bfloat16, 1)}
    frame = new_torch_zip("consolidated.00", new(tensors), {"ropeconv.layout": b"interleaved"})
    write(tmp_path / NAME, frame, tensors)
    loaded = torch.load(tmp_path / NAME, weights_only=True, mmap=mmap)

    assert {name: raw(tensor) for name, tensor in loaded.items()} == {
        name: raw(tensor) for name, tensor in tensors.items()
    }
    assert list(loaded) == list(tensors)
    assert read(tmp_path) == expected(tensors)
    assert read_record(tmp_path, NAME, "ropeconv.layout") == "interleaved"
    assert zipfile.ZipFile(tmp_path / NAME).testzip() is None
    assert all(offset % 64 == 0 for offset in frame.offsets.values())


def test_wrong_checksum_is_noticed_by_zipfile(tmp_path: Path) -> None:
    """The control of testzip above."""
    tensors = {"w": values(torch.float32, 5, 7)}
    frame = new_torch_zip("a", new(tensors), {})
    write(tmp_path / NAME, frame, tensors)
    data = bytearray((tmp_path / NAME).read_bytes())
    data[frame.offsets["w"]] ^= 1
    (tmp_path / NAME).write_bytes(data)

    assert zipfile.ZipFile(tmp_path / NAME).testzip() == "a/data/0"


@pytest.mark.parametrize("dtype", [DType.F8_E4M3, DType.F8_E5M2, DType.F8_E8M0, DType.U16])
def test_dtype_without_a_storage_class_is_refused(dtype: DType) -> None:
    with pytest.raises(Unsupported, match="have no storage of this kind"):
        new_torch_zip("a", [NewTensor(name="w", dtype=dtype, shape=(3,))], {})


def sparse(path: Path, shapes: Sequence[tuple[int, ...]]) -> NewFile:
    """A file as large as it says, of which only the frame takes room."""
    tensors = [
        NewTensor(name=f"t{number}", dtype=DType.BF16, shape=shape)
        for number, shape in enumerate(shapes)
    ]
    file = new_torch_zip("archive", tensors, {})
    with path.open("wb") as handle:
        handle.truncate(file.nbytes)
        for part in file.fixed:
            handle.seek(part.offset)
            handle.write(part.data)
    return file


GIB = 1 << 30


@pytest.mark.parametrize(
    "shapes",
    [
        [(3,), (GIB, 3), (5,)],
        [(GIB, 1), (GIB, 1), (7,), (GIB, 2)],
        [(0xFFFFFFFF // 2,), (3,)],
        [(0xFFFFFFFF // 2 + 1,), (3,)],
    ],
    ids=["large-entry", "far-entry", "just-below", "just-above"],
)
def test_file_beyond_4_gib_is_opened_by_zipfile_torch_and_ropeconv(
    tmp_path: Path, shapes: list[tuple[int, ...]]
) -> None:
    file = sparse(tmp_path / NAME, shapes)
    with zipfile.ZipFile(tmp_path / NAME) as archive:
        sizes = [info.file_size for info in archive.infolist() if "/data/" in info.filename]
        (tmp_path / NAME).open("rb").close()
        last = f"archive/data/{len(shapes) - 1}"
        place = archive.getinfo(last).header_offset
    with (tmp_path / NAME).open("rb") as handle:
        handle.seek(place)
        header = handle.read(30)
    loaded = torch.load(tmp_path / NAME, weights_only=True, mmap=True)

    assert sizes == [2 * torch.Size(shape).numel() for shape in shapes]
    assert header[:4] == b"PK\x03\x04"
    assert struct.unpack("<H", header[26:28])[0] == len(last)
    assert [tuple(tensor.shape) for tensor in loaded.values()] == shapes
    found = read_tensors(tmp_path, NAME, 0, 0)
    assert [tensor.shape for tensor in found] == shapes
    assert [tensor.offset for tensor in found] == [file.offsets[t.name] for t in found]


def test_more_entries_than_16_bits_count_are_opened_by_zipfile(tmp_path: Path) -> None:
    tensors = [NewTensor(name=f"t{number}", dtype=DType.U8, shape=(1,)) for number in range(66_000)]
    file = new_torch_zip("a", tensors, {})
    with (tmp_path / NAME).open("wb") as handle:
        handle.truncate(file.nbytes)
        for part in file.fixed:
            handle.seek(part.offset)
            handle.write(part.data)

    with zipfile.ZipFile(tmp_path / NAME) as archive:
        assert len(archive.infolist()) == 66_003
