"""Projections of seeded hidden states: equal rows of weights give equal numbers, wherever they lie.

Products are summed in float64 and rounded once. Hidden states are whole eighths below 8, so that
their products with bfloat16 weights have 14 bits, and a sum of 2^14 of them is exact in whatever
order a library sums, as long as the weights of a row span less than 2^25. Where they span more, or
are float32, sums in another order differ by 1e-16, and one rounding in 10^8 shows it.

Notation: T tokens, C the width of a projection's input.
"""

# ruff: noqa: N803, N806 - axes stand in names: see the notation above

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from ropeconv.moving.examine import read_rows, read_tensor_ahead
from ropeconv.thinking.inventory import Inventory
from ropeconv.thinking.whole import WholeTensor

# Of a weight in float64. Whole matrices are slower on a processor, small parts are on a GPU, which
# waits for each.
CHUNK_NBYTES = {"cpu": 4 << 20, "cuda": 64 << 20}


def hidden_states(seed: int, tokens: int, width: int, device: torch.device) -> Tensor:
    """Normal numbers in whole eighths, [T, C] in float64, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    normal_TC = torch.randn((tokens, width), generator=generator, dtype=torch.float64)
    return (8 * normal_TC).round().div(8).to(device)


def one_by_one(
    layers: Sequence[int],
    inventories: Sequence[Inventory],
    tensors_of: Callable[[Inventory, int], Iterable[WholeTensor]],
) -> Iterator[int]:
    """The layers; while one is computed, the system fetches the tensors of the next."""
    for at, layer in enumerate(layers):
        for following, inventory in product(layers[at + 1 : at + 2], inventories):
            for tensor in tensors_of(inventory, following):
                read_tensor_ahead(inventory.checkpoint, tensor)
        yield layer


def width_of(tensor: WholeTensor) -> int:
    """Columns of a matrix; in packed ones, whose integers are no numbers, bytes of a row."""
    return tensor.shape[1] if _dtype(tensor).is_floating_point else tensor.row_nbytes


def _dtype(tensor: WholeTensor) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, tensor.dtype.torch_name)
    return dtype


def project(inventory: Inventory, tensor: WholeTensor, hidden_TC: Tensor) -> Tensor:
    """The tensor's rows applied to hidden states, [T, rows] in float32."""
    dtype = _dtype(tensor) if _dtype(tensor).is_floating_point else torch.uint8
    step = max(1, CHUNK_NBYTES[hidden_TC.device.type] // (8 * width_of(tensor)))
    parts = []
    for first in range(0, tensor.num_rows, step):
        last = min(first + step, tensor.num_rows)
        data = read_rows(inventory.checkpoint, tensor, first, last)
        weight = torch.frombuffer(data, dtype=dtype).view(last - first, -1)
        weight = weight.to(hidden_TC.device).double()
        parts.append((hidden_TC @ weight.T).float())
    return torch.cat(parts, dim=1)
