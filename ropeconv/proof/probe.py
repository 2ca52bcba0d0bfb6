"""Probes: seeded inputs, and positions at which every rotary pair has power.

A pair with frequency f turns visibly only over distances of about a quarter period, pi / (2f). So
positions are a ladder of powers of two up to the context length, and a quarter period of each pair,
beyond the context where it is longer: angles are computed in float64, and the rows of a table cost
nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ropeconv.words.frequencies import RopeSettings, frequencies

LARGEST_POSITION = 1 << 40  # exact in float64 with 12 bits to spare for the angle
SHIFT = 1_000_003  # a prime: no multiple of a period


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What both forms are asked.

    Attributes:
        positions: all different, ascending.
        seed: of the hidden states.
    """

    positions: tuple[int, ...]
    seed: int


def make_probe(rope: RopeSettings, rotary_dim: int, context_length: int, seed: int = 0) -> Probe:
    """Positions for these frequencies.

    >>> make_probe(RopeSettings(theta=100.0), 4, 8).positions
    (0, 1, 2, 3, 4, 8, 16)
    """
    ladder = {0, 3, *(1 << power for power in range(max(context_length, 1).bit_length()))}
    quarters = {
        min(max(1, round(math.pi / 2 / value)), LARGEST_POSITION)
        for value in frequencies(rope, rotary_dim).inv_freq
        if value > 0
    }
    return Probe(positions=tuple(sorted(ladder | quarters)), seed=seed)
