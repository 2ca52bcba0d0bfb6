"""The tensors of each family, as the program that its table is measured on writes them.

`tensors.json` has them by model type: templates with `{layer}` for a layer's number, an n in braces
for a further one (of an expert, for example), and words in braces, each of which there is. Of
towers and what lies between them and a language model, a star stands for the rest of the name. The
tests make every model and hold its names against the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import product
from pathlib import Path

_FILE = Path(__file__).with_name("tensors.json")
_WORDS = re.compile(r"\{([^{}]*,[^{}]*)\}")


def tensors_of(name: str) -> tuple[str, ...]:
    """Templates of all tensors of a model type; none if no model of it was ever made."""
    return tuple(_read().get(name, ()))


@lru_cache(maxsize=1)
def _read() -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(_FILE.read_text(encoding="utf-8"))
    return found


def one_by_one(template: str) -> Iterator[str]:
    """Every name of a template; what stands for numbers stays as it is.

    >>> list(one_by_one("layers.{layer}.{q_proj,k_proj}.weight"))
    ['layers.{layer}.q_proj.weight', 'layers.{layer}.k_proj.weight']
    """
    parts = _WORDS.split(template)
    choices = [part.split(",") if at % 2 else [part] for at, part in enumerate(parts)]
    return ("".join(chosen) for chosen in product(*choices))


def together(names: Iterable[str]) -> tuple[str, ...]:
    """Names as few templates, in the order of their first names: `one_by_one` gives them back.

    >>> together(["a.q.weight", "a.q.bias", "a.k.weight", "a.k.bias", "b.weight"])
    ('a.{q,k}.{weight,bias}', 'b.weight')
    """
    ends: dict[str, list[str]] = {}
    for name in names:
        stem, dot, end = name.rpartition(".")
        ends.setdefault(stem + dot, []).append(end)
    modules: dict[tuple[str, str], list[str]] = {}
    for stem, found in ends.items():
        parent, dot, module = stem.removesuffix(".").rpartition(".")
        modules.setdefault((parent + dot, _any_of(found)), []).append(module)
    return tuple(
        f"{parent}{_any_of(found)}{'.' if found != [''] else ''}{end}"
        for (parent, end), found in modules.items()
    )


def _any_of(words: list[str]) -> str:
    return words[0] if len(words) == 1 else "{" + ",".join(words) + "}"
