"""Families whose code comes with their checkpoints, and is not in transformers.

Those that mlx-lm runs are measured against its code in the tests, the others against MindNLP's, by
hand: tests/families/by_hand.py says how.

Source:
    The models of mlx-lm 0.32, https://github.com/ml-explore/mlx-lm, and of MindNLP 0.4.1,
    https://github.com/mindspore-lab/mindnlp.
"""

from __future__ import annotations

from dataclasses import replace

from ropeconv.knowledge.families.latent import LATENT_BY_NAME
from ropeconv.knowledge.families.remote_fused import JOINED
from ropeconv.knowledge.families.shapes import (
    AT,
    BLOCKS,
    ENDS,
    IN_BLOCKS,
    LATENT_SIZES,
    LAYER,
    NOT_HALF_SPLIT,
    QUERY,
    fused,
    head_norms,
    heads,
    latent,
    plain,
    sizes,
    stays,
)
from ropeconv.knowledge.family import Family, Peer, Rule
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED

_H = "{base}h.{layer}."
_OUTSIDE = "outside the attention"

_OLDER = (
    plain("internlm", "InternLM 1"),
    Family(
        name="baichuan",
        title="Baichuan 7B",
        layout=HALF_SPLIT,
        rules=fused(AT + "W_pack", BLOCKS, IN_BLOCKS),
        sizes=sizes(),
        stays=stays(),
        needs=(("C != 5120", "Baichuan 13B adds ALiBi and rotates nothing"),),
    ),
    Family(
        name="chatglm",
        title="ChatGLM 2, 3 and GLM-4 (original files)",
        layout=INTERLEAVED,
        bases=("transformer.encoder.", "encoder."),
        rules=fused(LAYER + "self_attention.query_key_value", BLOCKS, IN_BLOCKS),
        sizes=sizes(
            K="multi_query_group_num if multi_query_attention else H",
            D="kv_channels or C // H",
            r="D // 2",
            L="num_layers",
            V="padded_vocab_size",
        ),
        stays=(
            *stays(at="self_attention."),
            ("transformer.{embedding,output_layer,rotary_pos_emb}.*", _OUTSIDE),
        ),
    ),
)

_NORMED = (*heads(), *head_norms())
_DECI_GROUP = "block_configs[layer].attention.n_heads_in_group"

_SPLIT = (
    plain("deepseek", "DeepSeek MoE"),
    plain("minicpm", "MiniCPM 1 and 2"),
    plain("xverse", "XVERSE"),
    plain("telechat3", "TeleChat 3"),
    plain("nanbeige", "Nanbeige 4"),
    plain("Klear", "Klear", _NORMED),
    plain("gear", "Gear", _NORMED, also=((LAYER + "local_mixer.*", "convolutions do not rotate"),)),
    plain(
        "mimo",
        "MiMo",
        bases=("model.", "", "model.mtp_"),
        also=(
            (
                LAYER + "{input_proj,token_layernorm,hidden_layernorm,final_layernorm}.weight",
                _OUTSIDE,
            ),
        ),
    ),
    plain(
        "iquestloopcoder",
        "IQuest Coder, looped",
        (
            *heads(),
            Rule(
                name="model.gate_projections.{layer}.weight",
                rows=QUERY,
                why="each head's vector is multiplied with its rotated queries",
            ),
        ),
        also=(("model.gate_projections.{layer}.bias", "has an entry for each head"),),
    ),
    replace(
        plain(
            "nemotron-nas",
            "Llama Nemotron Super and Ultra",
            layers=_DECI_GROUP,
            also=((AT + "{linear,linear_attn}" + ENDS, "stands in for an attention"),),
        ),
        layer_sizes=(("K", f"H // {_DECI_GROUP}"),),
    ),
    plain(
        "plamo",
        "PLaMo",
        bases=("model.layers.", "model."),
        K="(H + S - 1) // S",
        S="n_shared_head or 8",
        also=((LAYER + "norm.weight", "acts on the hidden state"),),
    ),
    plain(
        "exaone",
        "EXAONE 3 and 3.5",
        heads(_H + "attn.attention."),
        bases=("transformer.", ""),
        L="num_hidden_layers or num_layers",
        also=stays(_H, "attn.attention."),
    ),
)

_LATENT = (
    replace(LATENT_BY_NAME["deepseek_v3"], name="kimi_k2", title="Kimi K2", switch=""),
    replace(
        LATENT_BY_NAME["deepseek_v3"], name="joyai_llm_flash", title="JoyAI LLM Flash", switch=""
    ),
    replace(
        LATENT_BY_NAME["longcat_flash"],
        name="longcat_flash_ngram",
        title="LongCat Flash Lite",
        stays=(
            *LATENT_BY_NAME["longcat_flash"].stays,
            ("model.ngram_embeddings.*", "embeddings are not rotated"),
        ),
    ),
    Family(
        name="youtu_llm",
        title="Youtu (original files)",
        layout=INTERLEAVED,
        rules=latent(),
        sizes=LATENT_SIZES,
        stays=stays(),
        needs=(NOT_HALF_SPLIT,),
    ),
)

REMOTE = (
    *(replace(family, measured_by=Peer.MINDNLP) for family in _OLDER),
    *(replace(family, measured_by=Peer.MLX_LM) for family in (*_SPLIT, *JOINED, *_LATENT)),
)
