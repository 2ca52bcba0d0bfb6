"""A family that no table knows, described by the user in TOML with the same three words.

    name = "my_model"                  # the model type in config.json
    layout = "half-split"              # or "interleaved": of the rows as they are stored

    [sizes]                            # letters, each a formula over config.json
    H = "num_attention_heads"
    D = "head_dim"

    [[rows]]                           # tensors with rotary rows
    name = "model.layers.{layer}.self_attn.q_proj.{weight,bias}"
    rows = "Repeat(H, Rope(D))"
    why = "every query head is rotated"

    [[stays]]                          # all other tensors
    name = "model.layers.{layer}.mlp.*"
    why = "not rotated"

Sizes that are left out are the usual ones of `ropeconv families NAME`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from typing import Any

from ropeconv.knowledge.families.shapes import SIZES
from ropeconv.knowledge.family import Family, Peer, Rule
from ropeconv.knowledge.formula import complaint
from ropeconv.words.errors import UsageError
from ropeconv.words.layout import LAYOUTS

HOW = "write it as docs/describing-a-family.md shows"
_KEYS = {"name", "title", "layout", "switch", "sizes", "layer_sizes", "rows", "stays"}
_ROW_KEYS = {"name", "rows", "why", "layers", "optional"}


def read_description(text: str, origin: str) -> Family:
    """The family that a TOML text describes; its rows are checked against shapes when it is used.

    Raises:
        UsageError: it is not TOML, or says something that has no meaning here.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(what=f"`{origin}` is no TOML", why=str(error).lower(), fix=HOW) from error
    _check_keys(found, _KEYS, origin, "the description")
    name, layout = (_text(found, key, origin) for key in ("name", "layout"))
    if layout not in LAYOUTS:
        raise UsageError(
            what=f"`{origin}` says the layout `{layout[:40]}`, expected {' or '.join(LAYOUTS)}",
            fix=HOW,
        )
    sizes, layer_sizes = (_formulas(found, key, origin) for key in ("sizes", "layer_sizes"))
    rules = tuple(_rule(entry, origin) for entry in _tables(found, "rows", origin))
    if not rules:
        raise UsageError(
            what=f"`{origin}` describes no rows",
            fix="add [[rows]] for the query and key projections",
        )
    stays = []
    for entry in _tables(found, "stays", origin):
        _check_keys(entry, {"name", "why"}, origin, "an entry of `stays`")
        stays.append((_text(entry, "name", origin), _text(entry, "why", origin)))
    switch = found.get("switch", "")
    return Family(
        name=name,
        title=str(found.get("title", name)),
        layout=LAYOUTS[layout],
        rules=rules,
        sizes=tuple({**SIZES, **sizes}.items()),
        layer_sizes=tuple(layer_sizes.items()),
        stays=tuple(stays),
        switch=switch if isinstance(switch, str) else "",
        measured_by=Peer.NONE,
    )


def write_description(family: Family) -> str:
    """The TOML text that `read_description` reads as this described family."""
    head = (("name", family.name), ("title", family.title), ("layout", family.layout.name))
    lines = [*_pairs(head), *_pairs([("switch", family.switch)])]
    for key, formulas in (("sizes", family.sizes), ("layer_sizes", family.layer_sizes)):
        lines += [f"[{key}]", *_pairs(formulas)]
    for rule in family.rules:
        words = [("name", rule.name), ("rows", rule.rows), ("why", rule.why)]
        lines += ["[[rows]]", *_pairs([*words, ("layers", rule.layers)])]
        lines += ["optional = true"] if rule.optional else []
    for name, why in family.stays:
        lines += ["[[stays]]", *_pairs([("name", name), ("why", why)])]
    return "\n".join(lines) + "\n"


def _pairs(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Lines of TOML; its strings are those of JSON, but for one control character."""
    return [f"{_quoted(key)} = {_quoted(value)}" for key, value in pairs]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _formulas(found: dict[str, Any], key: str, origin: str) -> dict[str, str]:
    sizes = found.get(key, {})
    if isinstance(sizes, dict) and all(isinstance(value, str) for value in sizes.values()):
        return {letter: _formula(text, origin) for letter, text in sizes.items()}
    raise UsageError(what=f"`{origin}` has `{key}` that are no texts, expected formulas", fix=HOW)


def _formula(text: str, origin: str) -> str:
    if why := complaint(text):
        raise UsageError(
            what=f"`{origin}` has `{text[:60]}`, which is no formula", why=why, fix=HOW
        )
    return text


def _rule(entry: dict[str, Any], origin: str) -> Rule:
    _check_keys(entry, _ROW_KEYS, origin, "an entry of `rows`")
    layers = entry.get("layers", "")
    return Rule(
        name=_text(entry, "name", origin),
        rows=_text(entry, "rows", origin),
        why=_text(entry, "why", origin),
        layers=_formula(layers, origin) if isinstance(layers, str) and layers else "",
        optional=entry.get("optional") is True,
    )


def _tables(found: dict[str, Any], key: str, origin: str) -> list[dict[str, Any]]:
    entries = found.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError(what=f"`{origin}` has a `{key}` that is no list of tables", fix=HOW)
    return entries


def _text(table: dict[str, Any], key: str, origin: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise UsageError(what=f"`{origin}` has no `{key}`", fix=HOW)
    return value


def _check_keys(table: dict[str, Any], known: set[str], origin: str, where: str) -> None:
    if stray := sorted(set(table) - known):
        raise UsageError(
            what=f"`{origin}` has the key `{stray[0][:60]}` in {where}",
            why=f"it may have {', '.join(sorted(known))}",
            fix=HOW,
        )
