"""Evidence for the row layout of a checkpoint, read from its query and key weights alone.

A hypothesis is a number of reorders, each from interleaved to half-split, that interleaved rows
have gone through: 0 is interleaved, 1 half-split, 2 reordered once too often, -1 reordered the
wrong way. Every key head scores every hypothesis (`detect_scores`); the heads of all layers
together give a z for each, and a margin: the z of the difference, head by head, between the best
and the next. Where either is small, or the rows disagree among themselves, the answer is
inconclusive. It is evidence, never proof: `verify` against the source is the proof.

Notation: H query heads, K key heads, D head dimension, C hidden size, r rotary rows; S key heads of
all layers that say anything, N hypotheses.
"""

# ruff: noqa: N803, N806  # axes stand in names: see above

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ropeconv.proof.detect_scores import (
    Floats,
    HeadScores,
    Hypotheses,
    hypotheses_of,
    order_z,
    score_layer,
)
from ropeconv.words.errors import RowsError
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, RopeLayout

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

# 2,500 draws of random weights gave at most z 3.8 and margin 3.0, trained models whose rows were
# shuffled at random z 8.3 and margin 4.9; models trained for a minute give z 8 to 36 and a margin
# of 6 to 20 (docs/detection.md).
SMALLEST_Z = 6.0
SMALLEST_MARGIN = 5.0
# Nearness alone also sees an order in half-split rows that were cut at a wrong head_dim, or in rows
# that a formula made smooth. There the rows of the supposed pairs are coupled less than others, z
# -3 to 1.3; in trained models the coupling of the true pairs has z 1.8 to 10.
SMALLEST_COUPLING = 1.5
# The z over heads grows with their number, also where all of them share an order that nobody chose:
# when the rows of a released model's 90 heads were shuffled alike, 50 of 1,000 draws passed all
# else. Against all orders, such rows have a z of 7 in less than one of 1,000 draws, trained models
# one of 7.9 (16 rotary rows) to 107 (256).
SMALLEST_ORDER = 7.0
# Fewer cannot show that heads agree.
FEWEST_HEADS = 4

_MATRIX = 2  # axes


@dataclass(frozen=True, kw_only=True)
class LayoutEvidence:
    """What the weights say about their row layout: evidence, never proof.

    Attributes:
        verdict: the layout, or None: inconclusive, or rows in neither layout (`reordered` says so).
        reordered: how often interleaved rows were reordered to half-split; None: inconclusive.
        z_by_hypothesis: for each number of reorders, the mean score over its standard error.
        margin: z of the best hypothesis against the next, compared head by head.
        order: z of its nearness, all heads together, against all orders that rows could be in.
        num_heads: different key heads, of all layers, that say anything.
        why: the reason in words, for users.
    """

    verdict: RopeLayout | None
    reordered: int | None
    z_by_hypothesis: Mapping[int, float]
    margin: float
    order: float
    num_heads: int
    why: str

    @property
    def conclusive(self) -> bool:
        """Whether the evidence is firm, be it for a layout or for a mistake."""
        return self.reordered is not None


def detect_layout(
    layers: Iterable[tuple[Floats | Tensor, Floats | Tensor]],
    *,
    head_dim: int,
    rotary_dim: int | None = None,
    rotary_start: int = 0,
) -> LayoutEvidence:
    """What the query and key weights of all layers say about the order of their rotary rows.

    Layers are taken one at a time and not kept.

    Shapes:
        each of layers (q [H * D, C], k [K * D, C]), NumPy arrays or torch tensors of any floating
        dtype, on any device; H a multiple of K

    Args:
        layers: query and key projections, rows in unknown layout.
        head_dim: rows of a head.
        rotary_dim: rotary rows of a head; all of them by default.
        rotary_start: the first rotary row of a head.

    Raises:
        RowsError: rows that are not whole heads, or a rotary span outside of the head.
    """
    span = slice(rotary_start, rotary_start + (head_dim if rotary_dim is None else rotary_dim))
    size = span.stop - span.start
    if not 0 <= span.start < span.stop <= head_dim or size % 2:
        raise RowsError(
            what=f"rotary rows {span.start} to {span.stop} are no rotary span of `{head_dim}` rows",
            fix="check rotary_dim and rotary_start against head_dim",
        )
    hypotheses = hypotheses_of(size)
    scored = []
    for q, k in layers:
        q_KGDC, k_KDC = _by_heads(q, k, head_dim)
        scored.append(score_layer(q_KGDC[..., span, :], k_KDC[:, span], hypotheses))
    return judge(scored, hypotheses)


def describe_reorders(times: int) -> str:
    """A hypothesis in words.

    >>> describe_reorders(2)
    'interleaved rows reordered to half-split 2 times, once too often'
    """
    match times:
        case 0:
            return INTERLEAVED.name
        case 1:
            return HALF_SPLIT.name
        case -1:
            return "interleaved rows reordered the wrong way"
        case 2:
            return "interleaved rows reordered to half-split 2 times, once too often"
        case _ if times > 0:
            return f"interleaved rows reordered to half-split {times} times"
        case _:
            return f"interleaved rows reordered the wrong way {-times} times"


