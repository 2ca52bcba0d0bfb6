"""Towers for images and sound, whose queries and keys rotate by positions of their own.

A picture has two axes: some pairs of a head turn by the row of a patch, the others by its column.
Which pair turns by which is the same in either layout, so that rows are reordered over the whole
head as those of a text are. The exception is Gemma 4, which rotates each half of the head by
itself. Conversions of a text leave towers as they are: a tower's own code does not change with it.

Sizes are formulas over the tower's config, `vision_config` or `audio_config` in that of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping

from ropeconv.knowledge.families.shapes import (
    BLOCKS,
    IN_BLOCKS,
    fused,
    head_norms,
    heads,
)
from ropeconv.knowledge.family import Family, Rule
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, RopeLayout

_BLOCK = "{base}blocks.{layer}."
_LAYER = "{base}layers.{layer}."
_ENCODER = "{base}{vision_model.,}encoder.layers.{layer}."
_ENDS = ".{weight,bias}"
_HALVES = "Repeat(2, Rope(d))"


def _tower(
    name: str,
    title: str,
    rules: tuple[Rule, ...],
    stays: tuple[tuple[str, str], ...],
    sizes: Mapping[str, str],
    layout: RopeLayout = HALF_SPLIT,
) -> Family:
    plain = {"K": "H", "D": "C // H", "r": "D"}
    return Family(
        name=name,
        title=title,
        layout=layout,
        rules=rules,
        sizes=tuple({**plain, **sizes}.items()),
        stays=stays,
        bases=("",),
    )


def _outside(layer: str, attention: str, *further: str) -> tuple[tuple[str, str], ...]:
    """What no rotation touches in a tower."""
    inner = ("v_proj", "o_proj", "out_proj", "proj", "wv", "wo", "v")
    return (
        (layer + attention + f"{{{','.join(inner)}}}" + _ENDS, "values are not rotated"),
        (layer + "{mlp,feed_forward}.*", "outside the attention"),
        (
            layer + "{norm1,norm2,layer_norm1,layer_norm2,attention_norm,ffn_norm,input_layernorm,"
            "post_attention_layernorm,pre_feedforward_layernorm,post_feedforward_layernorm,"
            "self_attn_layer_norm,final_layer_norm}" + _ENDS,
            "acts on the hidden state, before or after the heads",
        ),
        *((name, "before or after the layers") for name in further),
    )


def _joined(name: str, title: str, sizes: Mapping[str, str], *, norms: bool = False) -> Family:
    """One projection of queries, keys and values in each block: Qwen VL and its relatives."""
    rules = fused(_BLOCK + "attn.qkv", BLOCKS, IN_BLOCKS)
    return _tower(
        name,
        title,
        (*rules, *(head_norms(_BLOCK + "attn.") if norms else ())),
        _outside(
            _BLOCK,
            "attn.",
            "{base}{patch_embed,pos_embed,embeddings,merger,merger_list,deepstack_merger_list}.*",
            "{base}{post_conv_layernorm,downsample,post_layernorm,ln}.{weight,bias}",
        ),
        sizes,
    )


def _depth(hidden: str, num_heads: int, layers: int, **more: str) -> dict[str, str]:
    return {"C": hidden, "H": f"num_heads or {num_heads}", "L": f"depth or {layers}", **more}


def _usual(hidden: int, num_heads: int, layers: int, **more: str) -> dict[str, str]:
    return {
        "C": f"hidden_size or {hidden}",
        "H": f"num_attention_heads or {num_heads}",
        "L": f"num_hidden_layers or {layers}",
        **more,
    }


_QWEN3 = _depth("hidden_size or 1152", 16, 27)

TOWERS = (
    _joined("qwen2_vl_vision", "Qwen 2 VL, vision", _depth("embed_dim or 1280", 16, 32)),
    _joined("qwen2_5_vl_vision", "Qwen 2.5 VL, vision", _depth("hidden_size or 3584", 16, 32)),
    _joined("qwen3_vl_vision", "Qwen 3 VL, vision", _QWEN3),
    _joined("qwen3_vl_moe_vision", "Qwen 3 VL MoE, vision", _QWEN3),
    _joined("qwen3_5_vision", "Qwen 3.5, vision", _QWEN3),
    _joined("qwen3_5_moe_vision", "Qwen 3.5 MoE, vision", _QWEN3),
    _joined("qwen4_exp_vision", "Qwen 4 Exp, vision", _QWEN3),
    _joined("cohere_compass_vision", "Cohere Compass, vision", _QWEN3),
    _joined("glm4v_vision", "GLM-4.1V, vision", _depth("hidden_size or 1536", 12, 24)),
    _joined("glm4v_moe_vision", "GLM-4.5V, vision", _depth("hidden_size or 1536", 12, 24)),
    _joined(
        "glm_ocr_vision", "GLM-OCR, vision", _depth("hidden_size or 1024", 16, 24), norms=True
    ),
    _joined(
        "ernie4_5_vl_moe_vision", "ERNIE 4.5 VL, vision", _depth("hidden_size or 1280", 16, 32)
    ),
    _joined(
        "exaone4_5_vision",
        "EXAONE 4.5, vision",
        _depth("hidden_size or 3584", 16, 32, K="num_key_value_heads or 8"),
    ),
    _joined(
        "qwen3_omni_moe_vision_encoder",
        "Qwen 3 Omni, vision",
        _QWEN3,
    ),
    _tower(
        "qwen2_5_omni_vision_encoder",
        "Qwen 2.5 Omni, vision",
        heads(_BLOCK + "attn.", "q", "k"),
        _outside(_BLOCK, "attn.", "{base}{patch_embed,merger}.*"),
        _depth("hidden_size or 3584", 16, 32),
    ),
    _tower(
        "pixtral",
        "Pixtral, vision",
        heads("{base}transformer.layers.{layer}.attention."),
        _outside(
            "{base}transformer.layers.{layer}.",
            "attention.",
            "{base}{patch_conv,ln_pre}.{weight,bias}",
        ),
        _usual(1024, 16, 24, D="head_dim or C // H"),
    ),
    _tower(
        "llama4_vision_model",
        "Llama 4, vision",
        heads("{base}model.layers.{layer}.self_attn."),
        _outside(
            "{base}model.layers.{layer}.",
            "self_attn.",
            "{base}{class_embedding,positional_embedding_vlm}",
            "{base}{patch_embedding,layernorm_pre,layernorm_post,vision_adapter}.*",
        ),
        _usual(768, 16, 34),
        INTERLEAVED,
    ),
    _tower(
        "gemma4_vision",
        "Gemma 4, vision",
        (
            Rule(
                name="{base}encoder.layers.{layer}.self_attn.q_proj.linear.weight",
                rows=f"Repeat(H, {_HALVES})",
                why="the first half of every head is rotated by x, the second by y",
            ),
            Rule(
                name="{base}encoder.layers.{layer}.self_attn.k_proj.linear.weight",
                rows=f"Repeat(K, {_HALVES})",
                why="the first half of every head is rotated by x, the second by y",
            ),
            Rule(
                name="{base}encoder.layers.{layer}.self_attn.{q_norm,k_norm}.weight",
                rows=_HALVES,
                why="its entries belong to the rows of every head, and move as one head's do",
            ),
        ),
        (
            ("{base}encoder.layers.{layer}.self_attn.{v_proj,o_proj}.linear.weight",
             "values are not rotated"),
            (("{base}encoder.layers.{layer}.self_attn.{q_proj,k_proj,v_proj,o_proj}."
             "{input_min,input_max,output_min,output_max}"), "one limit for all rows"),
            *_outside("{base}encoder.layers.{layer}.", "self_attn."),
            ("{base}patch_embedder.*", "before the layers"),
            ("{base}{std_bias,std_scale}", "after the layers"),
        ),
        _usual(768, 12, 16, K="num_key_value_heads or 12", D="head_dim or 64", d="D // 2"),
    ),
    _tower(
        "video_llama_3_vision",
        "VideoLLaMA 3, vision",
        heads(_ENCODER + "self_attn."),
        _outside(_ENCODER, "self_attn.", "{base}{embeddings,post_layernorm}.*"),
        _usual(768, 12, 12),
    ),
    _tower(
        "paddleocr_vl_vision",
        "PaddleOCR-VL, vision",
        heads(_ENCODER + "self_attn."),
        _outside(
            _ENCODER, "self_attn.", "{base}{vision_model.,}{embeddings,post_layernorm,head}.*"
        ),
        _usual(1152, 16, 27),
    ),
    _tower(
        "deepseek_ocr2_encoder",
        "DeepSeek OCR 2, vision",
        heads(_LAYER + "self_attn."),
        _outside(_LAYER, "self_attn.", "{base}norm.weight"),
        _usual(4096, 32, 32, K="num_key_value_heads or H"),
    ),
    _tower(
        "lfm3_vl_vision",
        "LFM 3 VL, vision",
        (
            *heads(_LAYER + "self_attn."),
            *head_norms(_LAYER + "self_attn.", "{q_norm,q_layernorm}", "{k_norm,k_layernorm}"),
        ),
        (
            *_outside(_LAYER, "self_attn.", "{base}{patch_embed,patchifier,embedding_norm}.weight"),
            (_LAYER + "{conv,operator_norm}.*", "outside the attention"),
        ),
        _usual(1024, 16, 14, K="num_key_value_heads or 8"),
    ),
    *(
        _tower(
            name,
            title,
            heads(_ENCODER + "self_attn."),
            _outside(
                _ENCODER,
                "self_attn.",
                "{base}{vision_model.,}{embeddings,pre_layrnorm,post_layernorm}.*",
                "{base}{vision_model.,}class_pos_emb",
            ),
            _usual(1664, 16, 48),
        )
        for name, title in (("mlcd_vision_model", "MLCD, vision"), ("mlcd", "MLCD"))
    ),
    _tower(
        "dinov3_vit",
        "DINOv3",
        heads("{base}{model.,}layer.{layer}.attention."),
        (
            *_outside("{base}{model.,}layer.{layer}.", "attention."),
            ("{base}{model.,}layer.{layer}.{layer_scale1,layer_scale2}.lambda1",
             "acts on the hidden state"),
            ("{base}embeddings.*", "before the layers"),
            ("{base}norm.{weight,bias}", "after the layers"),
        ),
        _usual(384, 6, 12),
    ),
    _tower(
        "glmasr_encoder",
        "GLM-ASR, audio",
        heads(_LAYER + "self_attn."),
        _outside(_LAYER, "self_attn.", "{base}{conv1,conv2,norm}.{weight,bias}"),
        _usual(
            1280,
            20,
            32,
            K="num_key_value_heads or H",
            D="head_dim or C // H",
            r="int(D * (rope_parameters.partial_rotary_factor or partial_rotary_factor or 0.5))",
        ),
    ),
    _tower(
        "voxtral_realtime_encoder",
        "Voxtral Realtime, audio",
        heads(_LAYER + "self_attn."),
        _outside(_LAYER, "self_attn.", "{base}embedder.*", "{base}norm.weight"),
        _usual(1280, 32, 32, D="head_dim or 64"),
    ),
)  # fmt: skip
# rows as their makers store them: transformers has other names for them, and reorders them when it
# loads them
NATIVE = (
    _tower(
        "pixtral_native",
        "Pixtral, vision, in Mistral's own files",
        heads("{base}transformer.layers.{layer}.attention.", "wq", "wk"),
        _outside(
            "{base}transformer.layers.{layer}.",
            "attention.",
            "{base}{patch_conv,ln_pre}.{weight,bias}",
        ),
        _usual(1024, 16, 24, D="head_dim or C // H"),
        INTERLEAVED,
    ),
    _tower(
        "moonvit",
        "MoonViT, the vision of Kimi",
        fused("{base}encoder.blocks.{layer}.wqkv", BLOCKS, IN_BLOCKS),
        (
            ("{base}encoder.blocks.{layer}.wo.{weight,bias}", "values are not rotated"),
            ("{base}encoder.blocks.{layer}.{norm0,norm1}.{weight,bias}",
             "acts on the hidden state, before or after the heads"),
            ("{base}encoder.blocks.{layer}.mlp.*", "outside the attention"),
            ("{base}{encoder.,}{patch_embed,final_layernorm}.*", "before or after the layers"),
        ),
        {
            "C": "hidden_size or vt_hidden_size or 1152",
            "H": "num_attention_heads or vt_num_attention_heads or 16",
            "L": "num_hidden_layers or vt_num_hidden_layers or 27",
        },
        INTERLEAVED,
    ),
)  # fmt: skip
BY_TYPE = {family.name: family for family in (*TOWERS, *NATIVE)}
