"""How far rounding alone can move a score: a bound for the very inputs, not a tolerance.

Notation: u the unit roundoff of float32, 2^-24; gamma_n = n u / (1 - n u) bounds the relative error
of a sum of n products; D head dimension.

Source:
    Higham 2002, Accuracy and Stability of Numerical Algorithms, 2nd ed., sections 2.2 and 3.1.
"""

from __future__ import annotations

import math

UNIT = 2.0**-24
DOUBLE_UNIT = 2.0**-53


def gamma(terms: int, unit: float = UNIT) -> float:
    """The relative error bound of an inner product of that many terms."""
    return terms * unit / (1 - terms * unit)


def score_bound(
    *,
    query_norm: float,
    key_norm: float,
    head_dim: int,
    hidden_size: int,
    scale: float,
    amplitude: float,
) -> float:
    """The largest difference of two computed scores of one pair of exact q and k.

    Both forms project in float64 (error gamma of the hidden size in doubles, relative to the sums
    of absolute products, which the norms carry a factor sqrt(hidden_size) for), round to float32
    (u), rotate (cos and sin rounded, two products, one sum: 4 u, and sqrt(2) for the pair) and sum
    D products in float32 in some order (gamma_D). Each form may err that much on its own, hence
    the factor 2.

    Args:
        query_norm: the largest Euclidean norm of a query vector.
        key_norm: the same for keys.
        head_dim: D.
        hidden_size: terms of the projections' sums.
        scale: multiplies the scores.
        amplitude: the attention factor, which multiplies cos and sin on both sides.
    """
    projected = gamma(hidden_size, DOUBLE_UNIT) * math.sqrt(hidden_size)
    each = 2 * (projected + UNIT + 4 * math.sqrt(2) * UNIT) + gamma(head_dim + 2)
    return 2 * each * query_norm * key_norm * abs(scale) * amplitude**2
