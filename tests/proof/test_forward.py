"""The whole-model oracle against transformers' own models, and its parts against arithmetic."""

# ruff: noqa: N806  # axes stand in names: B sequences, T tokens, V vocabulary

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from fixtures import make_small, meta_folder
from ropeconv.proof.forward import (
    Architecture,
    causal_mask,
    forward,
    greedy,
    next_token_loss,
    rotate,
    rotations,
)
from ropeconv.words.frequencies import Llama3, RopeSettings
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, Repeat, Rope, row_order

if TYPE_CHECKING:
    from torch import Tensor

# In standard deviations of the logits. Rounding alone costs 2e-6 in each of the three models; the
# smallest mistake below (scaling lost, over 40 tokens) costs 1.4e-2, rows not reordered 2 to 3.
FLOAT32_ROUNDING = 1e-5
TOKENS_BT = torch.arange(80).view(2, 40) * 7 % 51  # longer than the window of the Mistral

HF_NAMES = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def hf_config(case: make_small.Case, architecture: Architecture) -> dict[str, Any]:
    rope = architecture.rope
    parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": rope.theta}
    if isinstance(rope.scaling, Llama3):
        parameters |= {
            "rope_type": "llama3",
            "factor": rope.scaling.factor,
            "low_freq_factor": rope.scaling.low_freq_factor,
            "high_freq_factor": rope.scaling.high_freq_factor,
            "original_max_position_embeddings": rope.scaling.original_max_positions,
        }
    return {
        "hidden_size": case.params["dim"],
        "intermediate_size": meta_folder.feed_forward_width(case.params),
        "num_hidden_layers": architecture.num_layers,
        "num_attention_heads": architecture.num_heads,
        "num_key_value_heads": architecture.num_kv_heads,
        "head_dim": architecture.head_dim,
        "vocab_size": case.vocab_size,
        "rms_norm_eps": architecture.norm_eps,
        "rope_parameters": parameters,
        "max_position_embeddings": 16384,
        "attn_implementation": "eager",
    }


def hf_weights(
    weights: dict[str, Tensor], architecture: Architecture, *, reordered: bool
) -> dict[str, Tensor]:
    heads = {"wq": architecture.num_heads, "wk": architecture.num_kv_heads}
    renamed = {
        "model.embed_tokens.weight": weights["tok_embeddings.weight"],
        "model.norm.weight": weights["norm.weight"],
        "lm_head.weight": weights["output.weight"],
    }
    for layer in range(architecture.num_layers):
        for meta_name, hf_name in HF_NAMES.items():
            tensor = weights[f"layers.{layer}.{meta_name}.weight"]
            count = heads.get(meta_name.removeprefix("attention."))
            if count is not None and reordered:
                rows = (Repeat(count, Rope(architecture.head_dim)),)
                tensor = tensor[list(row_order(rows, INTERLEAVED, HALF_SPLIT))]
            renamed[f"model.layers.{layer}.{hf_name}.weight"] = tensor
    return {name: tensor.float() for name, tensor in renamed.items()}


def hf_logits(case: make_small.Case, *, reordered: bool) -> Tensor:
    transformers = pytest.importorskip("transformers")
    architecture = meta_folder.architecture_of(case.params)
    config = hf_config(case, architecture)
    if architecture.sliding_window is None:
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config))
    else:
        window = {"sliding_window": architecture.sliding_window}
        model = transformers.MistralForCausalLM(transformers.MistralConfig(**config, **window))
    weights = make_small.whole_weights(case)
    model.load_state_dict(hf_weights(weights, architecture, reordered=reordered))
    with torch.inference_mode():
        logits: Tensor = model.eval()(TOKENS_BT).logits
    return logits


