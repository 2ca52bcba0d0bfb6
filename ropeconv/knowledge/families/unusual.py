"""Families whose rotary rows lie in tensors that no other family has.

Source:
    The modeling files of transformers 5.23; every entry is measured in the tests.
"""

from __future__ import annotations

from dataclasses import replace

from ropeconv.knowledge.families.shapes import (
    AT,
    BLOCKS,
    ENDS,
    FULL_ONLY,
    IN_BLOCKS,
    INDEX_SIZES,
    KEY,
    LAYER,
    fused,
    heads,
    indexer,
    latent,
    part,
    sizes,
    stack,
    stack_sizes,
    stays,
)
from ropeconv.knowledge.family import Family, Rule
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED

_OUTSIDE = "outside the attention"
_TOWER = "a tower for images or sound, which keeps its own layout"
_ROTATES = "no_rope_layers[layer] if no_rope_layers else (layer + 1) % 4 != 0"

# BLT: four stacks, each with its own config and geometry
_BLT_STACKS = {
    "local_encoder": "encoder",
    "local_decoder": "decoder",
    "global_transformer": "global",
    "patcher": "patcher",
}
_BLT_ENDS = (
    "{patch_embedding_projection,token_embedding_projection,embed_tokens,norm,lm_head}.weight"
)


_BLT_SIZES = sizes(
    C="global_config.hidden_size",
    H="Hglobal",
    K="Kglobal",
    L="Lglobal",
    **{
        letter: formula
        for word in _BLT_STACKS.values()
        for letter, formula in stack_sizes(word, f"{word}_config").items()
    },
)

# JetMoE: each expert of the attention has query rows for every key head
_JET = LAYER + "{self_attention,self_attn}."

# Mistral Large 4: files have Mistral's own names
_LARGE = LAYER + "{self_attn,attention}."
_EACH_HEAD = "has an entry for each head, and no row leaves its head"

_ROFORMER = "{base}encoder.layer.{layer}.attention."

# Zamba 2: one block of attention in many places, each with adapters of its own
_ZAMBA = LAYER + "shared_transformer.self_attn."

_MOSHI = (
    *stays(),
    (AT + "{v_proj,o_proj}.linear" + ENDS, "values are not rotated, nor what reads them"),
    ("{depth_decoder,model.depth_decoder}.*", "its positions are places in a stack of codes"),
    ("{audio_encoder,codec_model,model.codec_model}.*", _TOWER),
    ("{base}embed_tokens.embed_tokens.weight", "embeddings are not rotated"),
    ("{base}embed_tokens.{head}.weight", "embeddings are not rotated"),
    ("{embed_tokens.{head},decoder.lm_head}.weight", _OUTSIDE),
)

