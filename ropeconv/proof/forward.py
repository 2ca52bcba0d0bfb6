"""A Llama in Meta's form, spelled as published: the slow and obvious oracle for whole models.

Weights carry Meta's names and interleaved rows. Nothing here knows of another layout, so a
checkpoint whose rows were moved wrongly simply predicts worse. Every operation is differentiable.

Notation: B sequences, T tokens (S where they are attended to), C hidden size, H query heads, K key
and value heads, D head dimension, P = D / 2 rotary pairs, V vocabulary.

Source:
    Su et al. 2021, https://arxiv.org/abs/2104.09864, section 3.4.2 (turns of neighbouring pairs);
    Touvron et al. 2023, https://arxiv.org/abs/2302.13971, section 2.2 (the rest of the model);
    Jiang et al. 2023, https://arxiv.org/abs/2310.06825, section 2 (sliding window).
"""

# ruff: noqa: N803, N806  # axes stand in names: see the notation above

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from ropeconv.words.frequencies import RopeSettings, frequencies

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


OUTPUT_ROWS = 1 << 14  # cast at a time: a vocabulary in float64 can be larger than all layers


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What the shapes of the weights do not say, or would only say by a guess."""

    num_layers: int
    num_heads: int
    num_kv_heads: int  # divides num_heads
    head_dim: int  # even; need not be hidden size / num_heads
    norm_eps: float
    rope: RopeSettings
    sliding_window: int | None  # tokens seen, the present one included; None for all


def forward(
    weights: Mapping[str, Tensor],
    architecture: Architecture,
    tokens_BT: Tensor,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Logits of the next token at every position.

    Computed in `dtype`, by default in float32, or in float64 if the embeddings are; each weight is
    cast where it is used.

    Shapes:
        tokens_BT [B, T], integers below V -> [B, T, V]
    """
    embeddings_VC = weights["tok_embeddings.weight"]
    dtype = dtype or torch.promote_types(embeddings_VC.dtype, torch.float32)
    hidden_BTC = functional.embedding(tokens_BT, embeddings_VC).to(dtype)
    del embeddings_VC  # read when they are used, weights may be large
    turns_TP = rotations(architecture, tokens_BT.shape[1], like=hidden_BTC)
    blocked_TS = causal_mask(tokens_BT.shape[1], architecture.sliding_window, tokens_BT.device)
    for layer in range(architecture.num_layers):
        at = f"layers.{layer}"
        normed_BTC = _norm(hidden_BTC, weights[f"{at}.attention_norm.weight"], architecture)
        hidden_BTC = hidden_BTC + _attention(
            weights,
            f"{at}.attention",
            architecture,
            normed_BTC,
            turns_TP=turns_TP,
            blocked_TS=blocked_TS,
        )
        normed_BTC = _norm(hidden_BTC, weights[f"{at}.ffn_norm.weight"], architecture)
        hidden_BTC = hidden_BTC + _feed_forward(weights, f"{at}.feed_forward", normed_BTC)
    normed_BTC = _norm(hidden_BTC, weights["norm.weight"], architecture)
    rows = torch.split(weights["output.weight"], OUTPUT_ROWS)
    return torch.cat([_linear(normed_BTC, each) for each in rows], dim=-1).to(dtype)


def rotations(architecture: Architecture, num_tokens: int, *, like: Tensor) -> Tensor:
    """A turn of the plane for each position and pair: cos and sin of its angle, as one number.

    The angles are float64; the cast to the complex type that matches `like` is the only rounding.

    Shapes:
        -> [T, P]
    """
    rope = frequencies(architecture.rope, architecture.head_dim, sequence_length=num_tokens)
    inv_freq_P = torch.tensor(rope.inv_freq, dtype=torch.float64)
    angles_TP = torch.arange(num_tokens, dtype=torch.float64)[:, None] * inv_freq_P
    turns_TP = torch.polar(torch.full_like(angles_TP, rope.attention_factor), angles_TP)
    return turns_TP.to(dtype=like.dtype.to_complex(), device=like.device)


