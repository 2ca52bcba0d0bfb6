"""RoPE settings in config.json, in both spellings.

transformers 4 writes `rope_theta` and `rope_scaling`, transformers 5 writes `rope_parameters` with
both inside. Files of either kind, and files with both, are in use; readers of one kind silently
take theta 10000 from a file of the other. So both are read, a conflict is an error that names both
fields, and both are written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never

from ropeconv.formats.fields import LARGEST, Fields
from ropeconv.words.errors import BrokenFile, Contradiction, NotSaid, Unsupported
from ropeconv.words.frequencies import (
    Default,
    Dynamic,
    Linear,
    Llama3,
    LongRope,
    Proportional,
    RopeSettings,
    Scaling,
    Yarn,
)


def read_rope(config: Fields) -> tuple[float | None, Scaling]:
    """Theta (None if the file does not say) and the scaling."""
    old = config.table("rope_scaling")
    new = config.table("rope_parameters")
    if new is not None and any(isinstance(value, dict) for value in new.values.values()):
        raise Unsupported(
            what=f"`{config.origin}` has RoPE settings for each kind of layer",
            why="such a model has several thetas; only single settings can be compared so far",
        )
    thetas = {
        origin: theta
        for origin, theta in (
            ("rope_theta", config.number("rope_theta")),
            ("rope_parameters.rope_theta", new.number("rope_theta") if new else None),
            ("rope_scaling.rope_theta", old.number("rope_theta") if old else None),
        )
        if theta is not None
    }
    if len(set(thetas.values())) > 1:
        said = " and ".join(f"`{origin}` = {theta:g}" for origin, theta in thetas.items())
        raise Contradiction(
            what=f"`{config.origin}` says {said}",
            why="transformers 4 reads one field and transformers 5 the other",
            fix="find out which theta the model was trained with and make the fields equal",
        )
    scalings = {
        table.origin: _scaling(table, config) for table in (old, new) if table and table.values
    }
    if len(set(scalings.values())) > 1:
        said = " and ".join(f"{scaling} in `{origin}`" for origin, scaling in scalings.items())
        raise Contradiction(
            what=f"two scalings: {said}",
            why="transformers 5 lets `rope_scaling` replace `rope_parameters` as a whole",
            fix="find out which one the model was trained with and make the fields equal",
        )
    theta = next(iter(thetas.values()), None)
    scaling = next(iter(scalings.values()), Default())
    if theta is None and scaling != Default():
        raise NotSaid(
            what=f"`{config.origin}` scales RoPE, and states no theta",
            why="transformers takes 10000 then, which no scaled model was trained with",
            fix="add `rope_theta`",
        )
    return theta, scaling


@dataclass(frozen=True, kw_only=True)
class StatedRope:
    """What a config states of the rotation in some of its layers.

    Attributes:
        layers: the kind of layers, in the config's word; empty for all of them.
        scaling: the type of scaling, in the config's word.
    """

    layers: str
    theta: float
    scaling: str


# keys of single families, and the layers that they are about
_OWN_KEYS = {
    "rotary_emb_base": "",
    "global_rope_theta": "full_attention",
    "rope_local_base_freq": "sliding_attention",
    "local_rope_theta": "sliding_attention",
    "swa_rope_theta": "sliding_attention",
}


def read_stated(config: Fields) -> tuple[StatedRope, ...]:
    """Every theta that a config states, in whatever family's spelling; to be shown, not computed.

    Keys that say nothing are no errors here: a family's table needs none of them.
    """
    new, old = (_table_or_none(config, key) for key in ("rope_parameters", "rope_scaling"))
    nested = {kind: table for kind in (new or {}) if isinstance(table := (new or {})[kind], dict)}
    if nested:
        found = [(kind, table.get("rope_theta"), table) for kind, table in nested.items()]
    else:
        main = config.values.get("rope_theta") or (new or {}).get("rope_theta")
        attention = _table_or_none(config, "attn_config") or {}
        main = main or attention.get("rope_theta")
        others = [(where, config.values.get(key)) for key, where in _OWN_KEYS.items()]
        others = [(where, theta) for where, theta in others if theta is not None]
        where = "full_attention" if any(where for where, _ in others) else ""
        found = [(where, main, new or old or {}), *((place, theta, {}) for place, theta in others)]
    return tuple(
        StatedRope(
            layers=where,
            theta=float(theta),
            scaling=str(table.get("rope_type") or table.get("type") or "default")[:40],
        )
        for where, theta, table in found
        if isinstance(theta, int | float) and theta is not True and 0 < theta <= LARGEST
    )


def _table_or_none(config: Fields, key: str) -> dict[str, Any] | None:
    value = config.values.get(key)
    return value if isinstance(value, dict) else None


def read_theta(fields: Fields) -> float | None:
    """The base of the frequencies, which are powers of it."""
    theta = fields.positive("rope_theta")
    if theta is not None and theta <= 1:
        raise BrokenFile(
            what=f"`{fields.origin}` has `rope_theta` = {theta:g}, expected more than 1",
            why="the pairs of a head would not turn ever more slowly",
        )
    return theta


def write_rope(rope: RopeSettings) -> dict[str, object]:
    """The fields of both spellings, with equal values."""
    scaling = _scaling_fields(rope.scaling)
    return {
        "rope_theta": rope.theta,
        "rope_scaling": None if isinstance(rope.scaling, Default) else scaling,
        "rope_parameters": {**scaling, "rope_theta": rope.theta},
    }


def _scaling(table: Fields, config: Fields) -> Scaling:
    kind = table.text("rope_type") or table.text("type") or "default"

    def original() -> int:
        found = table.positive("original_max_position_embeddings")
        found = found or config.positive("original_max_position_embeddings")
        length = int(found or config.required("max_position_embeddings"))
        if length > 1:
            return length
        raise BrokenFile(what=f"`{table.origin}` has an original length of {length} tokens")

    match kind:
        case "default" | "mrope":
            return Default()
        case "linear":
            return Linear(factor=table.required("factor"))
        case "dynamic":
            return Dynamic(factor=table.required("factor"), original_max_positions=original())
        case "llama3":
            low, high = table.required("low_freq_factor"), table.required("high_freq_factor")
            if low >= high:
                raise BrokenFile(
                    what=f"`{table.origin}` has `low_freq_factor` = {low:g}, expected less than"
                    f" `high_freq_factor` = {high:g}"
                )
            return Llama3(
                factor=table.required("factor"),
                low_freq_factor=low,
                high_freq_factor=high,
                original_max_positions=int(table.required("original_max_position_embeddings")),
            )
        case "yarn":
            beta_fast, beta_slow = table.positive("beta_fast"), table.positive("beta_slow")
            return Yarn(
                factor=table.required("factor"),
                original_max_positions=original(),
                beta_fast=32.0 if beta_fast is None else beta_fast,
                beta_slow=1.0 if beta_slow is None else beta_slow,
                mscale=table.positive("mscale") or 0.0,
                mscale_all_dim=table.positive("mscale_all_dim") or 0.0,
                attention_factor=table.positive("attention_factor"),
                truncate=table.flag("truncate") is not False,
            )
        case "longrope" | "su":
            trained = original()
            ratio = config.required("max_position_embeddings") / trained
            return LongRope(
                factor=table.positive("factor") or ratio,
                original_max_positions=trained,
                short_factor=table.numbers("short_factor"),
                long_factor=table.numbers("long_factor"),
                attention_factor=table.positive("attention_factor"),
            )
        case "proportional":
            return Proportional(
                rotary_share=table.positive("partial_rotary_factor") or 1.0,
                factor=table.positive("factor") or 1.0,
            )
        case other:
            raise Unsupported(
                what=f"`{table.origin}` has the RoPE type `{other[:40]}`, which ropeconv does not"
                " know",
                why="its frequencies cannot be compared",
            )


def _scaling_fields(scaling: Scaling) -> dict[str, object]:
    match scaling:
        case Default():
            return {"rope_type": "default"}
        case Linear(factor=factor):
            return {"rope_type": "linear", "factor": factor}
        case Llama3():
            return {
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_positions,
            }
        case Dynamic() | Yarn() | LongRope() | Proportional():
            raise Unsupported(
                what=f"a {type(scaling).__name__.lower()} scaling cannot be written to"
                " config.json yet",
                why="no source format of ropeconv's states one without a config.json of its own",
            )
        case _ as unreachable:
            assert_never(unreachable)
