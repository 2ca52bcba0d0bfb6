"""RoPE settings as numbers: the base theta, its scaling, and the inverse frequencies that follow.

Everything is float64 and pure Python, so that configs can be compared without torch. The angle of
pair p at a position is position * inv_freq[p]; settings are equal models if and only if inv_freq
and the attention factor are equal, whatever the names of the fields that produced them.

Source:
    The formulas are those of
    https://github.com/huggingface/transformers/blob/v5.0.0/src/transformers/
    modeling_rope_utils.py, which a test compares number by number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import assert_never

from ropeconv.words.errors import UsageError


@dataclass(frozen=True)
class Default:
    """No scaling: inv_freq[p] = theta ** (-2p / r)."""


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Position interpolation: every frequency divided by factor.

    Source: Chen et al. 2023, https://arxiv.org/abs/2306.15595.
    """

    factor: float


@dataclass(frozen=True, kw_only=True)
class Dynamic:
    """NTK-aware scaling whose theta grows with the sequence, once it exceeds the trained length."""

    factor: float
    original_max_positions: int


@dataclass(frozen=True, kw_only=True)
class Llama3:
    """Llama 3.1's scaling: slow pairs divided by factor, fast ones kept, a ramp between.

    Source: https://github.com/meta-llama/llama-models/blob/a9c89c4/models/llama3/model.py,
        apply_scaling.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclass(frozen=True, kw_only=True)
class Yarn:
    """A ramp over the pairs from kept to interpolated frequencies, and a factor on cos and sin.

    Source: Peng et al. 2023, https://arxiv.org/abs/2309.00071, section 3.
    """

    factor: float
    original_max_positions: int
    beta_fast: float = 32.0  # rotations over the trained length above which a pair is kept
    beta_slow: float = 1.0  # rotations below which it is interpolated
    mscale: float = 0.0  # 0 for "not given"
    mscale_all_dim: float = 0.0  # 0 for "not given"
    attention_factor: float | None = None  # None: from factor and the two mscales
    truncate: bool = True  # whether the ends of the ramp are whole pair numbers


@dataclass(frozen=True, kw_only=True)
class LongRope:
    """One divisor for each pair, a second set for sequences beyond the trained length.

    Source: Ding et al. 2024, https://arxiv.org/abs/2402.13753.
    """

    factor: float  # max positions over original max positions, unless a config says otherwise
    original_max_positions: int
    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    attention_factor: float | None = None  # None: from factor


@dataclass(frozen=True, kw_only=True)
class Proportional:
    """Only the first pairs turn, by the frequencies of the whole head; the others stand still.

    The rotary span is the whole head all the same: the still pairs are pairs, and their rows are
    reordered.
    """

    rotary_share: float  # of the head's pairs, 0 to 1
    factor: float = 1.0


Scaling = Default | Linear | Dynamic | Llama3 | Yarn | LongRope | Proportional


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


def frequencies(
    settings: RopeSettings, rotary_dim: int, *, sequence_length: int | None = None
) -> Frequencies:
    """The effective frequencies of rotary_dim // 2 pairs, in float64.

    >>> frequencies(RopeSettings(theta=100.0), 4).inv_freq
    (1.0, 0.1)

    Args:
        settings: theta and its scaling.
        rotary_dim: the rows that rotate, in one head.
        sequence_length: decides dynamic and longrope; None for "within the trained length".

    Raises:
        UsageError: longrope's factors are not one for each pair.
    """
    plain = _plain(settings.theta, rotary_dim)
    match settings.scaling:
        case Default():
            return Frequencies(inv_freq=plain)
        case Linear(factor=factor):
            return Frequencies(inv_freq=tuple(value / factor for value in plain))
        case Dynamic() as scaling:
            theta = _dynamic_theta(settings.theta, scaling, rotary_dim, sequence_length)
            return Frequencies(inv_freq=_plain(theta, rotary_dim))
        case Llama3() as scaling:
            return Frequencies(inv_freq=tuple(_llama3(value, scaling) for value in plain))
        case Yarn() as scaling:
            return _yarn(settings.theta, plain, scaling)
        case LongRope() as scaling:
            return _longrope(plain, scaling, sequence_length)
        case Proportional() as scaling:
            turning = int(scaling.rotary_share * rotary_dim // 2)
            return Frequencies(
                inv_freq=tuple(
                    value / scaling.factor if pair < turning else 0.0
                    for pair, value in enumerate(plain)
                )
            )
        case _ as unreachable:
            assert_never(unreachable)


def _plain(theta: float, rotary_dim: int) -> tuple[float, ...]:
    return tuple(theta ** (-2 * pair / rotary_dim) for pair in range(rotary_dim // 2))


def _dynamic_theta(
    theta: float, scaling: Dynamic, rotary_dim: int, sequence_length: int | None
) -> float:
    trained = scaling.original_max_positions
    length = max(sequence_length or trained, trained)
    if rotary_dim <= 2:  # noqa: PLR2004 - one pair, which turns by one radian whatever theta is
        return theta
    stretch = scaling.factor * length / trained - (scaling.factor - 1)
    return float(theta * stretch ** (rotary_dim / (rotary_dim - 2)))


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


def _yarn(theta: float, plain: tuple[float, ...], scaling: Yarn) -> Frequencies:
    rotary_dim = 2 * len(plain)

    def pair_that_turns(rotations: float) -> float:
        per_radian = scaling.original_max_positions / (rotations * 2 * math.pi)
        return rotary_dim * math.log(per_radian) / (2 * math.log(theta))

    low, high = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary_dim - 1)
    # 0.001 is the published guard against a ramp of no width; any other value is another model.
    width = (high - low) or 0.001
    inv_freq = []
    for pair, value in enumerate(plain):
        interpolated = min(max((pair - low) / width, 0.0), 1.0)
        inv_freq.append(value / scaling.factor * interpolated + value * (1 - interpolated))
    return Frequencies(inv_freq=tuple(inv_freq), attention_factor=_yarn_attention(scaling))


def _yarn_attention(scaling: Yarn) -> float:
    if scaling.attention_factor is not None:
        return scaling.attention_factor

    def magnitude(mscale: float) -> float:
        return 1.0 if scaling.factor <= 1 else 0.1 * mscale * math.log(scaling.factor) + 1.0

    if scaling.mscale and scaling.mscale_all_dim:
        return magnitude(scaling.mscale) / magnitude(scaling.mscale_all_dim)
    return magnitude(1.0)


def _longrope(
    plain: tuple[float, ...], scaling: LongRope, sequence_length: int | None
) -> Frequencies:
    trained = scaling.original_max_positions
    factors = scaling.long_factor if (sequence_length or 0) > trained else scaling.short_factor
    if len(factors) != len(plain):
        raise UsageError(
            what=f"longrope has {len(factors)} factors, expected {len(plain)}, one for each pair",
            fix="check `rope_scaling` against the rotary dimension",
        )
    attention = scaling.attention_factor
    if attention is None:
        attention = (
            1.0
            if scaling.factor <= 1
            else math.sqrt(1 + math.log(scaling.factor) / math.log(trained))
        )
    inv_freq = tuple(value / factor for value, factor in zip(plain, factors, strict=True))
    return Frequencies(inv_freq=inv_freq, attention_factor=attention)
