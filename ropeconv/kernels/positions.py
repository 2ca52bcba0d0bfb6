"""Which row of a table each token reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ropeconv.words.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Positions:
    """The table row of token t in sequence b: offset + token_step * t + ids[b, t].

    One formula for every way that people number tokens; the class methods name them.

    Attributes:
        offset: the same for every token.
        token_step: 1 to count tokens, 0 not to.
        ids: [T], [B, T] or [B, 1], int32 or int64, or None for zero.
    """

    offset: int = 0
    token_step: int = 1
    ids: Tensor | None = None

    @classmethod
    def at(cls, offset: int) -> Positions:
        """Tokens offset, offset + 1, ...: a sequence that continues."""
        return cls(offset=offset)

    @classmethod
    def constant(cls, position: int) -> Positions:
        """Every token at one position (LM-Infinite's clamp: q at the limit, k at 0)."""
        return cls(offset=position, token_step=0)

    @classmethod
    def of(cls, ids: Tensor) -> Positions:
        """Explicit ids, [T] for all sequences or [B, T]."""
        return cls(token_step=0, ids=_integers(ids, dims=(1, 2)))

    @classmethod
    def per_sequence(cls, offsets: Tensor) -> Positions:
        """One offset for each sequence, [B]: a batch that continues at different lengths."""
        return cls(ids=_integers(offsets, dims=(1,))[:, None])

    @classmethod
    def packed(cls, cu_seqlens: Tensor, total: int) -> Positions:
        """Sequences one after the other; each counts from 0.

        Make it once a step and use it for every layer: it costs four small launches, no host sync.

        Args:
            cu_seqlens: [sequences + 1], int32 or int64, from 0 to total.
            total: tokens in all.
        """
        ends = _integers(cu_seqlens, dims=(1,)).long()
        tokens = torch.arange(total, device=ends.device)
        start = ends[torch.searchsorted(ends, tokens, right=True) - 1]
        return cls(token_step=0, ids=tokens - start)


FROM_ZERO = Positions()


def _integers(ids: Tensor, *, dims: tuple[int, ...]) -> Tensor:
    if ids.dtype not in (torch.int32, torch.int64) or ids.ndim not in dims:
        raise UsageError(
            what=f"positions are {ids.dtype} with {ids.ndim} dimensions, expected int32 or int64 "
            f"with {' or '.join(map(str, dims))}",
            fix="pass token numbers, one for each token or one for each sequence",
        )
    return ids
