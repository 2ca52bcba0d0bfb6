"""Families whose layers differ: in head counts, in spans, in kind, or by their stack.

Source:
    The modeling files of transformers 5.23; every entry is measured in the tests.
"""

from __future__ import annotations

from dataclasses import replace

from ropeconv.knowledge.families.fused import MODERNBERT_STAYS
from ropeconv.knowledge.families.shapes import (
    AT,
    ENDS,
    FULL_ATTENTION,
    FULL_ONLY,
    HEAD,
    INDEX_SIZES,
    LATENT_SIZES,
    LAYER,
    NOT_HALF_SPLIT,
    head_norms,
    heads,
    indexer,
    latent,
    part,
    sizes,
    stays,
)
from ropeconv.knowledge.family import Family, Rule
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED

_KIND = "(layer_types[layer] if layer_types else 'full_attention')"
_OWN = "(per_layer_config or {})[layer]"
_OUTSIDE = "outside the attention"

# Ling 2.5 and 3: the last layer of each group has latent attention, and so have those after the
# last whole group, and layers of further tokens
_LING_AT = LAYER + "{self_attn,attention}."
_LING_GROUP = "(layer_group_size or 6)"
_LING_LATENT = (
    f"not layer < L or ({FULL_ATTENTION} if layer_types else (layer + 1) % {_LING_GROUP} == 0"
    f" or not layer < L // {_LING_GROUP} * {_LING_GROUP})"
)
_LING_KEPT = tuple(
    Rule(
        name=_LING_AT + name,
        rows=rows,
        aside=HALF_SPLIT,
        optional=True,
        why="linear attention of Ling 2.5 is half-split whatever its latent attention is",
    )
    for name, rows in (
        ("query_key_value" + ENDS, "Repeat(2 * H, Rope(e), Keep(E - e)), Keep(H * E)"),
        ("{query_layernorm,key_layernorm}.weight", "Rope(e), Keep(E - e)"),
    )
)
_LING_LINEAR = (
    "{k_proj,conv1d,b_proj,f_proj,o_norm,q_conv1d,k_conv1d,v_conv1d,A_log,dt_bias,forget_gate}*"
)


def _hrm_rules() -> tuple[Rule, ...]:
    """Files have one matrix, which transformers takes apart while it loads."""
    found = []
    for stack in ("H_module", "L_module"):
        layer = f"{{base}}{stack}.layers.{{layer}}."
        found.append(
            Rule(
                name=layer + "attn.gqkv_proj.weight",
                rows=f"Keep(H * D), Repeat(H, {HEAD}), Repeat(H, {HEAD}), Keep(H * D)",
                optional=True,
                why="gates of all heads, then all queries, then all keys, then all values",
            )
        )
        found += [replace(rule, optional=True) for rule in heads(layer + "self_attn.")]
    return tuple(found)


# dots 3 note: sliding layers have other sizes than the rest
_DOTS_KNOWN = (
    "per_layer_config or not 'sliding_attention' in (layer_types or ('sliding_attention',))"
)
_DOTS_WHY = "sliding layers have sizes of their own, which its config must state"

# Step 3.5 and 3.7: sliding layers have more heads; layers of further tokens come after the model's,
# and older configs list them with the others
_STEP_KIND = (
    "(mtp_layer_types[layer - L] if mtp_layer_types and not layer < L else layer_types[layer])"
)
_STEP_OTHER = "attention_other_setting.num_attention_heads or num_sliding_attention_heads"
_STEP_H = f"(({_STEP_OTHER}) if {_STEP_KIND} == 'sliding_attention' else 0)"
_STEP_K = (
    f"(attention_other_setting.num_attention_groups if {_STEP_KIND} == 'sliding_attention' else 0)"
)
_STEP_PART = (
    f"(rope_parameters or {{}})[{_STEP_KIND}].partial_rotary_factor"
    " or (partial_rotary_factors[layer] if partial_rotary_factors else 1)"
)

# Laguna: layer by layer
_LAGUNA_H = "num_attention_heads_per_layer"
_LAGUNA_R = (
    f"int(D * (rope_parameters[{_KIND}].partial_rotary_factor or 1)) if rope_parameters"
    f" else D // 2 if {_KIND} == 'full_attention' else D"
)

# Gemma 4: the last layers use keys that an earlier layer of their kind made
_OWN_KEYS = "layer < L - (num_kv_shared_layers or 0)"
_GLOBAL = f"not per_layer_config and {_KIND} == 'full_attention'"
_GEMMA4_D = f"((global_head_dim or 512) if {_GLOBAL} else head_dim or 256)"
_GEMMA4_K = (
    f"(num_global_key_value_heads if {_GLOBAL} and attention_k_eq_v else 0) or num_key_value_heads"
)
_GEMMA4_LAYER = (
    "{pre_feedforward_layernorm_2,post_feedforward_layernorm_1,post_feedforward_layernorm_2,"
    "per_layer_input_gate,per_layer_projection,post_per_layer_input_norm,router,experts}.*"
)
_GEMMA4_MODEL = (
    "{embed_tokens_per_layer,per_layer_model_projection,per_layer_projection_norm}.weight"
)
_SHARED = f"attention_k_eq_v and {_KIND} == 'full_attention'"
_READS_KEYS = Rule(
    name=AT + "o_proj.weight",
    rows="Repeat(C, Repeat(H, Rope(D)))",
    layers=_SHARED,
    inputs=True,
    why="values are made from the key projection's rows, so the columns that read them follow",
)


