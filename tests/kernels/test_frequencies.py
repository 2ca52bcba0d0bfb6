"""Scalings against transformers' own numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ropeconv.kernels import RopeTable
from ropeconv.words.errors import UsageError
from ropeconv.words.frequencies import (
    Default,
    Dynamic,
    Linear,
    Llama3,
    LongRope,
    Proportional,
    RopeSettings,
    Scaling,
    Yarn,
    frequencies,
)

SHORT = tuple(1.0 + pair / 10 for pair in range(40))
LONG = tuple(4.0 + pair / 7 for pair in range(40))

CASES: dict[str, tuple[Scaling, dict[str, Any], int | None]] = {
    "linear": (Linear(factor=4.0), {"rope_type": "linear", "factor": 4.0}, None),
    "dynamic, short": (
        Dynamic(factor=2.0, original_max_positions=4096),
        {"rope_type": "dynamic", "factor": 2.0},
        100,
    ),
    "dynamic, long": (
        Dynamic(factor=2.0, original_max_positions=4096),
        {"rope_type": "dynamic", "factor": 2.0},
        10000,
    ),
    "llama3": (
        Llama3(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=8192),
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        None,
    ),
    "yarn": (
        Yarn(factor=4.0, original_max_positions=4096),
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096},
        None,
    ),
    "yarn, not truncated": (
        Yarn(
            factor=32.0, original_max_positions=4096, truncate=False, beta_fast=24.0, beta_slow=2.0
        ),
        {
            "rope_type": "yarn",
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "truncate": False,
            "beta_fast": 24.0,
            "beta_slow": 2.0,
        },
        None,
    ),
    "yarn with mscales": (
        Yarn(factor=40.0, original_max_positions=4096, mscale=1.0, mscale_all_dim=0.707),
        {
            "rope_type": "yarn",
            "factor": 40.0,
            "original_max_position_embeddings": 4096,
            "mscale": 1.0,
            "mscale_all_dim": 0.707,
        },
        None,
    ),
    "longrope, short": (
        LongRope(factor=32.0, original_max_positions=4096, short_factor=SHORT, long_factor=LONG),
        {
            "rope_type": "longrope",
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "short_factor": list(SHORT),
            "long_factor": list(LONG),
        },
        4096,
    ),
    "longrope, long": (
        LongRope(factor=32.0, original_max_positions=4096, short_factor=SHORT, long_factor=LONG),
        {
            "rope_type": "longrope",
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "short_factor": list(SHORT),
            "long_factor": list(LONG),
        },
        4097,
    ),
    "proportional": (
        Proportional(rotary_share=0.25),
        {"rope_type": "proportional", "partial_rotary_factor": 0.25},
        None,
    ),
}


@pytest.mark.peer
@pytest.mark.parametrize("case", list(CASES))
def test_scalings_equal_transformers(case: str) -> None:
    """Theirs are computed in float32: 2^-22 is four roundings."""
    transformers = pytest.importorskip("transformers")
    functions = pytest.importorskip("transformers.modeling_rope_utils").ROPE_INIT_FUNCTIONS
    scaling, parameters, length = CASES[case]
    config = transformers.LlamaConfig(
        hidden_size=480,
        num_attention_heads=6,
        max_position_embeddings=4096,
        rope_parameters={"rope_theta": 500000.0, **parameters},
    )
    want, attention = functions[parameters["rope_type"]](config, "cpu", seq_len=length)

    got = frequencies(RopeSettings(theta=500000.0, scaling=scaling), 80, sequence_length=length)

    assert len(got.inv_freq) == 40
    torch.testing.assert_close(
        torch.tensor(got.inv_freq), want.to(torch.float32), rtol=2**-20, atol=0
    )
    assert got.attention_factor == pytest.approx(attention, rel=1e-12)


@pytest.mark.peer
@pytest.mark.parametrize("case", ["llama3", "yarn", "longrope, long"])
def test_scaled_tables_equal_those_of_a_model(case: str) -> None:
    transformers = pytest.importorskip("transformers")
    modeling = pytest.importorskip("transformers.models.llama.modeling_llama")
    scaling, parameters, length = CASES[case]
    config = transformers.LlamaConfig(
        hidden_size=480,
        num_attention_heads=6,
        max_position_embeddings=4096,
        rope_parameters={"rope_theta": 500000.0, **parameters},
    )
    tokens = 10 if length is None else length
    positions = torch.arange(tokens)
    cos, sin = modeling.LlamaRotaryEmbedding(config)(torch.zeros(1), positions[None])

    table = RopeTable.from_settings(
        RopeSettings(theta=500000.0, scaling=scaling),
        80,
        positions,
        device="cpu",
        sequence_length=length,
    )

    # Their angles are float32: 4097 positions cost 4097 * 2^-24 of a radian, times a few roundings.
    for got, want in ((table.cos, cos), (table.sin, sin)):
        torch.testing.assert_close(got, want[0, :, :40], rtol=0, atol=tokens * 2.0**-21)


def test_default_frequencies_are_the_papers() -> None:
    got = frequencies(RopeSettings(theta=10000.0, scaling=Default()), 8).inv_freq

    assert got == pytest.approx((1.0, 0.1, 0.01, 0.001), rel=1e-15)


def test_factors_that_are_not_one_for_each_pair_are_refused() -> None:
    scaling = LongRope(
        factor=2.0, original_max_positions=64, short_factor=(1.0,), long_factor=(1.0,)
    )

    with pytest.raises(UsageError, match="longrope has 1 factors, expected 5"):
        frequencies(RopeSettings(theta=10000.0, scaling=scaling), 10)
