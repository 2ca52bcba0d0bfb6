"""Families outside transformers whose queries, keys and values come from one projection.

Source:
    The models of mlx-lm 0.32, https://github.com/ml-explore/mlx-lm, against which they are measured
    in the tests.
"""

from __future__ import annotations

from ropeconv.knowledge.families.shapes import (
    AT,
    BLOCKS,
    FULL_ONLY,
    IN_BLOCKS,
    KEY,
    LAYER,
    PER_GROUP,
    QUERY,
    fused,
    head_norms,
    part,
    sizes,
    stays,
)
from ropeconv.knowledge.family import Family, Rule
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED

_H = "{base}h.{layer}."
_ATTENTION = LAYER + "attention."
_GROUP = "each group has its queries, then its key, then its value"
_OUTSIDE = "outside the attention"
_ENTRIES = "it has an entry for each row of the heads, and moves with them"
_LAYER_NORMS = "{pre_mixer_norm,post_mixer_norm,pre_mlp_norm,post_mlp_norm}.weight"
_OWN_KEYS = "not use_cla or layer % cla_share_factor == 0"  # HunYuan: others use an earlier layer's
_LING_NORMS = head_norms(_ATTENTION, "query_layernorm", "key_layernorm")
# Ring linear: the last layer of each group, and those after the last whole group, have scores
_LING_SCORES = (
    "(layer + 1) % layer_group_size == 0 or not layer < L // layer_group_size * layer_group_size"
)
_WINDOW = "layer in sliding_window_layers"

# AFM: the last layers use keys and values that one layer before them made
_REUSING = "{base}kv_reuse_layers.{layer}."

