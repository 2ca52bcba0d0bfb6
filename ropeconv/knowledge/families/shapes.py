"""Forms of attention that families share: rules, sizes and what stays, as data to be combined.

Sizes are formulas over config.json; what transformers takes where a key is absent stands last.
"""

from __future__ import annotations

from dataclasses import replace

from ropeconv.knowledge.family import Family, Rule
from ropeconv.words.layout import HALF_SPLIT, RopeLayout

LAYER = "{base}layers.{layer}."
AT = LAYER + "self_attn."
ENDS = ".{weight,bias}"

HEAD = "Rope(r), Keep(D - r)"
QUERY = f"Repeat(H, {HEAD})"
KEY = f"Repeat(K, {HEAD})"
GATED_QUERY = f"Repeat(H, {HEAD}, Keep(D))"
BLOCKS = f"Repeat(H, {HEAD}), Repeat(K, {HEAD}), Keep(K * D)"
IN_BLOCKS = "all queries, then all keys, then all values"  # why a fused projection has these rows
PER_HEAD = f"Repeat(H, {HEAD}, {HEAD}, Keep(D))"
PER_GROUP = f"Repeat(K, Repeat(G, {HEAD}), {HEAD}, Keep(D))"
ONE_KEY = f"Repeat(H + 1, {HEAD}), Keep(D)"

FACTOR = (
    "rope_parameters.partial_rotary_factor or partial_rotary_factor"
    " or rope_parameters.full_attention.partial_rotary_factor"
)
_KINDS = "(rope_parameters.rope_type, rope_parameters.full_attention.rope_type)"
FULL_ONLY = (
    (
        f"({FACTOR} or 1) == 1 or 'proportional' in {_KINDS}",
        "the config rotates a part of each head, which this family's code does not do",
    ),
)
NOT_HALF_SPLIT = (
    "rope_interleave != False",
    "the config asks for half-split rows, which not every program of this family can rotate",
)
SIZES = {
    "C": "hidden_size",
    "H": "num_attention_heads",
    "K": "num_key_value_heads or H",
    "D": "head_dim or C // H",
    "r": "D",
    "G": "H // K",
    "L": "num_hidden_layers",
    "V": "vocab_size",
}
SLIDING = "layer_types[layer] == 'sliding_attention'"
FULL_ATTENTION = "layer_types[layer] == 'full_attention'"


def sizes(**changed: str) -> tuple[tuple[str, str], ...]:
    """The usual sizes, with some formulas replaced or added; a word may follow a letter later."""
    return tuple({**SIZES, **changed}.items())


def part(default: float, factor: str = FACTOR) -> str:
    """The formula of rotary rows, a part of the head."""
    return f"int(D * ({factor} or {default}))"


def heads(
    at: str = AT, q: str = "q_proj", k: str = "k_proj", *, layers: str = "", gate: bool = False
) -> tuple[Rule, ...]:
    """Query and key projections of their own."""
    query = GATED_QUERY if gate else QUERY
    why = "every query head is rotated" + (", its gate is not" if gate else "")
    return (
        Rule(name=at + q + ENDS, rows=query, layers=layers, why=why),
        Rule(name=at + k + ENDS, rows=KEY, layers=layers, why="every key head is rotated"),
    )


def stack(at: str, word: str, *, norms: bool = False, part: bool = False) -> tuple[Rule, ...]:
    """Query and key projections of one of several stacks, whose sizes end in a word of its own.

    Args:
        at: of its attention.
        word: which the letters of its sizes end in.
        norms: whether queries and keys have norms over one head.
        part: whether a part of each head rotates.
    """
    head = f"Rope(r{word}), Keep(D{word} - r{word})" if part else f"Rope(D{word})"
    depth = f"L{word}"
    whose = (("q", f"Repeat(H{word}, {head})", "query"), ("k", f"Repeat(K{word}, {head})", "key"))
    rules = tuple(
        Rule(
            name=f"{at}{letter}_proj{ENDS}",
            rows=rows,
            depth=depth,
            why=f"every {kind} head of the stack is rotated",
        )
        for letter, rows, kind in whose
    )
    if not norms:
        return rules
    return rules + tuple(replace(rule, rows=head, depth=depth) for rule in head_norms(at))


