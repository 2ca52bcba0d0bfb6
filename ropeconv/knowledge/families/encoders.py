"""Encoders: models that read a text, or a protein, at once, for what it means.

Files of three of them have one projection for queries, keys and values, which transformers takes
apart while it loads; both forms are known here.

Source:
    The modeling files of transformers 5.23; every entry is measured in the tests.
"""

from __future__ import annotations

from dataclasses import replace

from ropeconv.knowledge.families.shapes import (
    BLOCKS,
    ENDS,
    FULL_ONLY,
    IN_BLOCKS,
    LAYER,
    fused,
    head_norms,
    heads,
    plain,
    sizes,
    stays,
    wide_norms,
)
from ropeconv.knowledge.family import Family
from ropeconv.words.layout import HALF_SPLIT

_OUTSIDE = "outside the attention"
_OUTPUTS = (
    ("{lm_head,cls,classifier,score,head,qa_outputs,distogram_head,ptm_head,lddt_head}.*",
     "the output is not rotated"),
    ("{base}{pooler,contact_head}.*", "the output is not rotated"),
)  # fmt: skip
_EMBEDDINGS = ("{base}{embeddings,emb_ln}.*", "embeddings are not rotated")

_ESM = "{base}encoder.layer.{layer}."
_ESM_AT = _ESM + "attention."
_OWN = "(per_layer_config or {})[layer]"


def _joined(name: str, title: str, at: str, **changed: str) -> Family:
    """Files with one projection, which transformers takes apart.

    Args:
        name: transformers' model type.
        title: for people.
        at: of the attention, in files.
        changed: formulas of sizes.
    """
    layer = at.partition("{layer}.")[0] + "{layer}."
    rules = (*fused(at, BLOCKS, IN_BLOCKS), *heads())
    return Family(
        name=name,
        title=title,
        layout=HALF_SPLIT,
        bases=("model.", f"{name}.", "bert.", "roberta.", "new.", ""),
        rules=tuple(replace(rule, optional=True) for rule in rules),
        sizes=sizes(K="H", **changed),
        stays=(
            *stays(),
            (at.rpartition(".")[0] + ".{out_proj,o_proj}" + ENDS, "reads values"),
            (layer + "mlp.*", _OUTSIDE),
            (layer + "{norm1,norm2,attn_ln,mlp_ln}" + ENDS, "acts on the hidden state"),
            _EMBEDDINGS,
            *_OUTPUTS,
        ),
        needs=FULL_ONLY,
    )


ENCODERS = (
    Family(
        name="esm",
        title="ESM 2",
        layout=HALF_SPLIT,
        bases=("esm.", ""),
        rules=heads(_ESM_AT + "self.", "query", "key"),
        sizes=sizes(K="H", D="C // H"),
        stays=(
            (
                _ESM_AT + "{self.value,output.dense}" + ENDS,
                "values are not rotated, nor what reads them",
            ),
            (
                "{base}encoder.layer.*.attention.self.rotary_embeddings.inv_freq",
                "a buffer, no weight",
            ),
            ("{base}rotary_embeddings.inv_freq", "a buffer, no weight"),
            (_ESM + "{attention.LayerNorm,LayerNorm,intermediate,output}.*", _OUTSIDE),
            ("{base}encoder.emb_layer_norm_after.*", "acts on the hidden state"),
            _EMBEDDINGS,
            ("{trunk,esm_s_mlp,embedding}.*", "folds, without rotation"),
            ("{esm_s_combine,af2_to_esm}", "folds, without rotation"),
            *_OUTPUTS,
        ),
        needs=(("position_embedding_type == 'rotary'", "this ESM has learned positions"),),
    ),
    plain(
        "esmc",
        "ESM Cambrian",
        (*heads(), *wide_norms()),
        bases=("esmc.", ""),
        also=_OUTPUTS,
    ),
    replace(
        _joined(
            "nomic_bert",
            "Nomic BERT",
            "{base}encoder.layers.{layer}.attn.Wqkv",
            C="hidden_size or n_embd",
            H="num_attention_heads or n_head",
            L="num_hidden_layers or n_layer",
        ),
        needs=(
            ("not rotary_emb_interleaved", "the config asks for interleaved rows"),
            (
                "rotary_emb_fraction in (None, 1)",
                "the config rotates a part of each head, which this family's code does not do",
            ),
        ),
    ),
    _joined("gte", "GTE", "{base}encoder.layer.{layer}.attention.qkv_proj"),
    _joined("jina_embeddings_v3", "Jina Embeddings 3", "{base}encoder.layers.{layer}.mixer.Wqkv"),
    plain("ultrabert", "UltraBERT", bases=("model.", "ultrabert.", ""), also=_OUTPUTS),
    replace(
        plain(
            "embedding_gemma2_text",
            "EmbeddingGemma 2, text",
            (*heads(), *head_norms()),
            also=(
                (LAYER + "ple_block.*", _OUTSIDE),
                ("{base}ple.*", _OUTSIDE),
                ("{base}embedding_projection.weight", "the output is not rotated"),
            ),
            D="head_dim or 256",
        ),
        layer_sizes=(
            ("D", f"{_OWN}.head_dim or head_dim or 256"),
            ("K", f"{_OWN}.num_key_value_heads or num_key_value_heads"),
            ("r", "D"),
        ),
        needs=(
            ("per_layer_config", "layers have sizes of their own, which its config must state"),
        ),
    ),
)
