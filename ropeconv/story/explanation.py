"""One model type, explained: which rows move, what stays, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

from ropeconv.knowledge.families.refused import REFUSED
from ropeconv.knowledge.families.towers import BY_TYPE
from ropeconv.knowledge.family import Family
from ropeconv.knowledge.programs import programs
from ropeconv.knowledge.registry import FAMILIES
from ropeconv.knowledge.tensors import one_by_one, tensors_of, together
from ropeconv.thinking.family_model import deaf, runtimes
from ropeconv.thinking.sizes import words_of
from ropeconv.words.errors import UsageError
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, RopeLayout


@dataclass(frozen=True, kw_only=True)
class TensorLine:
    """How the tensors of one name are treated."""

    name: str
    rows: str  # in notation; empty if all stay
    why: str
    layers: str  # a formula over the config; empty for all layers


@dataclass(frozen=True, kw_only=True)
class TowerLine:
    """A part of a composite model beside its language model.

    Attributes:
        name: its model type; empty if the config says it.
        key: of the config, under which its own config lies.
        layout: of its rows, empty if its model type is not known here.
    """

    part: str
    name: str
    key: str
    layout: str


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Everything that is known of one model type.

    Attributes:
        refused: why its rows cannot be moved; empty if they can.
        measured_by: the program against whose code the table is measured; empty where there is no
            layout of its own.
        stays: tensors that a model of this type has, as the program that measures it writes them.
        dropped: those of a conversion between formats; within one they stay.
        sizes: each letter of the notation with its formula over the config.
        needs: what must hold of the config, each with the reason to refuse it otherwise.
        runtime: which code can run rows in the other layout; so do `programs`, one by one.
        language: the model type of a composite model's text where its config does not say it.
    """

    name: str
    title: str
    layout: str
    refused: str
    measured_by: str
    moves: tuple[TensorLine, ...]
    stays: tuple[TensorLine, ...]
    sizes: tuple[tuple[str, str], ...]
    needs: tuple[tuple[str, str], ...]
    runtime: str
    programs: tuple[str, ...] = ()
    dropped: tuple[TensorLine, ...] = ()
    towers: tuple[TowerLine, ...] = ()
    language: str = ""


def explain(name: str) -> Explanation:
    """How a model type's tensors are treated, and why.

    Raises:
        UsageError: no table knows it.
    """
    if name in REFUSED:
        return Explanation(
            name=name,
            title=name,
            layout="",
            refused=REFUSED[name],
            measured_by="",
            moves=(),
            stays=(),
            sizes=(),
            needs=(),
            runtime="",
        )
    family = FAMILIES.get(name) or BY_TYPE.get(name)
    if family is None:
        close = get_close_matches(name, [*FAMILIES, *REFUSED], n=3)
        raise UsageError(
            what=f"no table knows the model type `{name[:60]}`",
            why=f"names like it are {', '.join(close)}" if close else "",
            fix="`ropeconv families` lists them",
        )
    names = [one for template in tensors_of(name) for one in one_by_one(template)]
    return Explanation(
        name=name,
        title=family.title,
        layout="" if family.inner else family.layout.name,
        refused="",
        measured_by="" if family.inner else family.measured_by.value,
        moves=tuple(
            TensorLine(
                name=_as_stored(rule.name, family, names),
                rows=rule.rows,
                why=rule.why,
                layers=rule.layers,
            )
            for rule in family.rules
            if rule.rotates
        ),
        stays=tuple(_stays(family, names)),
        dropped=tuple(_line(template, why) for template, why in family.dropped),
        sizes=_sizes_used(family),
        needs=family.needs,
        runtime=_runtime(family),
        programs=() if family.inner else programs(family, _other(family)),
        towers=tuple(
            TowerLine(
                part=tower.part.value,
                name=tower.family.name if tower.family else "",
                key=tower.key,
                layout=tower.family.layout.name if tower.family else "",
            )
            for tower in family.towers
        ),
        language=f"{name}_text" if family.inner and f"{name}_text" in FAMILIES else "",
    )


def _line(name: str, why: str) -> TensorLine:
    return TensorLine(name=name, rows="", why=why, layers="")


def _as_stored(template: str, family: Family, names: Iterable[str]) -> str:
    """A template with the beginning that tensors of this family have."""
    if "{base}" not in template:
        return template
    for base in family.bases:
        own = replace(family, bases=(base,), stays=((template, "this"),))
        if any(own.reason_to_stay(_numbered(name)) for name in names):
            return template.replace("{base}", base)
    any_of = family.bases[0] if len(family.bases) == 1 else f"{{{','.join(family.bases)}}}"
    return template.replace("{base}", any_of)


def _numbered(name: str) -> str:
    return name.replace("{layer}", "0").replace("{n}", "0")


def _stays(family: Family, names: Iterable[str]) -> Iterable[TensorLine]:
    """Tensors that stay, by reason; whole templates where no model of the type was ever made."""
    aside = [rule for rule in family.rules if not rule.rotates]
    if not names:
        known = [*((rule.name, rule.why) for rule in aside), *family.stays]
        yield from (_line(_as_stored(template, family, ()), why) for template, why in known)
        return
    by_reason: dict[str, list[str]] = {rule.why: [] for rule in aside}
    by_reason |= {why: [] for _, why in family.stays}
    for name in names:
        matched = [rule for rule, _ in family.matches(_numbered(name))]
        why = family.reason_to_stay(_numbered(name))
        if matched:
            why = next((rule.why for rule in matched if not rule.rotates), None)
        if why is not None:
            by_reason[why].append(name)
    for why, found in by_reason.items():
        yield from (_line(template, why) for template in together(found))


def _sizes_used(family: Family) -> tuple[tuple[str, str], ...]:
    """Letters that rows are made of, and those that their formulas are made of."""
    whole, own = dict(family.sizes), dict(family.layer_sizes)
    texts = [text for rule in family.rules for text in (rule.rows, rule.layers)]
    texts += [formula for formula, _ in family.needs]
    used = _closure(texts, {**whole, **own}, whole)
    return (
        *((letter, formula) for letter, formula in family.sizes if letter in used),
        *((f"{letter} of a layer", formula) for letter, formula in family.layer_sizes),
    )


def _closure(texts: list[str], *tables: Mapping[str, str]) -> set[str]:
    used: set[str] = set()
    while texts:
        found = {*words_of(texts.pop())} - used
        used |= found
        texts += [table[word] for table in tables for word in found if word in table]
    return used


def _runtime(family: Family) -> str:
    if family.inner:
        return f"its language model is the model type in `{family.inner}`"
    if family.switch:
        switch = f"transformers rotates by `{family.switch}` in config.json, which is set"
        return f"{switch}; {deaf(family)}"
    return runtimes(family, _other(family))


def _other(family: Family) -> RopeLayout:
    return HALF_SPLIT if family.layout == INTERLEAVED else INTERLEAVED