def _gemma4(name: str, title: str) -> Family:
    query, key = heads()
    query_norm, key_norm = head_norms()
    return Family(
        name=name,
        title=title,
        layout=HALF_SPLIT,
        rules=(
            *(query, query_norm, _READS_KEYS),
            *(replace(rule, layers=_OWN_KEYS) for rule in (key, key_norm)),
        ),
        sizes=sizes(D="head_dim or 256"),
        layer_sizes=(
            ("D", f"{_OWN}.head_dim or {_GEMMA4_D}"),
            ("K", f"{_OWN}.num_key_value_heads or {_GEMMA4_K}"),
        ),
        stays=(
            *stays(),
            (LAYER + _GEMMA4_LAYER, _OUTSIDE),
            ("{base}" + _GEMMA4_MODEL, _OUTSIDE),
        ),
    )


VARIED = (
    _gemma4("gemma4_text", "Gemma 4, text"),
    _gemma4("gemma4_unified_text", "Gemma 4 unified, text"),
    Family(
        name="bailing_hybrid",
        title="Ling 2.5 and 3",
        layout=INTERLEAVED,
        rules=(
            *(replace(rule, layers=_LING_LATENT) for rule in latent(_LING_AT)),
            *_LING_KEPT,
        ),
        sizes=(
            *LATENT_SIZES,
            ("E", "head_dim or C // H"),
            ("e", "int(E * (partial_rotary_factor or 0.5))"),
        ),
        stays=(
            *stays(at="{self_attn,attention}."),
            (_LING_AT + _LING_LINEAR, "linear attention has no rotation"),
            (_LING_AT + "g_norm.weight", "acts on what the attention gives"),
        ),
        needs=(NOT_HALF_SPLIT,),
    ),
    Family(
        name="cohere_compass_text",
        title="Command with vision, text",
        layout=HALF_SPLIT,
        rules=heads(
            layers=f"rope_parameters[{_KIND}] if 'full_attention' in (rope_parameters or ())"
            " or 'sliding_attention' in (rope_parameters or ()) else True"
        ),
        sizes=sizes(),
        stays=stays(),
        needs=FULL_ONLY,
    ),
    Family(
        name="dots3_note_text",
        title="dots 3 note, text",
        layout=INTERLEAVED,
        rules=(
            *latent(q="q_b_proj"),
            Rule(
                name=AT + "k_rope_only_layernorm.weight",
                rows="Rope(r)",
                why="its entries belong to the rotated key that all heads share",
            ),
            *indexer(None),
        ),
        sizes=INDEX_SIZES,
        layer_sizes=(
            ("H", f"{_OWN}.num_attention_heads or num_attention_heads"),
            ("N", f"{_OWN}.qk_nope_head_dim or qk_nope_head_dim"),
            ("r", f"{_OWN}.qk_rope_head_dim or qk_rope_head_dim"),
            ("R", f"{_OWN}.kv_lora_rank or kv_lora_rank"),
        ),
        stays=stays(),
        needs=(
            (_DOTS_KNOWN, _DOTS_WHY),
        ),
    ),
    Family(
        name="hrm_text",
        title="HRM, text",
        layout=HALF_SPLIT,
        rules=_hrm_rules(),
        sizes=sizes(K="H", L="num_layers_per_stack"),
        stays=(
            *stays("{base}{H_module,L_module}.layers.{layer}.", "{self_attn,attn}."),
            ("{base}z_L_init", _OUTSIDE),
        ),
        needs=FULL_ONLY,
    ),
    Family(
        name="laguna",
        title="Laguna",
        layout=HALF_SPLIT,
        rules=(*heads(), *head_norms()),
        sizes=sizes(),
        layer_sizes=(
            ("H", f"{_LAGUNA_H}[layer] if {_LAGUNA_H} else num_attention_heads"),
            ("r", _LAGUNA_R),
        ),
        stays=stays(),
    ),
    Family(
        name="modernbert-decoder",
        title="ModernBERT decoder (Ettin)",
        layout=HALF_SPLIT,
        rules=heads(LAYER + "attn."),
        sizes=sizes(K="H", D="C // H"),
        stays=MODERNBERT_STAYS,
        needs=FULL_ONLY,
    ),
    Family(
        name="qwen4_exp_text",
        title="Qwen 4 Exp, text",
        layout=HALF_SPLIT,
        rules=(
            *heads(gate=True),
            *head_norms(),
            Rule(
                name=AT + "indexer.index_qk_proj.weight",
                rows="Repeat(X + Y, Rope(r), Keep(I - r))",
                optional=True,
                why="the indexer's queries, then its keys, are rotated as the main ones are",
            ),
            Rule(
                name=AT + "indexer.{q_layernorm,k_layernorm}.weight",
                rows="Rope(r), Keep(I - r)",
                optional=True,
                why="its entries belong to the rows of every head of the indexer",
            ),
        ),
        sizes=sizes(
            D="head_dim or 256",
            r=part(1.0),
            X="indexer_n_heads",
            Y="indexer_kv_heads",
            I="indexer_head_dim",
        ),
        stays=(
            *stays(),
            (LAYER + "{attn_hyper_connection,mlp_hyper_connection,ple}.*", _OUTSIDE),
            ("{base}hyper_connection_mixer.*", _OUTSIDE),
        ),
    ),
    Family(
        name="step3p5",
        title="Step 3.5 and 3.7, text",
        layout=HALF_SPLIT,
        rules=(*heads(), *head_norms()),
        sizes=sizes(K="num_key_value_heads or num_attention_groups"),
        layer_sizes=(
            ("H", f"{_OWN}.num_attention_heads or {_STEP_H} or num_attention_heads"),
            ("K", f"{_STEP_K} or num_key_value_heads or num_attention_groups"),
            ("r", f"int(D * ({_STEP_PART}))"),
        ),
        stays=(*stays(), (LAYER + "{share_expert,transformer.shared_head}.*", _OUTSIDE)),
    ),
)  # fmt: skip
