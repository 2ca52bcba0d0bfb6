"""RoPE settings as numbers: the base theta, its scaling, and the inverse frequencies that follow.

Everything is float64 and pure Python, so that configs can be compared without torch. The angle of pair p at
a position is position * inv_freq[p]; settings are equal models if and only if inv_freq and the attention
factor are equal, whatever the names of the fields that produced them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import assert_never


@dataclass(frozen=True)
class Default:
    """No scaling: inv_freq[p] = theta ** (-2p / r)."""


@dataclass(frozen=True, kw_only=True)
class Llama3:
    """Llama 3.1's scaling: slow pairs divided by factor, fast ones kept, a ramp between.

    Source: https://github.com/meta-llama/llama-models/blob/a9c89c4/models/llama3/model.py, apply_scaling.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


Scaling = Default | Llama3


@dataclass(frozen=True, kw_only=True)
class RopeSettings:
    """What decides the angles of a model."""

    theta: float
    scaling: Scaling = field(default_factory=Default)


@dataclass(frozen=True, kw_only=True)
class Frequencies:
    """The numbers that the rotation uses."""

    inv_freq: tuple[float, ...]  # radians per position, one for each pair
    attention_factor: float = 1.0  # multiplies cos and sin


def frequencies(settings: RopeSettings, rotary_dim: int) -> Frequencies:
    """The effective frequencies of rotary_dim // 2 pairs, in float64.

    >>> frequencies(RopeSettings(theta=100.0), 4).inv_freq
    (1.0, 0.1)
    """
    plain = tuple(settings.theta ** (-2 * pair / rotary_dim) for pair in range(rotary_dim // 2))
    match settings.scaling:
        case Default():
            return Frequencies(inv_freq=plain)
        case Llama3() as scaling:
            return Frequencies(inv_freq=tuple(_llama3(value, scaling) for value in plain))
        case _ as unreachable:
            assert_never(unreachable)


def _llama3(value: float, scaling: Llama3) -> float:
    wavelength = 2 * math.pi / value
    old_length = scaling.original_max_positions
    if wavelength < old_length / scaling.high_freq_factor:
        return value
    if wavelength > old_length / scaling.low_freq_factor:
        return value / scaling.factor
    smooth = (old_length / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    return (1 - smooth) * value / scaling.factor + smooth * value
