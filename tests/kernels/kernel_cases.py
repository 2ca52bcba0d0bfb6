"""What the kernels' tests share: odd geometries, tables, the peers' own formulas."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ropeconv.kernels import RopeTable
from ropeconv.words.frequencies import RopeSettings
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, Keep, Rope, row_order

SETTINGS = RopeSettings(theta=10000.0)
BOTH = (INTERLEAVED, HALF_SPLIT)


def table_of(
    rows: int, rotary_dim: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> RopeTable:
    """Positions 0, 1, ..., rows - 1."""
    positions = torch.arange(rows)
    return RopeTable.from_settings(SETTINGS, rotary_dim, positions, device=device, dtype=dtype)


def exact(table_rows: int, rotary_dim: int, device: torch.device) -> RopeTable:
    return table_of(table_rows, rotary_dim, device, torch.float64)


def vectors(
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    batch: int = 2,
    tokens: int = 7,
    heads: int = 6,
    kv_heads: int = 2,
    head_dim: int = 10,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Random q [B, T, H, D] and k [B, T, K, D]; an odd geometry unless told."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(batch, tokens, heads, head_dim, generator=generator)
    k = torch.randn(batch, tokens, kv_heads, head_dim, generator=generator)
    return q.to(device, dtype), k.to(device, dtype)


def tolerance(dtype: torch.dtype) -> dict[str, Any]:
    """Three roundings of the arithmetic and one of the storage, for values up to 8."""
    math = torch.float64 if dtype == torch.float64 else torch.float32
    unit = torch.finfo(dtype).eps / 2
    return {
        "rtol": unit,
        "atol": 8 * 3 * torch.finfo(math).eps / 2 + 1e-12 * (dtype != torch.float64),
    }


def half_split_order(rotary_dim: int, head_dim: int, start: int = 0) -> Tensor:
    """Rows of the half-split head, as rows of the interleaved one."""
    rows = (Keep(start), Rope(rotary_dim), Keep(head_dim - start - rotary_dim))
    return torch.tensor(row_order(rows, INTERLEAVED, HALF_SPLIT))


def hugging_face(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """transformers, modeling_llama.py `apply_rotary_pos_emb`; x [B, H, T, D], cos [B, T, D]."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos.unsqueeze(1) + turned * sin.unsqueeze(1)


def meta(x: Tensor, freqs_cis: Tensor) -> Tensor:
    """llama-models, model.py `apply_rotary_emb`; x [B, T, H, D], freqs_cis [T, D / 2]."""
    numbers = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())
    return torch.view_as_real(numbers * freqs_cis[None, :, None]).flatten(3)
