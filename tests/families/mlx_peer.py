"""mlx-lm as a second runtime: tiny models of its own code, run in either layout on a CPU.

Every rotation of mlx-lm goes through one function, `mx.fast.rope`, which takes the layout as a
flag: `traditional=True` is interleaved. Setting the flag there runs a whole model in the other
layout, and changes nothing else of it. Its own loader reads the folders that ropeconv writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from safetensors.numpy import save_file

from ropeconv.words.layout import INTERLEAVED, RopeLayout
from tests.families.mlx_names import Array, stored

with patch("resource.setrlimit"):  # it lowers the limit of open files, for all tests after it
    from mlx_lm.utils import _get_classes, load_model

TOKENS = [[3, 7, 4, 9, 5, 8, 6, 11]]

mx.set_default_device(mx.cpu)
mx.disable_compile()  # on a CPU it needs a compiler, and half a second for each function


def write_model(config: Mapping[str, Any], folder: Path) -> None:
    """A checkpoint of random numbers, under the names that the family's published files have."""
    model_class, arguments = _get_classes(config=dict(config))
    model = model_class(arguments.from_dict(dict(config)))
    random = np.random.default_rng(1)
    made: dict[str, Array] = {}
    for name, parameter in tree_flatten(model.parameters()):
        numbers = random.standard_normal(parameter.shape) * 0.3 + (parameter.ndim == 1)
        made[name] = numbers.astype(np.float32)
    folder.mkdir()
    tensors = {
        name: np.ascontiguousarray(one).reshape(one.shape)  # which makes a vector of a number
        for name, one in stored(made, str(config["model_type"]))
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2))


def run(
    folder: Path, layout: RopeLayout | None = None, **changed: object
) -> tuple[Array, list[Array]]:
    """Logits, and the scores before the softmax of every attention in turn.

    Args:
        folder: a checkpoint, which mlx-lm's own loader reads.
        layout: of every rotation; without it, as mlx-lm's own code has it.
        changed: keys of the config that differ from the folder's.
    """
    model, _ = load_model(folder, model_config=changed)
    scores: list[Array] = []
    with _watching(scores), _rotating(layout):
        logits = model(mx.array(TOKENS))
        mx.eval(logits)
    return np.array(logits), scores


@contextmanager
def _rotating(layout: RopeLayout | None) -> Iterator[None]:
    own = mx.fast.rope

    def rotate(*given: Any, traditional: bool, **choices: Any) -> Any:
        wanted = traditional if layout is None else layout == INTERLEAVED
        return own(*given, traditional=wanted, **choices)

    with _replaced("rope", rotate):
        yield


@contextmanager
def _watching(scores: list[Array]) -> Iterator[None]:
    own = mx.fast.scaled_dot_product_attention

    def attend(
        queries: Any, keys: Any, values: Any, *, scale: float, mask: Any, **more: Any
    ) -> Any:
        groups = queries.shape[1] // keys.shape[1]
        products = scale * queries @ mx.repeat(keys, groups, axis=1).swapaxes(-1, -2)
        if isinstance(mask, mx.array) and mask.dtype != mx.bool_:
            products = products + mask  # latent attention: what the rotated rows add
        scores.append(np.array(products))
        return own(queries, keys, values, scale=scale, mask=mask, **more)

    with _replaced("scaled_dot_product_attention", attend):
        yield


@contextmanager
def _replaced(name: str, function: Callable[..., Any]) -> Iterator[None]:
    own = getattr(mx.fast, name)
    setattr(mx.fast, name, function)
    try:
        yield
    finally:
        setattr(mx.fast, name, own)
