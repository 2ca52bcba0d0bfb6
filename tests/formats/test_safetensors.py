"""safetensors: the header that is written is the stock writer's, and the library opens the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ropeconv.formats.hf import discover
from ropeconv.formats.new_file import NewTensor
from ropeconv.formats.safetensors import new_safetensors, read_header
from ropeconv.words.dtypes import BY_TORCH_NAME

NAME = "model.safetensors"
DTYPES = [torch.uint8, torch.bfloat16, torch.float32, torch.float16, torch.int64, torch.float64,
          torch.float8_e4m3fn, torch.bool, torch.int8, torch.int16, torch.int32]  # fmt: skip


def tensors() -> dict[str, torch.Tensor]:
    """Names in no order, dtypes of every width, an empty tensor and a number."""
    found = {f"{'zab'[n % 3]}.{n}": torch.ones(n % 4 + 1, 3).to(d) for n, d in enumerate(DTYPES)}
    return found | {"empty": torch.zeros(0, 3), "number": torch.tensor(7.0)}


def new() -> list[NewTensor]:
    return [
        NewTensor(
            name=name,
            dtype=BY_TORCH_NAME[str(tensor.dtype).removeprefix("torch.")],
            shape=tuple(tensor.shape),
        )
        for name, tensor in tensors().items()
    ]


def test_order_of_tensors_is_that_of_the_stock_writer(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / NAME, metadata={"format": "pt"})
    stock = [tensor.name for tensor in read_header(tmp_path, NAME, 0).tensors]
    file = new_safetensors(new(), {"format": "pt"})
    ours = sorted((t for t in new()), key=lambda t: (file.offsets[t.name], t.nbytes, t.name))

    assert [tensor.name for tensor in ours] == stock


def test_every_dtype_of_the_stock_writer_is_read(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / NAME)
    data = (tmp_path / NAME).read_bytes()
    found = {
        t.name: (t.shape, t.dtype.torch_name, data[t.offset : t.offset + t.nbytes])
        for t in read_header(tmp_path, NAME, 0).tensors
    }

    assert found == {
        name: (
            tuple(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            tensor.flatten().view(torch.uint8).numpy().tobytes(),
        )
        for name, tensor in tensors().items()
    }


def test_header_is_the_same_whatever_the_order_of_what_it_is_made_from() -> None:
    one = new_safetensors(new(), {"format": "pt", "a": "1", "z": "2"})
    other = new_safetensors(new()[::-1], {"z": "2", "a": "1", "format": "pt"})

    assert one.fixed == other.fixed
    assert one.offsets == other.offsets


def test_tensors_tile_the_file_and_are_aligned() -> None:
    file = new_safetensors(new(), {"format": "pt"})
    position = max(part.offset + len(part.data) for part in file.fixed)
    for tensor in sorted(new(), key=lambda t: (file.offsets[t.name], t.nbytes)):
        assert file.offsets[tensor.name] == position
        assert position % max(tensor.dtype.nbytes, 1) == 0
        position += tensor.nbytes

    assert position == file.nbytes


@pytest.mark.parametrize("name", ["llama", "llama-odd-bits", "mistral"])
def test_converted_file_is_opened_by_the_library(
    converted: Callable[[str], Path], name: str
) -> None:
    path = converted(name) / NAME
    with safe_open(path, "pt") as file:
        metadata, names = file.metadata(), set(file.keys())

    assert metadata == {"format": "pt", "ropeconv.layout": "half-split"}
    assert names == set(load_file(path)) == {t.name for t in discover(converted(name)).tensors}
