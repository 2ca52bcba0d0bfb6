"""The other layout's runtime of a tower: its rotation exchanged for that of another real model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

import torch

from ropeconv.words.layout import RopeLayout
from tests.families.swap import DONORS, in_halves

FUNCTIONS = (
    "apply_rotary_pos_emb",
    "apply_rotary_pos_emb_2d",
    "apply_rotary_pos_emb_vision",
    "vision_apply_rotary_emb",
    "apply_multidimensional_rope",
)

# those whose stacks have code in several folders
ALSO = {"pe_audio_video": ("pe_audio", "pe_video")}


@contextmanager
def tower_rotating(tower: Any, layout: RopeLayout) -> Iterator[None]:
    """Every rotation function of the tower's code is the one of a model with that layout."""
    donor = import_module(DONORS[layout.name]).apply_rotary_pos_emb
    module = sys.modules[type(tower).__module__]
    folders = ALSO.get(tower.config.model_type, ())
    others = [import_module(f"transformers.models.{at}.modeling_{at}") for at in folders]
    found = [
        (code, name) for code in (module, *others) for name in FUNCTIONS if hasattr(code, name)
    ]
    blocks = 2 if (module, "apply_multidimensional_rope") in found else 1
    if blocks > 1:  # the text's function, which the other one calls, must stay
        found = [(module, "apply_multidimensional_rope")]

    assert found

    with ExitStack() as undo:
        for module, name in found:
            undo.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, lambda *given, **choices: _rotated(donor, given, choices, blocks))
        yield


def _rotated(donor: Any, given: tuple[Any, ...], choices: dict[str, Any], blocks: int) -> Any:
    if blocks > 1:  # Gemma 4: x, cos, sin, places; each block of the head by itself
        x, cos, sin = given[:3]
        parts = zip(*(t.chunk(blocks, dim=-1) for t in (x, cos, sin)), strict=True)
        return torch.cat([donor(x, x, cos, sin, unsqueeze_dim=2)[0] for x, cos, sin in parts], -1)
    if "freqs_ci" in choices:  # Llama 4
        q, k = given
        turns = choices["freqs_ci"].reshape(1, q.shape[1], -1)
        cos, sin = (torch.cat([t, t], -1).to(q) for t in (turns.real, turns.imag))
        return donor(q, k, cos, sin, unsqueeze_dim=2)
    tables = given[2:4] or (choices["cos"], choices["sin"])
    (q, k), (cos, sin) = given[:2], tables
    cos, sin = cos.to(q), sin.to(q)
    if q.ndim == 3:  # [tokens, heads, rows] of Qwen VL
        q, k = donor(q[None], k[None], cos[None], sin[None], unsqueeze_dim=2)
        return q[0], k[0]
    if cos.ndim == 2:
        cos, sin = cos[None], sin[None]
    extra = q.shape[-2] - cos.shape[-2]
    if extra > 0 and q.shape[1] != cos.shape[-2]:  # DINOv3: tokens before the patches stand still
        still_q, still_k = q[..., :extra, :], k[..., :extra, :]
        q, k = donor(q[..., extra:, :], k[..., extra:, :], cos, sin, unsqueeze_dim=1)
        return torch.cat([still_q, q], -2), torch.cat([still_k, k], -2)
    cos, sin = in_halves(cos), in_halves(sin)
    if q.shape[2] < k.shape[2] == cos.shape[-2]:  # Muse's assistant: queries are the last tokens
        last = (t[..., -q.shape[2] :, :] for t in (cos, sin))
        return donor(q, q, *last)[0], donor(k, k, cos, sin)[1]
    axis = 1 if q.shape[2] == cos.shape[-2] else 2
    return donor(q, k, cos, sin, unsqueeze_dim=axis)
