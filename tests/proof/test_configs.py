"""The config check: effective numbers decide, whatever the fields are called."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ropeconv import Outcome
from ropeconv.proof.configs import check_configs
from ropeconv.words.dtypes import DType
from ropeconv.words.frequencies import Default, Linear, Llama3, RopeSettings
from ropeconv.words.model import Geometry, Model, TokenIds

LLAMA3 = Llama3(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=8192)
MODEL = Model(
    family="llama",
    geometry=Geometry(
        num_layers=2, hidden_size=44, num_heads=6, num_kv_heads=2, head_dim=64,
        intermediate_size=72, vocab_size=51,
    ),
    rope=RopeSettings(theta=500000.0, scaling=LLAMA3),
    norm_eps=1e-5,
    max_positions=131072,
    sliding_window=None,
    tied=False,
    dtype=DType.BF16,
    tokens=TokenIds(),
)  # fmt: skip


def scaled(**changes: Any) -> Model:
    return replace(MODEL, rope=RopeSettings(theta=500000.0, scaling=replace(LLAMA3, **changes)))


@pytest.mark.parametrize(
    ("why", "target", "finding"),
    [
        ("theta", replace(MODEL, rope=RopeSettings(theta=1e4, scaling=LLAMA3)), "inv_freq"),
        ("scaling lost", replace(MODEL, rope=RopeSettings(theta=500000.0)), "inv_freq"),
        ("factor", scaled(factor=32.0), "inv_freq"),
        ("low", scaled(low_freq_factor=2.0), "inv_freq"),
        ("high", scaled(high_freq_factor=2.0), "inv_freq"),
        ("length", scaled(original_max_positions=4096), "inv_freq"),
        ("a last digit", replace(MODEL, rope=RopeSettings(theta=500000.0001, scaling=LLAMA3)),
         "inv_freq"),
        ("epsilon", replace(MODEL, norm_eps=1e-6), "norm_eps"),
        ("window", replace(MODEL, sliding_window=4096), "sliding_window"),
        ("heads", replace(MODEL, geometry=replace(MODEL.geometry, num_kv_heads=3)), "num_kv_heads"),
    ],
)  # fmt: skip
def test_number_that_changes_the_model_is_found(why: str, target: Model, finding: str) -> None:
    found = check_configs(MODEL, target)

    assert found.outcome is Outcome.DIFFERENT, why
    assert [entry.tensor for entry in found.findings] == [finding]


@pytest.mark.parametrize(
    "changes",
    [{}, {"max_positions": 7}, {"tied": True}, {"tokens": TokenIds(bos=3)}, {"family": "mistral"}],
)
def test_field_that_changes_no_weight_is_not_compared(changes: dict[str, Any]) -> None:
    assert check_configs(MODEL, replace(MODEL, **changes)).outcome is Outcome.SAME


def test_scaling_of_another_name_and_the_same_numbers_is_the_same() -> None:
    """A factor of 1 scales nothing: names are not what is compared."""
    plain = replace(MODEL, rope=RopeSettings(theta=500000.0, scaling=Default()))
    linear = replace(MODEL, rope=RopeSettings(theta=500000.0, scaling=Linear(factor=1.0)))

    assert check_configs(plain, linear).outcome is Outcome.SAME
    assert check_configs(plain, MODEL).outcome is Outcome.DIFFERENT
