"""The other layout's runtime: a model's rotation exchanged for that of another real model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import torch

from ropeconv.words.layout import RopeLayout

# transformers' own code in either layout; both take a part of the head, and the same cos and sin
DONORS = {
    "interleaved": "transformers.models.glm.modeling_glm",
    "half-split": "transformers.models.glm4_moe.modeling_glm4_moe",
}
FUNCTIONS = ("apply_rotary_pos_emb", "apply_rotary_pos_emb_interleave", "apply_rotary_emb")
METHOD = "apply_rotary_position_embeddings"  # RoFormer's, of its attention
# the indexers of these rotate by a function of their own layout, which must stay
MAIN_ONLY = {"deepseek_v32": FUNCTIONS[1:], "axk2": FUNCTIONS[1:]}


@contextmanager
def rotating(model: Any, layout: RopeLayout) -> Iterator[None]:
    """Every rotation function of the model's code is the one of a model with that layout."""
    donor = import_module(DONORS[layout.name]).apply_rotary_pos_emb
    module = sys.modules[type(model).__module__]
    names = MAIN_ONLY.get(model.config.model_type, FUNCTIONS)
    found = [(module, name) for name in names if hasattr(module, name)]
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type)]
    found += [(kind, METHOD) for kind in kinds if METHOD in vars(kind)]

    assert found

    with ExitStack() as undo:
        for where, name in found:
            undo.callback(setattr, where, name, vars(where)[name])
            own = _by_sines if name == METHOD else _rotated
            function = partial(_call, own, donor)
            setattr(where, name, function if where is module else staticmethod(function))
        yield


@contextmanager
def rotating_inside(part: Any, layout: RopeLayout) -> Iterator[None]:
    """The same, but only while that part of a model runs: others of its code rotate as ever."""
    exchanged = ExitStack()

    def begin(*_given: object) -> None:
        exchanged.enter_context(rotating(part, layout))

    def end(*_given: object) -> None:
        exchanged.close()

    with ExitStack() as undo:
        undo.callback(part.register_forward_pre_hook(begin).remove)
        undo.callback(part.register_forward_hook(end).remove)
        yield


def _rotated(donor: Any, given: tuple[Any, ...], choices: dict[str, Any]) -> Any:
    """The donor's result for whatever form the model's own function is called in."""
    axis = choices.get("unsqueeze_dim", 1)
    if "cos" in choices:  # Qwen 4's indexer: x alone
        cos, sin = (in_halves(choices[name]) for name in ("cos", "sin"))
        return donor(given[0], given[0], cos, sin, unsqueeze_dim=axis)[0]
    if len(given) == 3 and given[2].is_complex():  # q, k, turns: Llama 4 and DeepSeek V2
        q, k, turns = given
        tables = [_doubled(turns.real), _doubled(turns.imag)]
        tables = [table if table.ndim == 3 else table[None] for table in tables]
        axis = 1 if q.shape[-2] == turns.shape[-2] else 2
        return donor(q, k, *tables, unsqueeze_dim=axis)
    if len(given) == 3 and given[1].shape[-1] * 2 == given[0].shape[-1]:  # GPT-J: x, sin, cos
        x, sin, cos = given
        return donor(x, x, _doubled(cos), _doubled(sin), unsqueeze_dim=2)[0]
    if len(given) == 3:  # Gemma 3n: x, cos, sin
        x, cos, sin = given
        return donor(x, x, cos, sin, unsqueeze_dim=axis)[0]
    q, k, cos, sin = given[:4]
    return donor(q, k, in_halves(cos), in_halves(sin), unsqueeze_dim=axis)


def _call(own: Any, donor: Any, *given: Any, **choices: Any) -> Any:
    return own(donor, given, choices)


def _by_sines(donor: Any, given: tuple[Any, ...], _choices: dict[str, Any]) -> tuple[Any, ...]:
    """RoFormer: a table of sines and cosines [1, 1, T, D], queries, keys and perhaps values."""
    table, *others = given
    sin, cos = (_doubled(half)[:, 0] for half in table.chunk(2, dim=-1))
    return tuple(donor(x, x, cos, sin)[0] for x in others)


def _doubled(table: Any) -> Any:
    return torch.cat([table, table], dim=-1)


def in_halves(table: Any) -> Any:
    """Angles as the donors take them: each once in the first half, and again in the second."""
    neighbours = table[..., 0::2]
    if table.shape[-1] % 2:
        return _doubled(table)  # each angle once
    if bool((neighbours == table[..., 1::2]).all()):
        return _doubled(neighbours)
    half = table.shape[-1] // 2
    return table if bool((table[..., :half] == table[..., half:]).all()) else _doubled(table)
