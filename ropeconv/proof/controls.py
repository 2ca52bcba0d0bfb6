"""Controls: the mistakes that people make, made on purpose to show what the score check can see.

Each takes the source's own queries and keys and handles them wrongly. A right check must see every
one.

Notation: T tokens, H query heads, K key heads, D head dimension.
"""

# ruff: noqa: N803 - axes stand in names: see the notation above

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ropeconv.kernels import RopeTable, ScoreForm
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, Repeat, Rope, row_order


@dataclass(frozen=True, kw_only=True)
class WrongForm:
    """A form with a planted mistake."""

    name: str
    form: ScoreForm


def wrong_forms(form: ScoreForm, wrong_table: RopeTable) -> list[WrongForm]:
    """The source's form of one layer, handled wrongly in each way.

    Args:
        form: all heads of a layer, q [1, T, H, D] and k [1, T, K, D].
        wrong_table: angles of another theta.
    """
    other = HALF_SPLIT if form.layout == INTERLEAVED else INTERLEAVED
    head_dim = form.q.shape[-1]

    def order(rows: int, heads: int, *, inverse: bool = False) -> Tensor:
        ends = (other, form.layout) if inverse else (form.layout, other)
        found = row_order((Repeat(heads, Rope(rows // heads)),), *ends)
        return torch.tensor(found, device=form.q.device)

    def moved(x_BTHD: Tensor, heads: int, times: int = 1, *, inverse: bool = False) -> Tensor:
        flat = x_BTHD.flatten(-2)
        for _ in range(times):
            flat = flat[..., order(flat.shape[-1], heads, inverse=inverse)]
        return flat.view(x_BTHD.shape)

    def by_head(change: Callable[[Tensor, int], Tensor]) -> ScoreForm:
        """Both q and k, moved to the other layout in some wrong way, and rotated there."""
        q, k = (change(x, x.shape[-2]) for x in (form.q, form.k))
        return replace(form, q=q, k=k, layout=other)

    heads, kv_heads = form.q.shape[-2], form.k.shape[-2]
    wrong = [
        WrongForm(name="not reordered", form=replace(form, layout=other)),
        WrongForm(name="wrong direction", form=by_head(lambda x, n: moved(x, n, inverse=True))),
        WrongForm(name="reordered twice", form=by_head(lambda x, n: moved(x, n, 2))),
        WrongForm(name="only q reordered", form=replace(form, q=moved(form.q, heads))),
        WrongForm(name="only k reordered", form=replace(form, k=moved(form.k, kv_heads))),
        WrongForm(name="another theta", form=replace(form, table=wrong_table)),
    ]
    if kv_heads > 1 or heads > 1:
        wrong.append(WrongForm(name="matrix as one head", form=by_head(lambda x, _: moved(x, 1))))
    if head_dim % 4 == 0:
        doubled = by_head(lambda x, n: moved(x, 2 * n))
        wrong.append(WrongForm(name="wrong head count", form=doubled))
    return wrong


def one_group(form: ScoreForm, group: int) -> ScoreForm:
    """One key head with the query heads that share it."""
    share = form.q.shape[-2] // form.k.shape[-2]
    q = form.q[..., group * share : (group + 1) * share, :]
    return replace(form, q=q, k=form.k[..., group : group + 1, :])


def stack_queries(form: ScoreForm) -> ScoreForm:
    """The query heads of each group as further tokens of one head, [B, share * T, K, D].

    Heads that share a key need one launch instead of one each. Triton's interpreter pays for each
    program about 20 ms, whatever its size: 1B's 32 heads over 8 keys take a quarter of the time.
    """
    sequences, tokens, heads, head_dim = form.q.shape
    kv_heads = form.k.shape[2]
    q = form.q.view(sequences, tokens, kv_heads, heads // kv_heads, head_dim)
    q = q.permute(0, 3, 1, 2, 4).reshape(sequences, -1, kv_heads, head_dim)
    return replace(form, q=q)


def stacked_rows(form: ScoreForm, rows: Sequence[int]) -> Tensor:
    """The table rows of stacked queries."""
    share = form.q.shape[2] // form.k.shape[2]
    return torch.tensor(list(rows) * share, device=form.q.device)
