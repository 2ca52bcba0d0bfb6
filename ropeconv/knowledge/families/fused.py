"""Families whose queries, keys and values come from one projection, in one of five forms.

The number of rows is the same in all of them, so the form is a property of the family.
"""

from __future__ import annotations

from dataclasses import replace

from ropeconv.knowledge.families.shapes import (
    AT,
    BLOCKS,
    ENDS,
    FULL_ONLY,
    HEAD,
    IN_BLOCKS,
    LAYER,
    ONE_KEY,
    PER_GROUP,
    PER_HEAD,
    fused,
    head_norms,
    heads,
    part,
    sizes,
    stays,
    wide_norms,
)
from ropeconv.knowledge.family import Family, Rule
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED

_H = "{base}h.{layer}."
_EACH = "each head has its query, key and value rows together"
_GROUP = "each group has its queries, then its key, then its value"
_OLD_HEADS = "num_attention_heads or n_head"
# Falcon: the three fused forms, chosen by the config
_NEW = "new_decoder_architecture"
_FALCON = _H + "self_attention.query_key_value.{weight,bias}"

MODERNBERT_STAYS = (
    *stays(at="attn."),
    ("{base}embeddings.{tok_embeddings,norm}" + ENDS, "embeddings are not rotated"),
    (
        "{decoder,classifier,lm_head.dense,lm_head.norm,head.dense,head.norm}" + ENDS,
        "the output is not rotated",
    ),
)

# Molmo 2: transformers takes the one matrix of its files apart, and its layers have another name
_MOLMO = "{base}{layers,blocks}.{layer}."
_OLMO_NORMS = "qk_norm_type == 'olmo'"

FUSED = (
    Family(
        name="molmo2_text",
        title="Molmo 2, text",
        layout=HALF_SPLIT,
        rules=(
            *(
                replace(rule, optional=True)
                for rule in (
                    *fused(_MOLMO + "self_attn.att_proj", BLOCKS, IN_BLOCKS),
                    *heads(_MOLMO + "self_attn."),
                )
            ),
            *head_norms(_MOLMO + "self_attn.", layers=f"not {_OLMO_NORMS}"),
            *wide_norms(_MOLMO + "self_attn.", layers=_OLMO_NORMS),
        ),
        sizes=sizes(D="head_dim or 128"),
        stays=(
            *stays(_MOLMO),
            (_MOLMO + "self_attn.attn_out" + ENDS, "values are not rotated, nor what reads them"),
            (_MOLMO + "ff_norm.weight", "acts on the hidden state, before or after the heads"),
            ("{base}wte.{embedding,new_embedding}", "embeddings are not rotated"),
        ),
        needs=FULL_ONLY,
    ),
    Family(
        name="modernbert",
        title="ModernBERT",
        layout=HALF_SPLIT,
        rules=fused(LAYER + "attn.Wqkv", BLOCKS, IN_BLOCKS),
        sizes=sizes(K="H", D="C // H"),
        stays=MODERNBERT_STAYS,
        needs=FULL_ONLY,
    ),
    Family(
        name="gpt_neox",
        title="GPT-NeoX and Pythia",
        layout=HALF_SPLIT,
        bases=("gpt_neox.", ""),
        rules=fused(LAYER + "attention.query_key_value", PER_HEAD, _EACH),
        sizes=sizes(
            r=part(0.25, "rope_parameters.partial_rotary_factor or rotary_pct or"
                         " partial_rotary_factor")
        ),
        stays=stays(at="attention."),
    ),
    Family(
        name="gpt_neox_japanese",
        title="GPT-NeoX Japanese",
        layout=HALF_SPLIT,
        bases=("gpt_neox_japanese.", ""),
        rules=fused(LAYER + "attention.query_key_value", PER_HEAD, _EACH),
        sizes=sizes(r="int(D * (rope_parameters.partial_rotary_factor or rotary_pct or 1))"),
        stays=stays(at="attention."),
    ),
    Family(
        name="persimmon",
        title="Persimmon",
        layout=HALF_SPLIT,
        rules=(
            *fused(AT + "query_key_value", PER_HEAD, _EACH),
            *head_norms(q="q_layernorm", k="k_layernorm"),
        ),
        sizes=sizes(r=part(0.5)),
        stays=stays(),
    ),
    Family(
        name="phi3",
        title="Phi 3 and 4",
        layout=HALF_SPLIT,
        rules=fused(AT + "qkv_proj", BLOCKS, IN_BLOCKS),
        sizes=sizes(r=part(1.0)),
        stays=stays(),
    ),
    Family(
        name="dbrx",
        title="DBRX",
        layout=HALF_SPLIT,
        bases=("transformer.", ""),
        rules=fused(
            "{base}blocks.{layer}.norm_attn_norm.attn.Wqkv", BLOCKS, IN_BLOCKS
        ),
        sizes=sizes(
            C="d_model", H="n_heads", K="attn_config.kv_n_heads or H", L="n_layers"
        ),
        stays=(
            *stays("{base}blocks.{layer}.", "norm_attn_norm.attn."),
            ("{base}blocks.{layer}.norm_attn_norm.{norm_1,norm_2}.weight", "a norm"),
            ("{base}blocks.{layer}.norm_attn_norm.attn.out_proj.weight", "reads values"),
        ),
    ),
    Family(
        name="falcon",
        title="Falcon",
        layout=HALF_SPLIT,
        bases=("transformer.", ""),
        rules=(
            Rule(name=_FALCON, rows=PER_GROUP, layers=_NEW, why=_GROUP),
            Rule(
                name=_FALCON,
                rows=ONE_KEY,
                layers=f"not {_NEW} and multi_query",
                why="all queries, then the one key and the one value that they share",
            ),
            Rule(
                name=_FALCON,
                rows=PER_HEAD,
                layers=f"not {_NEW} and not multi_query",
                why=_EACH,
            ),
        ),
        sizes=sizes(
            H=_OLD_HEADS,
            K=f"(num_kv_heads or n_head_kv or H) if {_NEW} else 1 if multi_query else H",
            L="num_hidden_layers or n_layer",
        ),
        stays=stays(_H, "self_attention."),
        needs=(("not alibi", "this Falcon adds ALiBi and rotates nothing"),),
    ),
    Family(
        name="gptj",
        title="GPT-J",
        layout=INTERLEAVED,
        bases=("transformer.", ""),
        rules=heads(_H + "attn."),
        sizes=sizes(C="n_embd", H="n_head", r="rotary_dim or 64", L="n_layer"),
        stays=stays(_H, "attn."),
    ),
    Family(
        name="codegen",
        title="CodeGen",
        layout=INTERLEAVED,
        bases=("transformer.", ""),
        rules=(
            Rule(
                name=_H + "attn.qkv_proj.weight",
                rows=f"Repeat(4, Repeat(G, {HEAD}), Keep(G * D), Repeat(G, {HEAD}))",
                why="four blocks of heads, each with its queries, values and keys in this order",
            ),
        ),
        sizes=sizes(C="n_embd", H="n_head", r="rotary_dim or 64", G="H // 4", L="n_layer"),
        stays=(
            *stays(_H, "attn."),
            (_H + "attn.causal_mask", "a buffer, no weight"),
        ),
    ),
)  # fmt: skip
