"""Llama 1 to 3.3 and CodeLlama, and the families with exactly its tensors.

Source:
    https://github.com/meta-llama/llama-models/blob/a9c89c4/models/llama3/model.py and
    https://github.com/huggingface/transformers/blob/v4.51.0/src/transformers/models/llama/modeling_llama.py
"""

from __future__ import annotations

from ropeconv.knowledge.family import Family, Rule, Split
from ropeconv.words.layout import HALF_SPLIT

_ATTENTION = "model.layers.{layer}.self_attn."
_MLP = "model.layers.{layer}.mlp."

RULES = (
    Rule(
        name="model.embed_tokens.weight",
        meta="tok_embeddings.weight",
        rows="Keep(V)",
        columns="C",
        split=Split.EMBEDDING,
        why="embeddings are not rotated",
    ),
    Rule(
        name="model.layers.{layer}.input_layernorm.weight",
        meta="layers.{layer}.attention_norm.weight",
        rows="Keep(C)",
        columns="",
        split=Split.REPLICATED,
        why="acts on the hidden state, before the heads",
    ),
    Rule(
        name=_ATTENTION + "q_proj.weight",
        meta="layers.{layer}.attention.wq.weight",
        rows="Repeat(H, Rope(D))",
        columns="C",
        split=Split.ROWS,
        why="every query head is rotated over its whole length",
    ),
    Rule(
        name=_ATTENTION + "k_proj.weight",
        meta="layers.{layer}.attention.wk.weight",
        rows="Repeat(K, Rope(D))",
        columns="C",
        split=Split.KV_ROWS,
        why="every key head is rotated over its whole length",
    ),
    Rule(
        name=_ATTENTION + "v_proj.weight",
        meta="layers.{layer}.attention.wv.weight",
        rows="Repeat(K, Keep(D))",
        columns="C",
        split=Split.KV_ROWS,
        why="values are not rotated",
    ),
    Rule(
        name=_ATTENTION + "o_proj.weight",
        meta="layers.{layer}.attention.wo.weight",
        rows="Keep(C)",
        columns="H * D",
        split=Split.COLUMNS,
        why="reads values, which are not rotated",
    ),
    Rule(
        name="model.layers.{layer}.post_attention_layernorm.weight",
        meta="layers.{layer}.ffn_norm.weight",
        rows="Keep(C)",
        columns="",
        split=Split.REPLICATED,
        why="acts on the hidden state",
    ),
    Rule(
        name=_MLP + "gate_proj.weight",
        meta="layers.{layer}.feed_forward.w1.weight",
        rows="Keep(F)",
        columns="C",
        split=Split.ROWS,
        why="outside the attention",
    ),
    Rule(
        name=_MLP + "up_proj.weight",
        meta="layers.{layer}.feed_forward.w3.weight",
        rows="Keep(F)",
        columns="C",
        split=Split.ROWS,
        why="outside the attention",
    ),
    Rule(
        name=_MLP + "down_proj.weight",
        meta="layers.{layer}.feed_forward.w2.weight",
        rows="Keep(C)",
        columns="F",
        split=Split.COLUMNS,
        why="outside the attention",
    ),
    Rule(
        name="model.norm.weight",
        meta="norm.weight",
        rows="Keep(C)",
        columns="",
        split=Split.REPLICATED,
        why="acts on the hidden state",
    ),
    Rule(
        name="lm_head.weight",
        meta="output.weight",
        rows="Keep(V)",
        columns="C",
        split=Split.ROWS,
        why="the output is not rotated; absent where it shares the embedding's tensor",
        optional=True,
    ),
)

DROPPED = (
    ("rope.freqs", "follows from theta"),
    ("layers.{layer}.attention.inner_attention.rope.freqs", "follows from theta"),
    (_ATTENTION + "rotary_emb.inv_freq", "follows from theta"),
)

LLAMA = Family(name="llama", title="Llama", layout=HALF_SPLIT, rules=RULES, dropped=DROPPED)
MISTRAL = Family(name="mistral", title="Mistral", layout=HALF_SPLIT, rules=RULES, dropped=DROPPED)
