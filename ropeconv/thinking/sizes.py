"""The letters of a family's notation, with the numbers that a config gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ropeconv.knowledge.family import Family, Rule
from ropeconv.knowledge.formula import evaluate, solve
from ropeconv.words.errors import Contradiction, NotSaid

GEOMETRY = ("L", "C", "H")  # what every model is described by


def words_of(rows: str) -> list[str]:
    """Every word of the notation, letters of sizes among them."""
    return re.findall(r"[A-Za-z]\w*", rows)


class Sizes:
    """The sizes of one model, some of which differ from layer to layer.

    Attributes:
        whole: of the model; a letter that only some layers have may be 0.
    """

    def __init__(self, family: Family, names: Mapping[str, Any], origin: str) -> None:
        """Solve every formula.

        Args:
            family: whose letters they are.
            names: keys of the config.
            origin: of the config, for errors.

        Raises:
            NotSaid: the config does not give a size that some rule uses.
            Contradiction: sizes that cannot be of one head.
        """
        self._family = family
        self._names = names
        self._origin = origin
        letters = dict(family.sizes).keys() | dict(family.layer_sizes).keys()
        texts = [text for rule in family.rules for text in (rule.rows, rule.depth)]
        self._used = {word for text in texts for word in words_of(text)} & letters
        in_layers = dict(family.layer_sizes).keys()
        self.whole = self._checked(solve(family.sizes, names), {*self._used, *GEOMETRY} - in_layers)
        self._layers: dict[int, dict[str, int]] = {}

    def of(self, layer: int | None) -> dict[str, int]:
        """The sizes of a layer."""
        if layer is None or not self._family.layer_sizes:
            return self.whole
        if layer not in self._layers:
            formulas = {**dict(self._family.sizes), **dict(self._family.layer_sizes)}
            found = solve(formulas.items(), {**self._names, "layer": layer})
            self._layers[layer] = self._checked(found, self._used)
        return self._layers[layer]

    def applies(self, rule: Rule, layer: int | None) -> bool:
        """Whether the rule is meant for that layer."""
        if rule.depth and layer is not None and layer >= self.whole[rule.depth]:
            return False
        if not rule.layers:
            return True
        return bool(evaluate(rule.layers, {**self._names, **self.whole, "layer": layer}))

    def _checked(self, found: Mapping[str, Any], needed: set[str]) -> dict[str, int]:
        formulas = {**dict(self._family.sizes), **dict(self._family.layer_sizes)}
        for letter in sorted(needed):
            value = found.get(letter)
            if type(value) is not int or value <= 0:
                raise NotSaid(
                    what=f"`{self._origin}` does not give the size {letter}, found"
                    f" {str(value)[:40]}",
                    why=f"it is `{formulas[letter]}` for {self._family.title}, and must not be"
                    " guessed",
                    fix="add the keys to the config",
                )
        if "r" in needed and (found["r"] > found["D"] or found["r"] % 2):
            raise Contradiction(
                what=f"`{self._origin}` says that {found['r']} rows of a head of {found['D']} are"
                " rotated",
                why="rotary rows are an even part of the head",
                fix="find the right config",
            )
        if "G" in needed and found["H"] % found["K"]:
            raise Contradiction(
                what=f"{found['H']} query heads cannot share {found['K']} key heads evenly",
                why=f"`{self._origin}` says so",
            )
        return {letter: value if type(value) is int else 0 for letter, value in found.items()}
