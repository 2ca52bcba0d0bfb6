"""Families: what is supported, and what is refused and why."""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.knowledge.families.composite import COMPOSITE
from ropeconv.knowledge.families.refused import REFUSED
from ropeconv.knowledge.families.towers import BY_TYPE
from ropeconv.knowledge.family import Family, Peer
from ropeconv.knowledge.registry import FAMILIES


@dataclass(frozen=True, kw_only=True)
class FamilyLine:
    """One model type in a line.

    Attributes:
        layout: of the rotary rows in Hugging Face's files; empty if it is its language model's.
        other: how the other layout can be run.
    """

    name: str
    title: str
    layout: str
    other: str


def list_families() -> tuple[FamilyLine, ...]:
    """Every supported model type, by name."""
    return tuple(_line(FAMILIES[name]) for name in sorted(FAMILIES))


def list_refused() -> tuple[tuple[str, str], ...]:
    """Every model type that is known and refused, with the reason."""
    return tuple(sorted(REFUSED.items()))


def _line(family: Family) -> FamilyLine:
    if family in COMPOSITE:
        return FamilyLine(
            name=family.name, title=family.title, layout="", other="as its language model"
        )
    other = "no switch in transformers"
    if family.measured_by is not Peer.TRANSFORMERS:
        other = "no switch in its own code"
    elif family.switch:
        other = f"`{family.switch}` in config.json"
    elif family.has_every_shape:
        other = "Meta's format"
    return FamilyLine(name=family.name, title=family.title, layout=family.layout.name, other=other)


def as_markdown() -> str:
    """docs/families.md: every supported model type, and every refused one with its reason."""
    rows = [
        f"| `{line.name}` | {line.title} | {line.layout or 'as its language model'}"
        f"{_evidence(FAMILIES[line.name])} |"
        f" {_forms(FAMILIES[line.name])} | {line.other} |"
        for line in list_families()
        if line.name not in BY_TYPE
    ]
    towers = [
        f"| `{name}` | {family.title} | {family.layout} | {_forms(family)} | {_users(name)} |"
        for name, family in sorted(BY_TYPE.items())
    ]
    refused = [f"| `{name}` | {why} |" for name, why in list_refused()]
    return "\n".join(
        [
            *_INTRODUCTION.strip().splitlines(),
            "",
            "| model type | title | layout | rotary rows | the other layout runs by |",
            "|---|---|---|---|---|",
            *rows,
            "",
            *_TOWERS.strip().splitlines(),
            "",
            "| model type | title | layout | rotary rows | the tower of |",
            "|---|---|---|---|---|",
            *towers,
            "",
            "## Known and refused",
            "",
            "| model type | why |",
            "|---|---|",
            *refused,
            "",
        ]
    )


def _evidence(family: Family) -> str:
    """By which program the layout is measured, where it is not transformers."""
    by = family.measured_by
    return "" if by is Peer.TRANSFORMERS else f" ({by.value})"


def _users(name: str) -> str:
    """The composite models that have this tower and no other."""
    found = [
        f"`{family.name}`"
        for family in COMPOSITE
        if any(tower.family is not None and tower.family.name == name for tower in family.towers)
    ]
    return ", ".join(found)


def _forms(family: Family) -> str:
    found = dict.fromkeys(rule.rows for rule in family.rules if rule.rotates)
    return "<br>".join(f"`{rows}`" for rows in found) or "its language model's"


_INTRODUCTION = """\
# Families

`ropeconv convert interleaved-to-half`, `half-to-interleaved`, `verify checkpoint` and `inspect`
work for the model types below. `ropeconv families NAME` explains each tensor of one, and
`ropeconv families --probe NAME` measures it on the installed transformers.

Every row is measured, nearly all of them in the tests: the Jacobian of the model's own rotation,
inside its own attention or the indexer of a sparse one, gives pairs, span and layers (what does not
enter a product of queries and keys, JetMoE's experts for example, is tested by running the model).
Models of vision and language have their language model and their tower as rows of their own.

Where transformers has no code for a family, its column of layouts says what measures it. mlx-lm
runs the whole model of files that were moved, with the flag of each rotation turned round, and must
compute what it did before; sixty families are run in both programs. MindNLP does the same
with its rotation exchanged, by hand: `tests/families/by_hand.py` says how (logits differ by 8e-7 of
the largest or less, and by half of it or more where the rotation is not exchanged).

The layout is that of the files in Hugging Face's format. Rows are in the notation of the tables:
`Keep(n)` stays, `Rope(r)` is one rotary span, `Repeat(times, ...)` repeats; letters are sizes from
config.json (H query heads, K key heads, D rows of a head, r rotary rows of it).

Where a runtime has no switch, moving rows makes files for another runtime, and ropeconv says so.
`rope_interleave` is transformers' switch: vLLM's and mlx-lm's DeepSeek V3, and the code that comes
with its checkpoint, rotate interleaved pairs whatever it says.
mlx-lm has a switch of its own for two dozen families, Llama, Qwen 2, Gemma 2 and InternLM 2 among
them: `"rope_traditional"` in config.json, true for interleaved rows. ropeconv does not write it,
since no other runtime reads it. llama.cpp's converter takes the rows that a family is published
with, and reorders them itself where llama.cpp rotates the other layout (NORM, Llama and Mistral for
example). `ropeconv families NAME` and a conversion's notes say so of each.
A checkpoint may bring code of its own (`auto_map` in config.json), which ropeconv does not read:
[describing-a-family.md](describing-a-family.md#checkpoints-that-bring-code-of-their-own).
The indexers of DeepSeek V3.2 and A.X K2 have a layout of their own, which stays, and so has the
linear attention of Ling 2.5.

Quantised weights move where each row has its own scales: FP8 and INT8 by tensor or by channel,
compressed-tensors packed by rows, NVFP4 and MXFP4, bitsandbytes' INT8, MLX. FP8 in blocks of 128
rows moves where no row leaves its block. GPTQ, AWQ and bitsandbytes' 4-bit weights are refused:
rows lie across their packed integers or blocks, and new scales would change values.

## Supported
"""

_TOWERS = """\
## Towers

Conversions of a model of vision or sound and language move the rows of its language model. Its
tower stays byte for byte: the runtime's code for pictures and sounds does not change with that for
text. `--part vision` or `--part audio` moves the tower instead, `--part text --part vision` both:
for code that rotates the tower in the other layout, as Mistral's own does for Pixtral, whose files
have interleaved rows in both parts where transformers' have half-split ones.

A picture has two axes: some pairs of a head turn by a patch's row, the others by its column. Which
pair turns by which is the same in either layout, so the whole head is one span; only Gemma 4
rotates each half of the head by itself. LLaVA and its relatives have the tower that their
`vision_config` says; CLIP, SigLIP and their like have learned positions and nothing to move.

Towers are measured as texts are, at two tokens that differ on every axis, and run in the other
layout by another model's rotation. `pixtral_native` and `moonvit` are rows as their makers store
them; transformers reorders them when it loads them, and the tests hold them against that. Every
model of vision or sound and language is made tiny in its own class, moved, and run with its text in
the other layout, but for eight. mlx-lm runs the text of Kimi K2.5, which 5.23 cannot read after
writing it, and of LFM 2 VL under its older name. Gemma 3n (needs timm), Kimi VL (remote code) and
the two Omni (what thinks in them is made by itself) are held against their text alone; Gemma 4's
two assistants were only read. What speaks in an Omni stays. FastVLM and Perception LM, whose
towers are timm's, are made with CLIP's in their place. PI0's expert for actions attends to the keys
of the language model that reads, so that both move together.
"""
