"""Names of tensors as templates, and the file that has those of every family.

`python -m tests.families.tensor_names` makes each model and writes the file anew.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import transformers
from safetensors import safe_open

from ropeconv.knowledge import tensors
from ropeconv.knowledge.families.composite import COMPOSITE
from ropeconv.knowledge.families.towers import BY_TYPE
from ropeconv.knowledge.registry import FAMILIES

# names of wholes, before the name of a part
_AROUND = ("model", "thinker", "paligemma_with_expert", "paligemma", "gemma_expert")
REWRITE = "`python -m tests.families.tensor_names` writes the names of tensors anew"


def templates_of(folder: Path, name: str) -> tuple[str, ...]:
    """The names in a checkpoint, as the file has them."""
    names = {
        key
        for file in sorted(folder.glob("*.safetensors"))
        for key in safe_open(file, framework="numpy").keys()  # noqa: SIM118 - it is no dict
    }
    outer = next((family for family in COMPOSITE if family.name == name), None)
    if outer is None:
        weights_first = sorted(names, key=lambda name: name.replace(".weight", ". weight"))
        short = dict.fromkeys(_numbered(weights_first))
    else:
        beside = [key for key in sorted(names) if outer.reason_to_stay(key) is not None]
        short = dict.fromkeys(_cut(beside))
    return tensors.together(short)


def _numbered(names: Iterable[str]) -> Iterator[str]:
    """The first number is the layer's, the second an expert's or the like; others are few."""
    for name in names:
        signs = iter(("{layer}", "{n}"))
        words = (next(signs, word) if word.isdecimal() else word for word in name.split("."))
        yield ".".join(words)


def _cut(names: Iterable[str]) -> Iterator[str]:
    """The part of the model that a tensor belongs to."""
    for name in names:
        words = name.split(".")
        at = 1 + next(at for at, word in enumerate(words) if word not in _AROUND)
        yield name if at >= len(words) else ".".join([*words[:at], "*"])


def _folders(root: Path) -> Iterator[tuple[str, Path]]:
    """A checkpoint of each family that can be made."""
    from ropeconv.proof.jacobian import register  # noqa: PLC0415 - those of a script only
    from ropeconv.proof.tiny_towers import KINDS, tiny_tower  # noqa: PLC0415
    from tests.families import mlx_peer  # noqa: PLC0415
    from tests.families.cases import RUNNABLE, random_model  # noqa: PLC0415
    from tests.families.mlx_cases import ALONE, config_of  # noqa: PLC0415
    from tests.families.test_composite import MADE, tiny_wrapper  # noqa: PLC0415

    for name in RUNNABLE:
        random_model(name, {}).save_pretrained(root / name)
        yield name, root / name
    for name in KINDS:
        tiny_tower(name, register()).save_pretrained(root / name)
        yield name, root / name
    for name in ALONE:
        mlx_peer.write_model(config_of(name), root / name)
        yield name, root / name
    for name in MADE:
        tiny_wrapper(name).save_pretrained(root / name)
        yield name, root / name


def main() -> None:
    """Write the file."""
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as name:
        found = {kind: list(templates_of(at, kind)) for kind, at in _folders(Path(name))}
    assert found.keys() <= FAMILIES.keys() | BY_TYPE.keys()
    path = Path(tensors.__file__).with_name("tensors.json")
    path.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