def stack_sizes(word: str, config: str, **changed: str) -> dict[str, str]:
    """The sizes of a stack, with the config that has them; some formulas replaced."""
    found = {
        f"C{word}": f"{config}.hidden_size",
        f"H{word}": f"{config}.num_attention_heads",
        f"K{word}": f"{config}.num_key_value_heads or H{word}",
        f"D{word}": f"{config}.head_dim or C{word} // H{word}",
        f"L{word}": f"{config}.num_hidden_layers",
    }
    return found | {f"{letter}{word}": formula for letter, formula in changed.items()}


def head_norms(
    at: str = AT, q: str = "q_norm", k: str = "k_norm", *, layers: str = ""
) -> tuple[Rule, ...]:
    """Norms over one head, whose vector all heads share."""
    return tuple(
        Rule(
            name=at + name + ENDS,
            rows=HEAD,
            layers=layers,
            optional=True,
            why="its entries belong to the rows of every head, and move as one head's do",
        )
        for name in (q, k)
    )


def wide_norms(
    at: str = AT, q: str = "q_norm", k: str = "k_norm", *, layers: str = ""
) -> tuple[Rule, ...]:
    """Norms with an entry for each row of all heads."""
    return tuple(
        Rule(
            name=at + name + ENDS,
            rows=rows,
            layers=layers,
            optional=True,
            why="it has an entry for each row of the projection, and moves with it",
        )
        for name, rows in ((q, QUERY), (k, KEY))
    )


def fused(name: str, rows: str, why: str) -> tuple[Rule, ...]:
    """One projection of queries, keys and values."""
    return (Rule(name=name + ENDS, rows=rows, why=why),)


def latent(at: str = AT, q: str = "{q_proj,q_b_proj}", *, rows: str = "") -> tuple[Rule, ...]:
    """Latent attention: the rotary rows come last, and the rotated key is shared by all heads."""
    return (
        Rule(
            name=at + q + ENDS,
            rows=rows or "Repeat(H, Keep(N), Rope(r))",
            why="the last rows of every query head are rotated",
        ),
        Rule(
            name=at + "kv_a_proj_with_mqa" + ENDS,
            rows="Keep(R), Rope(r)",
            why="its last rows are the rotated key that all heads share",
        ),
    )


LATENT_SIZES = sizes(
    N="qk_nope_head_dim",
    r="qk_rope_head_dim",
    D="N + r",
    R="kv_lora_rank",
)
INDEX_SIZES = (*LATENT_SIZES, ("X", "index_n_heads"), ("I", "index_head_dim"))


def indexer(aside: RopeLayout | None, *, tail: bool = False, at: str = AT) -> tuple[Rule, ...]:
    """The small attention that chooses tokens: its own heads, often in its own layout."""
    head = "Keep(I - r), Rope(r)" if tail else "Rope(r), Keep(I - r)"
    other = f"; the indexer is {aside} whatever the main attention is" if aside else ""
    return tuple(
        Rule(
            name=at + "indexer." + name + ENDS,
            rows=rows,
            aside=aside,
            optional=True,
            why=f"{why}{other}",
        )
        for name, rows, why in (
            ("wq_b", f"Repeat(X, {head})", "the indexer's query heads are rotated"),
            ("wk", head, "the indexer's one key head is rotated"),
            ("k_norm", head, "its entries belong to the rows of the indexer's key"),
        )
    )


