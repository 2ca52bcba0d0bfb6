"""Tables of cos and sin in every form that people build, read in place by one kernel.

Notation: T rows, one a position (or one a token, if the table was gathered); r rotary rows of a
    head in
P = r / 2 pairs. Whatever the form, the cosine of pair p in a row is at column p * column_step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ropeconv.words.errors import UsageError
from ropeconv.words.frequencies import RopeSettings, frequencies
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, RopeLayout


@dataclass(frozen=True, kw_only=True, eq=False)
class RopeTable:
    """The cosines and sines that a rotation reads; views of the caller's memory, nothing is copied.

    Shapes:
        cos, sin [T, columns], or gathered [B, T, columns]: row t belongs to token t of the
        sequence.

    Attributes:
        rotary_dim: r, the rows of a head that rotate.
        column_step: columns from one pair to the next, 1 or 2.
    """

    cos: Tensor
    sin: Tensor
    rotary_dim: int
    column_step: int = 1

    def __post_init__(self) -> None:
        cos, sin = self.cos, self.sin
        if cos.shape != sin.shape or cos.dtype != sin.dtype or cos.device != sin.device:
            raise UsageError(
                what=f"sin is {_said(sin)}, expected {_said(cos)}, as cos is",
                fix="pass the cos and sin of one table",
            )
        if cos.ndim not in (2, 3) or not cos.is_floating_point():
            raise UsageError(
                what=f"a table is {_said(cos)}",
                why="a table is floating point, [T, columns] or [B, T, columns]",
                fix="use `from_complex` for complex tables, and drop dimensions of size 1",
            )
        pairs = -(-cos.shape[-1] // self.column_step)
        if self.rotary_dim <= 0 or self.rotary_dim % 2 or pairs < self.rotary_dim // 2:
            raise UsageError(
                what=f"a table of {pairs} pairs cannot rotate {self.rotary_dim} rows",
                fix="check the form of the table and rotary_dim",
            )
        if cos.stride() != sin.stride():
            object.__setattr__(self, "cos", cos.contiguous())
            object.__setattr__(self, "sin", sin.contiguous())

    @property
    def gathered(self) -> bool:
        """Whether a row belongs to a token, and not to a position."""
        return self.cos.ndim == 3  # noqa: PLR2004 - [B, T, columns]

    @property
    def rows(self) -> int:
        """Positions, or tokens of a gathered table."""
        return self.cos.shape[-2]

    @classmethod
    def from_settings(
        cls,
        settings: RopeSettings,
        rotary_dim: int,
        positions: Tensor,
        *,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        sequence_length: int | None = None,
        axis_of_pair: tuple[int, ...] | None = None,
    ) -> RopeTable:
        """A table for exactly these positions, with angles in float64.

        Row t belongs to positions[t], so huge positions cost nothing. float32 angles would be off
        by 3.4e-3 in cos at position 131071 and 3.3e-2 at a million.

        Shapes:
            positions [T] -> cos, sin [T, P]; with axis_of_pair, [axes, T] or [axes, B, T] ->
            [T, P] or [B, T, P].

        Args:
            settings: theta and scaling.
            rotary_dim: r.
            positions: whole numbers, on any device.
            device: where the table is to lie.
            dtype: of the table; float32 is what the kernel computes in, float64 for float64
                tensors.
            sequence_length: decides dynamic and longrope scaling.
            axis_of_pair: for M-RoPE, the axis of positions that each pair reads; see `mrope_axes`.
        """
        numbers = frequencies(settings, rotary_dim, sequence_length=sequence_length)
        inv_freq = torch.tensor(numbers.inv_freq, dtype=torch.float64)
        places = positions.detach().to("cpu", torch.float64)
        if axis_of_pair is None:
            angles = places[..., None] * inv_freq
        else:
            angles = places[list(axis_of_pair)].movedim(0, -1) * inv_freq
        cos = (angles.cos() * numbers.attention_factor).to(device, dtype)
        sin = (angles.sin() * numbers.attention_factor).to(device, dtype)
        return cls(cos=cos, sin=sin, rotary_dim=rotary_dim)

    @classmethod
    def from_pairs(cls, cos: Tensor, sin: Tensor) -> RopeTable:
        """One column for each pair, [T, r / 2] or [B, T, r / 2] (flash-attention, the paper)."""
        return cls(cos=cos, sin=sin, rotary_dim=2 * cos.shape[-1])

    @classmethod
    def from_duplicated(cls, cos: Tensor, sin: Tensor, *, order: RopeLayout) -> RopeTable:
        """Each value twice, [T, r] or [B, T, r]: in the order of the rows that it multiplies.

        Args:
            cos: cosines.
            sin: sines.
            order: HALF_SPLIT for halves repeated (Hugging Face), INTERLEAVED for neighbours
                (on-paper).
        """
        return cls(cos=cos, sin=sin, rotary_dim=cos.shape[-1], column_step=order.pair_stride)

    @classmethod
    def from_complex(cls, freqs_cis: Tensor) -> RopeTable:
        """Complex numbers, [T, r / 2] or [B, T, r / 2] (Meta's freqs_cis).

        Raises:
            UsageError: the table is not complex: a cast to a real dtype has dropped the sines.
        """
        if not freqs_cis.is_complex():
            raise UsageError(
                what=f"a complex table is {freqs_cis.dtype}, expected complex64 or complex128",
                why="a cast of a model to bf16 casts this buffer too, and drops its imaginary part",
                fix="build the table after the cast",
            )
        parts = torch.view_as_real(freqs_cis.resolve_conj()).flatten(-2)
        return cls(
            cos=parts[..., :-1], sin=parts[..., 1:], rotary_dim=parts.shape[-1], column_step=2
        )

    @classmethod
    def from_cache(cls, cos_sin: Tensor) -> RopeTable:
        """Cosines and sines side by side, [T, r] (vLLM, SGLang, FlashInfer)."""
        cos, sin = cos_sin.chunk(2, dim=-1)
        return cls.from_pairs(cos, sin)

    @classmethod
    def from_axes(cls, cos: Tensor, sin: Tensor, axis_of_pair: tuple[int, ...]) -> RopeTable:
        """A table for each axis of M-RoPE, [axes, B, T, r / 2 or r]; a pair reads its own axis."""
        columns = torch.arange(len(axis_of_pair), device=cos.device)
        axes = torch.tensor(axis_of_pair, device=cos.device)
        pairs_last = [table.movedim(0, -1)[..., columns, axes] for table in (cos, sin)]
        return cls.from_pairs(*pairs_last)

    @classmethod
    def infer(
        cls, cos: Tensor, sin: Tensor | None = None, *, rotary_dim: int | None = None
    ) -> RopeTable:
        """The form told from dtype, width and values; the host waits for the device.

        Raises:
            UsageError: more than one form fits.
        """
        if sin is None:
            if cos.is_complex():
                return cls.from_complex(cos)
            raise UsageError(
                what="one real table may be a cos|sin cache or a table without its sines",
                fix="use `RopeTable.from_cache`",
            )
        width = cos.shape[-1]
        orders = [order for order in (HALF_SPLIT, INTERLEAVED) if _is_duplicated(cos, sin, order)]
        fits_pairs = rotary_dim == 2 * width or (rotary_dim is None and not orders)
        if fits_pairs:
            return cls.from_pairs(cos, sin)
        if len(orders) == 1 and rotary_dim in (None, width):
            return cls.from_duplicated(cos, sin, order=orders[0])
        raise UsageError(
            what=f"a table of {width} columns for rotary_dim {rotary_dim} has no one meaning",
            why=f"its values are duplicated in {len(orders)} of the two orders",
            fix="name the form: `from_pairs` or `from_duplicated`",
        )


def mrope_axes(sections: tuple[int, ...], *, interleaved: bool) -> tuple[int, ...]:
    """The axis (0 time, 1 height, 2 width) that each pair reads.

    >>> mrope_axes((2, 1, 1), interleaved=False)
    (0, 0, 1, 2)
    >>> mrope_axes((3, 2, 2), interleaved=True)
    (0, 1, 2, 0, 1, 2, 0)

    Source:
        https://github.com/huggingface/transformers, Qwen2-VL `apply_multimodal_rotary_pos_emb`
        (sections) and Qwen3-VL `apply_interleaved_mrope` (interleaved), v5.0.0.
    """
    if not interleaved:
        return tuple(axis for axis, pairs in enumerate(sections) for _ in range(pairs))
    axes = [0] * sum(sections)
    for axis, pairs in enumerate(sections[1:], start=1):
        axes[axis : pairs * len(sections) : len(sections)] = [axis] * len(
            range(axis, min(pairs * len(sections), len(axes)), len(sections))
        )
    return tuple(axes)


def _is_duplicated(cos: Tensor, sin: Tensor, order: RopeLayout) -> bool:
    if cos.shape[-1] % 2:
        return False
    pairs = cos.shape[-1] // 2
    pair_stride, part_stride = order.strides(pairs)
    first = torch.arange(pairs, device=cos.device) * pair_stride
    return all(
        bool((table[..., first] == table[..., first + part_stride]).all()) for table in (cos, sin)
    )


def _said(table: Tensor) -> str:
    return f"{table.dtype} {list(table.shape)} on {table.device}"