def causal_mask(num_tokens: int, sliding_window: int | None, device: torch.device) -> Tensor:
    """True where token t must not attend to token s: it lies ahead, or fell out of the window.

    Shapes:
        -> [T, S], bool
    """
    position_T = torch.arange(num_tokens, device=device)
    distance_TS = position_T[:, None] - position_T
    ahead_TS = distance_TS < 0
    return ahead_TS if sliding_window is None else ahead_TS | (distance_TS >= sliding_window)


def rotate(x_BTHD: Tensor, turns_TP: Tensor) -> Tensor:
    """Each neighbouring pair of entries turned as one complex number.

    Shapes:
        x_BTHD [B, T, H, D], turns_TP [T, P] complex -> [B, T, H, D] in the precision of the turns
    """
    real = turns_TP.dtype.to_real()
    x_BTHP = torch.view_as_complex(x_BTHD.to(real).view(*x_BTHD.shape[:-1], -1, 2))
    return torch.view_as_real(x_BTHP * turns_TP[:, None]).flatten(-2)


def next_token_loss(logits_BTV: Tensor, tokens_BT: Tensor) -> Tensor:
    """Mean cross-entropy of every token after the first, in nats per token.

    Shapes:
        logits_BTV [B, T, V], tokens_BT [B, T] -> []
    """
    return functional.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), tokens_BT[:, 1:].flatten())


@torch.inference_mode()
def greedy(
    weights: Mapping[str, Tensor], architecture: Architecture, prompt_T: Tensor, count: int
) -> Tensor:
    """The prompt and the `count` likeliest tokens after it, each from the whole text before it.

    Shapes:
        prompt_T [T] -> [T + count]
    """
    tokens_T = prompt_T
    for _ in range(count):
        logits_V = forward(weights, architecture, tokens_T[None])[0, -1]
        tokens_T = torch.cat((tokens_T, logits_V.argmax()[None]))
    return tokens_T


def _attention(
    weights: Mapping[str, Tensor],
    at: str,
    architecture: Architecture,
    x_BTC: Tensor,
    *,
    turns_TP: Tensor,
    blocked_TS: Tensor,
) -> Tensor:
    by_head = (*x_BTC.shape[:2], -1, architecture.head_dim)
    q_BTHD = _linear(x_BTC, weights[f"{at}.wq.weight"]).view(by_head)
    k_BSKD = _linear(x_BTC, weights[f"{at}.wk.weight"]).view(by_head)
    v_BSKD = _linear(x_BTC, weights[f"{at}.wv.weight"]).view(by_head)
    # Neighbouring query heads share a kv head: 0 0 0 1 1 1, never 0 1 0 1 0 1.
    group = architecture.num_heads // architecture.num_kv_heads
    q_BTHD = rotate(q_BTHD, turns_TP)
    k_BSHD = rotate(k_BSKD, turns_TP).repeat_interleave(group, dim=2)
    v_BSHD = v_BSKD.repeat_interleave(group, dim=2)
    scores_BHTS = torch.einsum("bthd,bshd->bhts", q_BTHD, k_BSHD) / math.sqrt(architecture.head_dim)
    shares_BHTS = scores_BHTS.masked_fill(blocked_TS, -math.inf).softmax(-1)
    mixed_BTHD = torch.einsum("bhts,bshd->bthd", shares_BHTS, v_BSHD.to(shares_BHTS.dtype))
    return _linear(mixed_BTHD.flatten(-2), weights[f"{at}.wo.weight"])


def _feed_forward(weights: Mapping[str, Tensor], at: str, x_BTC: Tensor) -> Tensor:
    gate = functional.silu(_linear(x_BTC, weights[f"{at}.w1.weight"]))
    return _linear(gate * _linear(x_BTC, weights[f"{at}.w3.weight"]), weights[f"{at}.w2.weight"])


def _norm(x_BTC: Tensor, gain_C: Tensor, architecture: Architecture) -> Tensor:
    mean_square = x_BTC.square().mean(-1, keepdim=True)
    return x_BTC * torch.rsqrt(mean_square + architecture.norm_eps) * gain_C.to(x_BTC.dtype)


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    return functional.linear(x, weight.to(x.dtype))