_VALUES = (
    "{v_proj,o_proj,out_proj,dense,dense_bias,wo,Wo,c_proj,attn_sub_norm,gate_proj,g_proj,"
    "to_v,to_out}"
)
_LATENTS = "{q_a_proj,q_a_layernorm,kv_a_layernorm,kv_b_proj}"
_PER_HEAD = (
    "{sinks,softmax_offset,learnable_sink_param,gate_bias,lambda_q1,lambda_q2,lambda_k1,lambda_k2,"
    "A,dt_proj.weight,linear_gate.weight,dense_bias,attn_temperature,attention_sink_bias}"
)
_OUTSIDE = (
    "{mlp,feed_forward,block_sparse_moe,moe,mlp_block,ffn,ffn_block,shared_mlp,mlps,"
    "hc_pre,attn_hc,ffn_hc,eh_proj,shared_head}"
)
_UNSCORED = "{conv,linear_attn,mamba}"
_NORMS = (
    "{input_layernorm,post_attention_layernorm,pre_feedforward_layernorm,"
    "post_feedforward_layernorm,attention_layernorm,feedforward_layernorm,attention_layer_norm,"
    "feedforward_layer_norm,operator_norm,ffn_norm,attention_norm,post_attn_norm,post_ffn_norm,"
    "post_operator_norm,post_mlp_layernorm,pre_mlp_layernorm,post_self_attn_layernorm,post_norm1,"
    "post_norm2,pre_ff_layernorm,attn_norm,mlp_norm,temporal_pre_norm,channel_pre_norm,enorm,hnorm,"
    "ln_1,ln_2,ln_attn,ln_mlp,norm_1,norm_2,norm1,norm2,input_layernorm.0,input_layernorm.1,"
    "post_attention_layernorm.0,post_attention_layernorm.1}"
)


def stays(layer: str = LAYER, at: str = "self_attn.") -> tuple[tuple[str, str], ...]:
    """What no rotation touches, in nearly every family."""
    return (
        (layer + at + _VALUES + ENDS, "values are not rotated, nor what reads them"),
        (layer + at + _LATENTS + ENDS, "makes or norms a latent, which is not rotated"),
        (layer + at + _PER_HEAD, "has an entry for each head, and no row leaves its head"),
        (layer + at + "{indexer,index}.weights_proj" + ENDS, "weighs heads, which stay"),
        (layer + at + "{bias,masked_bias,rotary_emb.inv_freq}", "a buffer, no weight"),
        (layer + _OUTSIDE + ".*", "outside the attention"),
        (layer + _UNSCORED + ".*", "mixes tokens without scores, and rotates nothing"),
        (layer + _NORMS + ENDS, "acts on the hidden state, before or after the heads"),
        (layer + "{layer_scalar,input_residual,post_attention_residual}", "outside the attention"),
        (layer + "embed_tokens.weight", "embeddings are not rotated"),
        (
            "{base}{embed_tokens,embed_in,wte,tok_embeddings,word_embeddings}.weight",
            "embeddings are not rotated",
        ),
        (
            "{base}{norm,final_layernorm,final_norm,embedding_norm,ln_f,final_layer_norm,norm_f}"
            + ENDS,
            "acts on the hidden state",
        ),
        ("{base}hc_pre.*", "outside the attention"),
        ("{base}rotary_emb.inv_freq", "a buffer, no weight"),
        ("{lm_head,embed_out,output}" + ENDS, "the output is not rotated"),
    )


def plain(
    name: str,
    title: str,
    rules: tuple[Rule, ...] = (),
    *,
    layout: RopeLayout = HALF_SPLIT,
    r: str = "",
    layers: str = "",
    also: tuple[tuple[str, str], ...] = (),
    bases: tuple[str, ...] = ("model.", ""),
    **changed: str,
) -> Family:
    """The most common form: projections of their own, and perhaps norms."""
    if r:
        changed["r"] = r
    return Family(
        name=name,
        title=title,
        layout=layout,
        rules=(*(rules or heads(layers=layers)),),
        sizes=sizes(**changed),
        stays=(*stays(), *also),
        bases=bases,
        needs=() if r else FULL_ONLY,
    )