def _by_heads(q: Floats | Tensor, k: Floats | Tensor, head_dim: int) -> tuple[Floats, Floats]:
    """The rows by heads, float32, each projection scaled to a largest entry of one.

    Shapes:
        -> ([K, H / K, D, C], [K, D, C])
    """
    q_rows, k_rows = len(q), len(k)
    if q_rows % head_dim or k_rows % head_dim or not q_rows or not k_rows or q_rows % k_rows:
        raise RowsError(
            what=f"{q_rows} query rows and {k_rows} key rows are not whole heads of {head_dim}",
            why="query heads are a multiple of key heads, and every head has `head_dim` rows",
            fix="check head_dim",
        )
    if q.shape[1:] != k.shape[1:] or q.ndim != _MATRIX:
        raise RowsError(
            what=f"query weights {list(q.shape)} and key weights {list(k.shape)} do not fit",
            why="both are matrices, and read the same hidden state",
            fix="pass pairs of (q_proj, k_proj) of one layer",
        )
    hidden_size = q.shape[1]
    q_KGDC = _scaled(q).reshape(k_rows // head_dim, -1, head_dim, hidden_size)
    return q_KGDC, _scaled(k).reshape(-1, head_dim, hidden_size)


def _scaled(weight: Floats | Tensor) -> Floats:
    """Products of products must neither overflow nor vanish, whatever the weights' unit."""
    if not isinstance(weight, np.ndarray):  # of torch, which alone knows its own dtypes
        weight = weight.detach().float().cpu().numpy()
    rows = weight.astype(np.float32)
    with np.errstate(all="ignore"):  # heads that are empty or not finite are left out later
        rows /= np.abs(rows).max()
    return rows


def judge(scored: list[HeadScores], hypotheses: Hypotheses) -> LayoutEvidence:
    """The evidence in the scores of all layers; columns are the hypotheses, in that order."""
    reorders = hypotheses.reorders
    empty = np.zeros((0, 3 * len(reorders)))
    scores = (np.concatenate((heads.query, heads.key, heads.coupling), 1) for heads in scored)
    # Heads that repeat, as in layers made by copying, are no further evidence.
    distinct = np.unique(np.concatenate([empty, *scores]).round(6), axis=0)
    query_SN, key_SN, coupling_SN = np.split(distinct, 3, axis=1)
    total_SN = query_SN + key_SN + coupling_SN
    num_heads = len(total_SN)
    z_N = [_z(scores_S, 3) for scores_S in total_SN.T]
    best, margin = _winner(total_SN, 3)
    order = 0.0
    if num_heads and len(reorders) > 1:
        closeness_rr = np.sum([heads.closeness for heads in scored], axis=0)
        order = order_z(closeness_rr, hypotheses.nearness[best])
    words = [describe_reorders(times) for times in reorders]
    doubt = _doubt(total_SN, query_SN, key_SN, coupling_SN, order, words)
    found = None if doubt else reorders[best]
    return LayoutEvidence(
        verdict={0: INTERLEAVED, 1: HALF_SPLIT}.get(found) if found is not None else None,
        reordered=found,
        z_by_hypothesis=dict(zip(reorders, z_N, strict=True)),
        margin=margin,
        order=order,
        num_heads=num_heads,
        why=f"inconclusive: {doubt}"
        if doubt
        else f"{num_heads} key heads are evidence for {words[best]}: "
        f"z {z_N[best]:.1f}, margin {margin:.1f}",
    )


def _doubt(
    total_SN: Floats,
    query_SN: Floats,
    key_SN: Floats,
    coupling_SN: Floats,
    order: float,
    words: list[str],
) -> str:
    """Why the evidence is not firm, or nothing."""
    if len(words) == 1:
        return "so few rotary rows look the same in every layout"
    if len(total_SN) < FEWEST_HEADS:
        return f"{len(total_SN)} key heads say anything, fewer than {FEWEST_HEADS}"
    best, margin = _winner(total_SN, 3)
    (query, query_margin), (key, key_margin) = _winner(query_SN, 1), _winner(key_SN, 1)
    apart = f"query rows look most like {words[query]}, key rows like {words[key]}"
    if query != key and min(query_margin, key_margin) >= SMALLEST_MARGIN:
        return apart
    if (z := _z(total_SN[:, best], 3)) < SMALLEST_Z:
        return f"no order of the rows stands out: z {z:.1f}, below {SMALLEST_Z:g}"
    if margin < SMALLEST_MARGIN:
        return f"the two best orders are too close: margin {margin:.1f}, below {SMALLEST_MARGIN:g}"
    if query != key:
        return apart
    if order < SMALLEST_ORDER:
        return f"some other order may fit as well: z {order:.1f}, below {SMALLEST_ORDER:g}"
    if (coupling := _z(coupling_SN[:, best], 1)) < SMALLEST_COUPLING:
        return (
            f"rows look most like {words[best]}, but those pairs are hardly coupled: "
            f"z {coupling:.1f}, below {SMALLEST_COUPLING:g}"
        )
    if (other := int(coupling_SN.sum(0).argmax())) != best:
        return f"rows look most like {words[best]}, but coupled most like {words[other]}"
    return ""


def _winner(scores_SN: Floats, variance: int) -> tuple[int, float]:
    """The hypothesis with the largest mean, and its z against the next, head by head."""
    best = int(scores_SN.sum(0).argmax())
    others = [one for one in range(scores_SN.shape[1]) if one != best]
    leads = (_z(scores_SN[:, best] - scores_SN[:, other], variance) for other in others)
    return best, min(leads, default=0.0)


def _z(scores_S: Floats, variance: int) -> float:
    """The mean over its standard error, never smaller than without any information.

    Without that floor, a few heads that happen to agree would look certain.
    """
    count = len(scores_S)
    if not count:
        return 0.0
    spread = float(scores_S.std(ddof=1)) if count > 1 else 0.0
    return float(scores_S.mean()) / max(spread, math.sqrt(variance)) * math.sqrt(count)
