"""How well the query and key rows of one layer fit each hypothesis about their order.

Two things that training does to the rows of a head, and that random weights do not show:

- *Nearness.* Rows of neighbouring frequencies read similar directions of the hidden state: fast
  pairs serve positions, slow ones content. So the squared cosine of two query rows, or of two key
  rows, falls with the distance between their pairs.
- *Coupling.* Scores depend on distance only through `q_a k_b - q_b k_a` of a pair (a, b), so this
  antisymmetric product is larger for the rows of a pair than for others.

Each is measured on a matrix of squared products whose rows and columns are first balanced to a
mean of one, so that long rows say no more than short ones, and then correlated with what a
hypothesis predicts. A score of one head is a correlation times the square root of the number of
entries: its variance is one when the order of rows carries no information, whatever their lengths.

Notation: K key heads, G query heads of each, r rotary rows, C hidden size, N hypotheses. Query
heads that share a key head are not independent: their matrices are averaged, and a key head with
its queries is what we count.

Source:
    measured, docs/detection.md; the score as a function of distance is Su et al. 2021,
    https://arxiv.org/abs/2104.09864, section 3.4.2.
"""

# ruff: noqa: N803, N806  # axes stand in names: see above

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, Rope, row_order

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
Booleans = NDArray[np.bool_]

# Reorders that interleaved rows may have gone through, the plausible ones first: of two that move
# a short span alike, the first gives its name.
REORDERS = (0, 1, 2, -1, 3, -2)

# Balanced entries have a mean of one; a spread below this is rounding, not information. Of random
# weights it is about 1.4, of rows that are all parallel 1e-6.
SMALLEST_SPREAD = 1e-3
_BALANCING_TURNS = 12  # rows are then even to a few percent, whatever their lengths


@dataclass(frozen=True, kw_only=True)
class HeadScores:
    """Scores of the key heads that say anything, float64.

    Attributes:
        query, key: nearness among the query rows and among the key rows, [K, N].
        coupling: antisymmetric products of query and key rows, [K, N].
        closeness: of the rows to one another, summed over those heads and both projections, [r, r].
    """

    query: Floats
    key: Floats
    coupling: Floats
    closeness: Floats


@dataclass(frozen=True, kw_only=True)
class Hypotheses:
    """What each number of reorders predicts for the entries of an r by r matrix.

    Attributes:
        reorders: the numbers; those that cannot be told apart at this size are left out.
        nearness: falls with the distance between two rows' pairs, [N, r * r].
        coupling: whether two rows are a pair, [N, r * r].
    """

    reorders: tuple[int, ...]
    nearness: Floats
    coupling: Floats


def score_layer(q_KGrC: Floats, k_KrC: Floats, hypotheses: Hypotheses) -> HeadScores:
    """Scores of one layer's heads, those left out that say nothing: empty, constant or not finite.

    Shapes:
        q_KGrC [K, G, r, C], k_KrC [K, r, C], float32
    """
    groups, size, hidden_size = q_KGrC.shape[1:]
    with np.errstate(all="ignore"):  # what is not finite is left out below
        q_KGrr = balanced(np.square(q_KGrC @ q_KGrC.mT))
        k_Krr = balanced(np.square(k_KrC @ k_KrC.mT))
        products_Kxr = q_KGrC.reshape(-1, groups * size, hidden_size) @ k_KrC.mT
        products_KGrr = products_Kxr.reshape(-1, groups, size, size)
        pairs_KGrr = balanced(np.square(products_KGrr - products_KGrr.mT))
        matrices_3Krr = np.stack((q_KGrr.mean(1), k_Krr, pairs_KGrr.mean(1)), dtype=np.float64)
        centred_3Krr, spread_3K = _centred(matrices_3Krr)
        speaks_K = (spread_3K > SMALLEST_SPREAD).all(0)  # false for nan
    scaled_3Krr = centred_3Krr[:, speaks_K] / spread_3K[:, speaks_K, None, None]
    query_Kx, key_Kx, pairs_Kx = scaled_3Krr.reshape(3, -1, size * size)
    return HeadScores(
        query=query_Kx @ hypotheses.nearness.T,
        key=key_Kx @ hypotheses.nearness.T,
        coupling=pairs_Kx @ hypotheses.coupling.T,
        closeness=(query_Kx + key_Kx).sum(0).reshape(size, size),
    )


