"""The config check: two configs mean one model if their numbers do, whatever the fields."""

from __future__ import annotations

from dataclasses import fields

from ropeconv.proof.verdict import ConfigCheck, Finding, Outcome
from ropeconv.words.frequencies import frequencies
from ropeconv.words.model import Model

MAX_SHOWN = 3


def check_configs(source: Model, target: Model, *, stated_dtype: str = "") -> ConfigCheck:
    """Effective frequencies in float64, geometry, norms and window of both sides.

    Positions, token ids and ties do not change what the weights compute and are not compared.

    Args:
        source: what the source's weights and config say.
        target: the same of the target.
        stated_dtype: what the target's config says of its weights; readers cast to it.
    """
    findings: list[Finding] = []
    for field in fields(source.geometry):
        ours, theirs = (getattr(model.geometry, field.name) for model in (source, target))
        if ours != theirs:
            findings.append(Finding(tensor=field.name, text=f"{theirs}, source says {ours}"))
    for name in ("norm_eps", "sliding_window"):
        ours, theirs = getattr(source, name), getattr(target, name)
        if ours != theirs:
            findings.append(Finding(tensor=name, text=f"{theirs}, source says {ours}"))
    if stated_dtype not in ("", target.dtype.torch_name):
        text = f"{stated_dtype}, the weights are {target.dtype.torch_name}; readers would cast them"
        findings.append(Finding(tensor="torch_dtype", text=text))
    ours, theirs = (frequencies(model.rope, model.geometry.head_dim) for model in (source, target))
    if ours != theirs:
        differ = sum(a != b for a, b in zip(ours.inv_freq, theirs.inv_freq, strict=False))
        if source.rope.theta != target.rope.theta:
            text = f"theta {target.rope.theta:g}, source says {source.rope.theta:g}"
        else:
            text = f"scaling {target.rope.scaling}, source says {source.rope.scaling}"
        text += f"; {differ} of {len(ours.inv_freq)} frequencies differ"
        findings.append(Finding(tensor="inv_freq", text=text))
    return ConfigCheck(
        outcome=Outcome.DIFFERENT if findings else Outcome.SAME,
        num_frequencies=len(ours.inv_freq),
        findings=tuple(findings),
    )