UNUSUAL = (
    Family(
        name="blt",
        title="Byte Latent Transformer",
        layout=INTERLEAVED,
        rules=tuple(
            rule
            for module, word in _BLT_STACKS.items()
            for rule in stack(f"{{base}}{module}.layers.{{layer}}.self_attn.", word)
        ),
        sizes=_BLT_SIZES,
        stays=(
            *stays("{base}{local_encoder,local_decoder,global_transformer,patcher}.layers.{layer}."),
            ("{base}{local_encoder,local_decoder}.cross_attn_layers.*",
             "cross-attention has no positions"),
            ("{base}{local_encoder,local_decoder,global_transformer,patcher}." + _BLT_ENDS,
             _OUTSIDE),
            ("{base}encoder_hash_tok_embedding.weight", "embeddings are not rotated"),
        ),
    ),
    Family(
        name="jetmoe",
        title="JetMoE",
        layout=HALF_SPLIT,
        rules=(
            Rule(
                name=_JET + "experts.input_linear.weight",
                rows=f"Repeat(E, {KEY})",
                why="every expert makes its own queries, one for each key head",
            ),
            *fused(_JET + "kv_proj", f"{KEY}, Keep(K * D)", "all keys, then all values"),
        ),
        sizes=sizes(D="kv_channels or 128", E="num_local_experts or num_experts or 8"),
        stays=(
            *stays(at="{self_attention,self_attn}."),
            (_JET + "experts.{bias,output_linear.weight,router.layer.weight}",
             "values are not rotated, nor what reads them"),
        ),
        needs=FULL_ONLY,
    ),
    Family(
        name="kyutai_speech_to_text",
        title="Kyutai speech to text",
        layout=HALF_SPLIT,
        rules=heads(q="q_proj.linear", k="k_proj.linear"),
        sizes=sizes(),
        stays=_MOSHI,
        needs=FULL_ONLY,
    ),
    Family(
        name="mistral_large4_text",
        title="Mistral Large 4, text",
        layout=INTERLEAVED,
        rules=(
            *(replace(rule, layers=_ROTATES) for rule in latent(_LARGE, q="{q_proj,wq}")[:1]),
            Rule(
                name=_LARGE + "{kv_a_proj_with_mqa,wkv_a_with_mqa}" + ENDS,
                rows="Keep(R), Rope(r)",
                layers=_ROTATES,
                optional=True,
                why="its last rows are the rotated key; layers that use another's have none",
            ),
            *(replace(rule, layers=_ROTATES) for rule in indexer(None, at=_LARGE)),
        ),
        sizes=INDEX_SIZES,
        stays=(
            *stays(at="{self_attn,attention}."),
            (_LARGE + "{wkv_b,kv_a_norm}.weight", "makes or norms a latent, which is not rotated"),
            (_LARGE + "{softmax_scaling,ssmax_scaling}.{scale,bias,s,b}", _EACH_HEAD),
            (_LARGE + "indexer.{softmax_scaling,ssmax_scaling}.{scale,bias,s,b}", _EACH_HEAD),
            (_LARGE + "indexer.q_input_norm" + ENDS, "acts on the hidden state"),
            (LAYER + "{gate,experts,shared_experts}.*", _OUTSIDE),
            ("{base}{rotary_emb,lerope}.alpha", "a factor for each pair; pairs keep their order"),
        ),
    ),
    Family(
        name="moshi",
        title="Moshi",
        layout=HALF_SPLIT,
        bases=("decoder.model.", "model.decoder.model.", "model.", ""),
        rules=heads(q="q_proj.linear", k="k_proj.linear"),
        sizes=sizes(),
        stays=_MOSHI,
        needs=FULL_ONLY,
    ),
    Family(
        name="phi4_multimodal",
        title="Phi 4 multimodal",
        layout=HALF_SPLIT,
        rules=fused(AT + "qkv_proj", BLOCKS, IN_BLOCKS),
        sizes=sizes(r=part(1.0)),
        stays=(
            *stays(),
            ("{base}embed_tokens_extend.*", _TOWER),
        ),
    ),
    Family(
        name="roformer",
        title="RoFormer",
        layout=INTERLEAVED,
        bases=("roformer.", ""),
        rules=(
            *heads(_ROFORMER + "self.", "query", "key"),
            Rule(
                name=_ROFORMER + "self.value" + ENDS,
                rows=KEY,
                layers="rotary_value",
                why="this RoFormer rotates values, too",
            ),
            Rule(
                name=_ROFORMER + "output.dense.weight",
                rows="Repeat(C, Repeat(H, Rope(D)))",
                layers="rotary_value",
                inputs=True,
                why="its columns read rotated values",
            ),
        ),
        sizes=sizes(K="H", D="C // H"),
        stays=(
            (_ROFORMER + "{self.value,output.dense,output.LayerNorm}" + ENDS,
             "values are not rotated, nor what reads them"),
            ("{base}encoder.layer.{layer}.{intermediate,output}.*", _OUTSIDE),
            ("{base}encoder.embed_positions.weight", "a table of sines, no weight"),
            ("{base}{embeddings,embeddings_project,pooler}.*", _OUTSIDE),
            ("{cls,classifier,sequence_summary,qa_outputs}.*", "the output is not rotated"),
        ),
    ),
    Family(
        name="zamba2",
        title="Zamba 2",
        layout=HALF_SPLIT,
        rules=(
            *heads(_ZAMBA),
            *(
                replace(rule, optional=True, why="it adds to the rows of the projection")
                for rule in heads(
                    _ZAMBA, "linear_q_adapter_list.{head}.1", "linear_k_adapter_list.{head}.1"
                )
            ),
        ),
        sizes=sizes(D="2 * C // H"),
        stays=(
            *stays(),
            (_ZAMBA + "{linear_q_adapter_list,linear_k_adapter_list}.{head}.0.weight",
             "reads the hidden state into a low rank"),
            (_ZAMBA + "{v_proj,o_proj}.weight", "values are not rotated, nor what reads them"),
            (_ZAMBA + "linear_v_adapter_list.*", "values are not rotated"),
            (LAYER + "{shared_transformer.feed_forward,mamba_decoder,linear}.*", _OUTSIDE),
            (LAYER + "shared_transformer.{input_layernorm,pre_ff_layernorm}.weight", _OUTSIDE),
        ),
        needs=(("use_mem_rope", "this Zamba 2 has no positions in its attention"),),
    ),
)  # fmt: skip