def order_z(closeness_rr: Floats, nearness_x: Floats) -> float:
    """How well rows fit an order, beside all other orders that all heads could share.

    Heads agree on any order that they share, were it one that nobody chose: a z over heads grows
    with their number, whatever the order. So this one asks how unusual the fit would be if rows
    stood in an order drawn at random, by the exact variance over all permutations. Both matrices
    are symmetric, zero on the diagonal, and sum to zero.

    Source:
        Mantel 1967, Cancer Research 27, pages 209 to 220: "The detection of disease clustering and
        a generalized regression approach".
    """
    size = len(closeness_rr)
    (a, a_rows), (b, b_rows) = (
        (np.square(one).sum(), np.square(one.sum(1)).sum())
        for one in (closeness_rr, nearness_x.reshape(size, size))
    )
    ways = size * (size - 1)
    variance = 2 * a * b / ways + 4 * (a_rows - a) * (b_rows - b) / (ways * (size - 2))
    variance += (2 * a - 4 * a_rows) * (2 * b - 4 * b_rows) / (ways * (size - 2) * (size - 3))
    if not variance > 0:
        return 0.0
    return float(closeness_rr.ravel() @ nearness_x / np.sqrt(variance))


@lru_cache(maxsize=8)
def hypotheses_of(rotary_dim: int) -> Hypotheses:
    """The hypotheses for a span of that many rotary rows."""
    reorders: list[int] = []
    nearness: list[Floats] = []
    coupling: list[Floats] = []
    known: list[Integers] = []
    for times in REORDERS:
        pair_r = pair_of_row(rotary_dim, times)
        distance_rr = np.abs(pair_r[:, None] - pair_r)
        if any(np.array_equal(distance_rr, other) for other in known):
            continue
        known.append(distance_rr)
        reorders.append(times)
        nearness.append(_prediction(-np.log1p(distance_rr), distance_rr > 0))
        others_rr = ~np.eye(rotary_dim, dtype=np.bool_)
        coupling.append(_prediction((distance_rr == 0).astype(np.float64), others_rr))
    return Hypotheses(
        reorders=tuple(reorders), nearness=np.stack(nearness), coupling=np.stack(coupling)
    )


def pair_of_row(rotary_dim: int, times: int) -> Integers:
    """The pair of each row, when interleaved rows were reordered that many times to half-split.

    >>> pair_of_row(8, 0).tolist(), pair_of_row(8, 1).tolist()
    ([0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 2, 3, 0, 1, 2, 3])
    """
    there = (INTERLEAVED, HALF_SPLIT) if times >= 0 else (HALF_SPLIT, INTERLEAVED)
    order = list(row_order((Rope(rotary_dim),), *there))
    pair_r = np.arange(rotary_dim) // 2
    for _ in range(abs(times)):
        pair_r = pair_r[order]
    return pair_r


def _prediction(values_rr: Floats, where_rr: Booleans) -> Floats:
    """The values, centred where they predict and zero elsewhere, scaled for scores of variance 1.

    A matrix is symmetric, so that only half of its entries are independent.
    """
    mean = values_rr.mean(where=where_rr) if where_rr.any() else 0.0  # a single pair has no others
    centred_rr = np.where(where_rr, values_rr - mean, 0.0)
    length = float(np.linalg.norm(centred_rr))
    return centred_rr.ravel() / ((length or 1.0) * 2**0.5)


def balanced(entries: Floats) -> Floats:
    """Off-diagonal entries scaled until every row has a mean of one; the matrix is symmetric.

    Source:
        the symmetric form of Sinkhorn's iteration: Knight, Ruiz, Ucar 2014,
        https://doi.org/10.1137/110825753, section 3.
    """
    size = entries.shape[-1]
    entries = entries * ~np.eye(size, dtype=np.bool_)
    scale = 1 / np.sqrt(entries.sum(-1, keepdims=True))
    for _ in range(_BALANCING_TURNS):
        scale = np.sqrt(scale / (entries @ scale))
    even: Floats = entries * scale * scale.mT * (size - 1)
    return even


def _centred(entries: Floats) -> tuple[Floats, Floats]:
    """Off-diagonal entries less their mean, and the square root of their mean square."""
    size = entries.shape[-1]
    others = ~np.eye(size, dtype=np.bool_)
    count = size * (size - 1)
    centred = (entries - entries.sum((-1, -2), keepdims=True) / count) * others
    return centred, np.sqrt(np.square(centred).sum((-1, -2)) / count)
