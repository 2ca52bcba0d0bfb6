"""The plain Meta-form pass over a checkpoint's own files, tensor by tensor.

Notation: B sequences, T tokens, V vocabulary.
"""

# ruff: noqa: N803 - axes stand in names: see the notation above

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ropeconv.moving.examine import read_rows
from ropeconv.proof.forward import Architecture, forward
from ropeconv.thinking.inventory import Inventory
from ropeconv.thinking.whole import WholeTensor
from ropeconv.words.layout import INTERLEAVED, reorder_rows
from ropeconv.words.model import Model

CHUNK_NBYTES = 16 << 20  # read at a time


class LazyWeights(Mapping[str, Tensor]):
    """Weights under Meta's names with interleaved rows, read from disk when they are used.

    One tensor is in memory at a time, whatever the model's size.
    """

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._by_name = {
            tensor.rule.meta.replace("{layer}", str(tensor.layer)): tensor
            for tensor in inventory.tensors
        }
        if "output.weight" not in self._by_name:
            self._by_name["output.weight"] = inventory.tensors[0]  # tied to the embedding

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._by_name[name]
        weight = load_tensor(self._inventory, tensor)
        if self._inventory.layout == INTERLEAVED:
            return weight
        return reorder_rows(weight, tensor.rows, source=self._inventory.layout, target=INTERLEAVED)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)


def load_tensor(
    inventory: Inventory, tensor: WholeTensor, dtype: torch.dtype | None = None
) -> Tensor:
    """A tensor of a checkpoint, joined from its pieces; None keeps the dtype that it is stored in.

    Read and cast in chunks of rows, so that no second copy is in memory.
    """
    stored: torch.dtype = getattr(torch, tensor.dtype.torch_name)
    weight = torch.empty(tensor.shape, dtype=dtype or stored)
    rows = weight.view(tensor.num_rows, -1) if weight.numel() else weight
    step = max(1, CHUNK_NBYTES // max(tensor.row_nbytes, 1))
    for first in range(0, tensor.num_rows, step):
        last = min(first + step, tensor.num_rows)
        data = bytearray(read_rows(inventory.checkpoint, tensor, first, last))
        rows[first:last] = torch.frombuffer(data, dtype=stored).view(last - first, -1)
    return weight


def run_plain(inventory: Inventory, model: Model, tokens_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """Logits of a Llama or Mistral, on rows brought to interleaved order where they are not.

    Shapes:
        tokens_BT [B, T] -> [B, T, V]
    """
    architecture = Architecture(
        num_layers=model.geometry.num_layers,
        num_heads=model.geometry.num_heads,
        num_kv_heads=model.geometry.num_kv_heads,
        head_dim=model.geometry.head_dim,
        norm_eps=model.norm_eps,
        rope=model.rope,
        sliding_window=model.sliding_window,
    )
    return forward(LazyWeights(inventory), architecture, tokens_BT, dtype=dtype)
