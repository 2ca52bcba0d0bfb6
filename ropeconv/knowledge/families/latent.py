"""Latent attention (MLA): the rotary rows are the last of every query head and of the shared key.

Five of these models have a switch in the config, `rope_interleave`; the others are written for one
layout only. The indexers of sparse attention keep a layout of their own.
"""

from __future__ import annotations

from dataclasses import replace

from ropeconv.knowledge.families.shapes import (
    AT,
    INDEX_SIZES,
    LATENT_SIZES,
    LAYER,
    indexer,
    latent,
    stays,
)
from ropeconv.knowledge.family import Family
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED

SWITCH = "rope_interleave"
FURTHER = "model.mtp.layers.{layer}."  # LongCat's layer that predicts a further token


def _switched(name: str, title: str) -> Family:
    return Family(
        name=name,
        title=title,
        layout=INTERLEAVED,
        rules=latent(),
        sizes=LATENT_SIZES,
        stays=stays(),
        switch=SWITCH,
    )


LATENT = (
    _switched("deepseek_v3", "DeepSeek V3 and R1"),
    _switched("axk1", "A.X K1"),
    _switched("glm4_moe_lite", "GLM-4.7 Flash"),
    _switched("mistral4", "Mistral 4"),
    _switched("youtu", "Youtu"),
    Family(
        name="deepseek_v2",
        title="DeepSeek V2",
        layout=INTERLEAVED,
        rules=latent(),
        sizes=LATENT_SIZES,
        stays=stays(),
    ),
    Family(
        name="minicpm3",
        title="MiniCPM 3",
        layout=HALF_SPLIT,
        rules=latent(),
        sizes=LATENT_SIZES,
        stays=stays(),
    ),
    Family(
        name="longcat_flash",
        title="LongCat Flash",
        layout=INTERLEAVED,
        rules=(
            *latent(LAYER + "self_attn.{0,1}."),
            *(replace(rule, optional=True) for rule in latent(FURTHER + "self_attn.")),
        ),
        sizes=tuple({**dict(LATENT_SIZES), "L": "num_layers"}.items()),
        stays=(
            *stays(at="self_attn.{0,1}."),
            *stays(FURTHER),
            (FURTHER + "{enorm.m,hnorm.m,transformer_layer.mlp}.*", "outside the attention"),
            ("model.mtp.{embed_tokens,norm}.weight", "outside the attention"),
        ),
    ),
    Family(
        name="deepseek_v32",
        title="DeepSeek V3.2",
        layout=INTERLEAVED,
        rules=(*latent(), *indexer(HALF_SPLIT)),
        sizes=INDEX_SIZES,
        stays=stays(),
    ),
    Family(
        name="glm_moe_dsa",
        title="GLM-5",
        layout=INTERLEAVED,
        rules=(*latent(), *indexer(None)),
        sizes=INDEX_SIZES,
        stays=stays(),
    ),
    Family(
        name="axk2",
        title="A.X K2",
        layout=INTERLEAVED,
        rules=(
            *latent(q="{q_gate_proj,q_b_proj}", rows="Repeat(H, Keep(N), Rope(r), Keep(W))"),
            *indexer(HALF_SPLIT),
        ),
        sizes=(*INDEX_SIZES, ("W", "v_head_dim")),
        stays=(
            *stays(),
            (
                LAYER + "{input_layernorm,post_attention_layernorm}.{norm,W_up,W_down}.weight",
                "acts on the hidden state",
            ),
            ("{base}norm.{norm,W_up,W_down}.weight", "acts on the hidden state"),
        ),
    ),
    Family(
        name="hy_v4",
        title="HY 4",
        layout=HALF_SPLIT,
        rules=(*latent(AT), *indexer(None, tail=True)),
        sizes=INDEX_SIZES,
        stays=stays(),
    ),
)

LATENT_BY_NAME = {family.name: family for family in LATENT}