def largest_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in standard deviations of what was expected."""
    return ((found - expected).abs().max() / expected.std()).item()


@pytest.fixture(params=["llama", "llama-tied", "mistral"])
def case(request: pytest.FixtureRequest) -> make_small.Case:
    """Plain rope; rope scaled as in Llama 3.1; a window, and a hidden size unlike heads * D."""
    return make_small.CASES[request.param]


@pytest.mark.peer
def test_forward_of_interleaved_rows_equals_transformers_on_half_split_rows(
    case: make_small.Case,
) -> None:
    architecture = meta_folder.architecture_of(case.params)
    found_BTV = forward(make_small.whole_weights(case), architecture, TOKENS_BT)

    assert largest_error(found_BTV, hf_logits(case, reordered=True)) < FLOAT32_ROUNDING


@pytest.mark.peer
def test_forward_differs_from_transformers_when_rows_are_not_reordered(
    case: make_small.Case,
) -> None:
    """The control: the comparison above can fail, and does so by a wide margin."""
    architecture = meta_folder.architecture_of(case.params)
    found_BTV = forward(make_small.whole_weights(case), architecture, TOKENS_BT)

    assert largest_error(found_BTV, hf_logits(case, reordered=False)) > 1e4 * FLOAT32_ROUNDING


@pytest.mark.peer
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("llama-tied", {"rope": RopeSettings(theta=500000.0)}),  # the scaling lost
        ("mistral", {"rope": RopeSettings(theta=500000.0)}),
        ("mistral", {"sliding_window": 15}),
        ("mistral", {"sliding_window": None}),
        ("mistral", {"norm_eps": 1e-4}),
    ],
)
def test_forward_of_another_architecture_differs_from_transformers(
    name: str, change: dict[str, Any]
) -> None:
    """Every field counts: a field that forward ignored would pass the comparison above."""
    case = make_small.CASES[name]
    architecture = replace(meta_folder.architecture_of(case.params), **change)
    found_BTV = forward(make_small.whole_weights(case), architecture, TOKENS_BT)

    assert largest_error(found_BTV, hf_logits(case, reordered=True)) > 500 * FLOAT32_ROUNDING


def test_forward_of_double_weights_is_double_and_close_to_float(case: make_small.Case) -> None:
    architecture = meta_folder.architecture_of(case.params)
    weights = make_small.whole_weights(case)
    doubles = {name: tensor.double() for name, tensor in weights.items()}
    found_BTV = forward(weights, architecture, TOKENS_BT)
    oracle_BTV = forward(doubles, architecture, TOKENS_BT)

    assert (found_BTV.dtype, oracle_BTV.dtype) == (torch.float32, torch.float64)
    assert 0 < largest_error(found_BTV, oracle_BTV) < FLOAT32_ROUNDING


def test_forward_carries_a_gradient_to_every_weight(case: make_small.Case) -> None:
    architecture = meta_folder.architecture_of(case.params)
    weights = {
        name: tensor.float().requires_grad_()
        for name, tensor in make_small.whole_weights(case).items()
    }
    torch.autograd.backward(next_token_loss(forward(weights, architecture, TOKENS_BT), TOKENS_BT))

    still = [
        name for name, tensor in weights.items() if tensor.grad is None or not tensor.grad.any()
    ]
    assert still == []


def test_rotate_turns_each_neighbouring_pair_by_its_own_angle() -> None:
    """Spelled with sines and cosines, pair by pair: head_dim 6, theta 64, so 1, 1/4 and 1/16."""
    architecture = Architecture(
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        head_dim=6,
        norm_eps=1e-5,
        rope=RopeSettings(theta=64.0),
        sliding_window=None,
    )
    x = [2.0, -1.0, 0.5, 3.0, -4.0, 0.25]
    x_BTHD = torch.tensor(x, dtype=torch.float64).expand(1, 3, 1, 6)
    expected = [
        [
            turned
            for pair, inv_freq in enumerate([1, 1 / 4, 1 / 16])
            for a, b, angle in [(x[2 * pair], x[2 * pair + 1], position * inv_freq)]
            for turned in (
                a * math.cos(angle) - b * math.sin(angle),
                a * math.sin(angle) + b * math.cos(angle),
            )
        ]
        for position in range(3)
    ]
    found_BTHD = rotate(x_BTHD, rotations(architecture, 3, like=x_BTHD))

    torch.testing.assert_close(found_BTHD[0, :, 0], torch.tensor(expected, dtype=torch.float64))


def test_causal_mask_with_a_window_blocks_what_is_ahead_and_what_fell_out() -> None:
    blocked_TS = causal_mask(4, 2, torch.device("cpu"))

    assert blocked_TS.int().tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [1, 0, 0, 1], [1, 1, 0, 0]]


def test_next_token_loss_of_even_logits_is_the_log_of_the_vocabulary() -> None:
    loss = next_token_loss(torch.zeros(2, 40, 51), TOKENS_BT)

    assert loss.item() == pytest.approx(math.log(51))


def test_next_token_loss_looks_one_token_ahead() -> None:
    """Certain of the right next token everywhere; at the last position it does not matter."""
    logits_BTV = torch.full((2, 40, 51), -100.0)
    logits_BTV[:, :-1].scatter_(2, TOKENS_BT[:, 1:, None], 100.0)

    assert next_token_loss(logits_BTV, TOKENS_BT).item() == 0.0


def test_greedy_appends_the_likeliest_token_of_the_whole_text_so_far() -> None:
    case = make_small.CASES["llama"]
    architecture = meta_folder.architecture_of(case.params)
    weights = make_small.whole_weights(case)
    tokens_T = greedy(weights, architecture, TOKENS_BT[0, :5], 4)
    predicted_T = forward(weights, architecture, tokens_T[None])[0].argmax(-1)

    assert tokens_T[:5].tolist() == TOKENS_BT[0, :5].tolist()
    assert tokens_T[5:].tolist() == predicted_T[4:8].tolist()
