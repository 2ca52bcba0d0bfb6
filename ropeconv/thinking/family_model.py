"""What a plan must know of a model whose table says only which rows move."""

from __future__ import annotations

import re
from dataclasses import replace

from ropeconv.formats.checkpoint import parse_object
from ropeconv.formats.fields import Fields
from ropeconv.formats.rope_fields import StatedRope, read_rope, read_stated
from ropeconv.knowledge.family import Family, Peer
from ropeconv.knowledge.programs import programs
from ropeconv.thinking.inventory import Inventory
from ropeconv.thinking.own_code import own_class
from ropeconv.thinking.plan import Plan, SmallFile
from ropeconv.words.errors import Refused, SourceError
from ropeconv.words.frequencies import Default, RopeSettings
from ropeconv.words.layout import INTERLEAVED, RopeLayout
from ropeconv.words.model import Format, Model, Note, TokenIds
from ropeconv.words.parts import Part


def state_family(inventory: Inventory) -> tuple[Model, tuple[Note, ...]]:
    """The model as far as its config states it; frequencies play no part in moving rows."""
    claims = inventory.checkpoint.claims
    try:
        theta, scaling = read_rope(_language(inventory))
    except (Refused, SourceError):
        theta, scaling = None, Default()
    moved = next(tensor for tensor in inventory.tensors if tensor.rule.rotates)
    model = Model(
        family=claims.family,
        geometry=inventory.geometry,
        rope=RopeSettings(theta=theta or 1e4, scaling=scaling),
        norm_eps=0.0,
        max_positions=0,
        sliding_window=None,
        tied=bool(claims.tied),
        dtype=moved.dtype,
        tokens=TokenIds(),
    )
    return model, ()


def stated_rope(inventory: Inventory) -> tuple[StatedRope, ...]:
    """What the config states of the language model's rotation, of each kind of layer."""
    if inventory.checkpoint.format is not Format.HF:
        return ()
    return read_stated(_language(inventory))


def _language(inventory: Inventory) -> Fields:
    """The fields of the language model."""
    origin, inner = inventory.checkpoint.claims.origin, inventory.family.inner
    config = Fields(origin=origin, values=parse_object(inventory.checkpoint.config, origin))
    for key in inner.split(".") if inner else ():
        config = config.table(key) or config
    return config


def for_runtime(plan: Plan, family: Family, layout: RopeLayout) -> Plan:
    """The plan with the config's switch set, and notes on who can run these rows."""
    tables = [tower.family for tower in family.towers if tower.part in plan.parts and tower.family]
    texts = [runtimes(one, layout) for one in tables]
    files = plan.small_files
    if Part.TEXT in plan.parts:
        if family.switch:
            files = _switched_files(files, family, layout)
        own = _said_of_switch(plan, family, layout) if family.switch else runtimes(family, layout)
        texts = [own, *texts, *programs(family, layout)]
    notes = (Note(kind="runtime", text=text) for text in texts)
    return replace(plan, small_files=files, notes=(*plan.notes, *notes))


def _switched_files(
    files: tuple[SmallFile, ...], family: Family, layout: RopeLayout
) -> tuple[SmallFile, ...]:
    value = "true" if layout == INTERLEAVED else "false"
    return tuple(
        SmallFile(name=file.name, text=switched(file.text, family.switch, value, family.inner))
        if file.name == "config.json"
        else file
        for file in files
    )


def _said_of_switch(plan: Plan, family: Family, layout: RopeLayout) -> str:
    value = "true" if layout == INTERLEAVED else "false"
    text = f"`{family.switch}` is {value} in config.json: transformers rotates by it"
    if layout == family.layout:
        return text
    text += f"; {deaf(family)}"
    if own := own_class(plan.source, family):
        text += (
            f"; `{own}`, which this checkpoint brings, may be such code: load it without"
            " trust_remote_code, or take `auto_map` out of config.json"
        )
    return text


def deaf(family: Family) -> str:
    """What a family's switch does not reach: vLLM's and mlx-lm's DeepSeek V3, for example."""
    return (
        f"runtimes that do not read it, and code that comes with the checkpoint, rotate"
        f" {family.layout} pairs whatever it says, and these rows wrongly"
    )


def runtimes(family: Family, layout: RopeLayout) -> str:
    """Whether the code that a family is measured on, or comes with, rotates it in that layout."""
    in_transformers = family.measured_by is Peer.TRANSFORMERS
    code = "transformers" if in_transformers else "the code that comes with it"
    if layout == family.layout:
        return f"{code} rotates {layout} pairs of {family.title}"
    return (
        f"{code} cannot run these rows: it rotates {family.layout} pairs of {family.title} and has"
        f" no switch; they are for code that rotates {layout} pairs"
    )


# keys that say nothing of what the weights compute; which code runs them is said of each side
_NO_MATTER = {
    "transformers_version", "torch_dtype", "dtype", "_name_or_path", "use_cache", "auto_map",
}  # fmt: skip


def differing_keys(one: str, other: str, switch: str) -> tuple[tuple[str, str, str], ...]:
    """Keys in which two configs of one family differ, with both values; the switch aside."""
    ours, theirs = (parse_object(text, "config.json") for text in (one, other))
    ignored = {*_NO_MATTER, switch}
    return tuple(
        (key, str(ours.get(key))[:60], str(theirs.get(key))[:60])
        for key in sorted({*ours, *theirs} - ignored)
        if _without(ours.get(key), ignored) != _without(theirs.get(key), ignored)
    )


def _without(value: object, ignored: set[str]) -> object:
    """A value without keys that do not matter, at any depth."""
    if not isinstance(value, dict):
        return value
    return {key: _without(inner, ignored) for key, inner in value.items() if key not in ignored}


def switched(config: str, key: str, value: str, inner: str = "") -> str:
    """The config's text with one key set; everything else stays as it was written.

    Args:
        config: the text.
        key: to set, wherever it stands already.
        value: in JSON.
        inner: the key of the object that it belongs into; empty for the outermost.

    >>> switched('{"a": 1, "rope_interleave": true}', "rope_interleave", "false")
    '{"a": 1, "rope_interleave": false}'
    """
    pattern = re.compile(rf'("{re.escape(key)}"\s*:\s*)(?:true|false|null)')
    if pattern.search(config):
        return pattern.sub(rf"\g<1>{value}", config)
    if opening := inner and re.search(
        rf'"{re.escape(inner.rpartition(".")[2])}"\s*:\s*\{{', config
    ):
        end = opening.end()
        return f'{config[:end]}\n    "{key}": {value},{config[end:]}'
    return re.sub(r"\s*\}\s*$", f',\n  "{key}": {value}\n}}\n', config)