JOINED = (
    Family(
        name="afm7",
        title="AFM, Apple's model for devices",
        layout=INTERLEAVED,
        rules=(
            *fused(AT + "qkv_proj", BLOCKS, IN_BLOCKS),
            *head_norms(),
            Rule(
                name=_REUSING + "self_attn.q_proj.weight",
                rows=QUERY,
                optional=True,
                why="every query head is rotated; its key is another layer's",
            ),
            *head_norms(_REUSING + "self_attn.")[:1],
        ),
        sizes=sizes(
            C="hidden_dim",
            H="num_heads",
            K="num_kv_heads or H",
            D="C // H",
            L="num_layers - num_kv_reuse_layers",
        ),
        stays=(
            *stays(),
            *stays(_REUSING),
            (AT + "{quant_key_scale,quant_value_scale}", "one scale for all rows"),
            ("{base}embedding.weight", "embeddings are not rotated"),
            ("{base}output_norm.weight", "acts on the hidden state"),
        ),
    ),
    Family(
        name="internlm2",
        title="InternLM 2",
        layout=HALF_SPLIT,
        rules=fused(_ATTENTION + "wqkv", PER_GROUP, _GROUP),
        sizes=sizes(),
        stays=stays(at="attention."),
        needs=FULL_ONLY,
    ),
    Family(
        name="qwen",
        title="Qwen 1",
        layout=HALF_SPLIT,
        bases=("transformer.", ""),
        rules=fused(_H + "attn.c_attn", BLOCKS, IN_BLOCKS),
        sizes=sizes(K="H", D="kv_channels or C // H"),
        stays=stays(_H, "attn."),
    ),
    Family(
        name="phi-msft",
        title="Phi 1.5 and 2 (original files), Phixtral",
        layout=HALF_SPLIT,
        bases=("transformer.", ""),
        rules=fused(_H + "mixer.Wqkv", BLOCKS, IN_BLOCKS),
        sizes=sizes(C="n_embd", H="n_head", K="n_head_kv or H", r="rotary_dim", L="n_layer"),
        stays=(
            *stays(_H, "mixer."),
            (_H + "ln.{weight,bias}", "acts on the hidden state"),
            ("{transformer.embd,lm_head}.*", _OUTSIDE),
        ),
    ),
    Family(
        name="phi3small",
        title="Phi 3 small",
        layout=HALF_SPLIT,
        rules=fused(AT + "query_key_value", PER_GROUP, _GROUP),
        sizes=sizes(),
        stays=stays(),
        needs=FULL_ONLY,
    ),
    Family(
        name="bailing_moe",
        title="Ling and Ring 1 to 2",
        layout=HALF_SPLIT,
        rules=(*fused(_ATTENTION + "query_key_value", BLOCKS, IN_BLOCKS), *_LING_NORMS),
        sizes=sizes(r=f"rotary_dim or {part(1.0)}"),
        stays=(*stays(at="attention."), (LAYER + "final_layernorm.weight", _OUTSIDE)),
    ),
    Family(
        name="bailing_moe_linear",
        title="Ling and Ring 2, linear",
        layout=HALF_SPLIT,
        rules=(*fused(_ATTENTION + "query_key_value", BLOCKS, IN_BLOCKS), *_LING_NORMS),
        sizes=sizes(r=part(1.0)),
        layer_sizes=(("K", f"(num_key_value_heads or H) if {_LING_SCORES} else H"),),
        stays=(
            *stays(at="attention."),
            (_ATTENTION + "g_norm.weight", "acts on what the attention gives"),
            (LAYER + "final_layernorm.weight", _OUTSIDE),
        ),
    ),
    Family(
        name="hunyuan",
        title="HunYuan Large",
        layout=HALF_SPLIT,
        rules=(
            Rule(
                name=AT + "qkv_proj.{weight,bias}",
                rows=PER_GROUP,
                layers=_OWN_KEYS,
                optional=True,
                why=_GROUP,
            ),
            Rule(
                name=AT + "q_proj.{weight,bias}",
                rows=QUERY,
                optional=True,
                why="every query head is rotated",
            ),
            Rule(
                name=AT + "k_proj.{weight,bias}",
                rows=KEY,
                layers=_OWN_KEYS,
                optional=True,
                why="every key head is rotated; layers that use another's have none",
            ),
            *head_norms(q="query_layernorm", k="key_layernorm"),
        ),
        sizes=sizes(),
        stays=stays(),
        needs=FULL_ONLY,
    ),
    Family(
        name="openelm",
        title="OpenELM",
        layout=HALF_SPLIT,
        bases=("transformer.", ""),
        rules=(
            *fused(LAYER + "attn.qkv_proj", BLOCKS, IN_BLOCKS),
            *head_norms(LAYER + "attn."),
        ),
        sizes=sizes(
            C="model_dim",
            H="num_query_heads[0]",
            K="num_kv_heads[0]",
            L="num_transformer_layers",
        ),
        layer_sizes=(("H", "num_query_heads[layer]"), ("K", "num_kv_heads[layer]")),
        stays=(
            *stays(at="attn."),
            ("{base}token_embeddings.weight", "embeddings are not rotated"),
        ),
    ),
    Family(
        name="baichuan_m1",
        title="Baichuan M1",
        layout=HALF_SPLIT,
        rules=fused(AT + "W_pack", BLOCKS, IN_BLOCKS),
        sizes=sizes(D="C // H"),
        layer_sizes=(
            ("H", f"(num_swa_attention_heads if {_WINDOW} else 0) or num_attention_heads"),
            ("K", f"(num_swa_key_value_heads if {_WINDOW} else 0) or num_key_value_heads"),
        ),
        stays=(
            *stays(),
            (AT + "{conv_k,conv_v}", "weighs a whole head and the one before it"),
        ),
    ),
    Family(
        name="spark2_5",
        title="Spark 2.5",
        layout=HALF_SPLIT,
        rules=fused(AT + "q_k_v_proj", BLOCKS, IN_BLOCKS),
        sizes=sizes(),
        layer_sizes=(
            ("r", "int(D * (rope_parameters[layer_types[layer]].partial_rotary_factor or 1))"),
        ),
        stays=(*stays(), ("{base}embedding.weight", "embeddings are not rotated")),
    ),
    Family(
        name="plamo2",
        title="PLaMo 2",
        layout=HALF_SPLIT,
        bases=("model.layers.", "model."),
        rules=(
            *fused(LAYER + "mixer.qkv_proj", BLOCKS, IN_BLOCKS),
            Rule(
                name=LAYER + "mixer.q_weight",
                rows=QUERY,
                optional=True,
                why=_ENTRIES,
            ),
            Rule(
                name=LAYER + "mixer.k_weight",
                rows=KEY,
                optional=True,
                why=_ENTRIES,
            ),
        ),
        sizes=sizes(D="hidden_size_per_head"),
        stays=(
            *stays(at="mixer."),
            (LAYER + _LAYER_NORMS, "acts on the hidden state"),
            (LAYER + "mixer.{in_proj,conv1d,bcdt_proj,dt_proj}.*", "the recurrent block"),
            (
                LAYER + "mixer.{dt_bias,A_log,D,dt_norm_weight,B_norm_weight,C_norm_weight}",
                "the recurrent block",
            ),
        ),
    ),
    Family(
        name="plamo3",
        title="PLaMo 3",
        layout=HALF_SPLIT,
        bases=("model.layers.", "model."),
        rules=(
            *fused(LAYER + "mixer.qkv_proj", BLOCKS, IN_BLOCKS),
            *head_norms(LAYER + "mixer."),
        ),
        sizes=sizes(),
        stays=(*stays(at="mixer."), (LAYER + _LAYER_NORMS, "acts on the hidden state")),
    ),
    Family(
        name="lille-130m",
        title="Lille",
        layout=INTERLEAVED,
        bases=("transformer.", ""),
        rules=fused(_ATTENTION + "qkv_proj", BLOCKS, IN_BLOCKS),
        sizes=sizes(C="n_embd", H="n_head", K="n_kv_heads or H", L="n_layer"),
        stays=(
            *stays(at="attention."),
            (_ATTENTION + "norm.weight", "acts on the hidden state"),
        ),
    ),
)
