"""A model as numbers: what files claim of it, and what it is once shapes have spoken."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ropeconv.words.dtypes import DType
from ropeconv.words.frequencies import RopeSettings


class Format(Enum):
    """How a checkpoint lies on disk. Not the layout of its rows: that is another axis."""

    META = "meta"
    HF = "hf"


class WeightsFile(Enum):
    """In what kind of file Meta's weights are written."""

    PTH = "pth"
    SAFETENSORS = "safetensors"


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The sizes that tensors' shapes are made of."""

    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int


@dataclass(frozen=True, kw_only=True)
class TokenIds:
    """Token ids that a config carries; they never depend on the weights."""

    bos: int | None = None
    eos: int | tuple[int, ...] | None = None
    pad: int | None = None


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What a config file says. None means that it says nothing; every size is checked by shapes.

    Attributes:
        origin: the file's name, for messages.
        rope: complete RoPE settings; Meta's files state only theta and scaled_rope.
        scaled_rope: Meta's flag: llama3 scaling is on, its factor is not stated.
        tied: output and embedding share one tensor.
        width_rule: Meta's multiple_of and ffn_dim_multiplier.
    """

    origin: str
    family: str
    num_layers: int | None = None
    hidden_size: int | None = None
    num_heads: int | None = None
    num_kv_heads: int | None = None
    head_dim: int | None = None
    intermediate_size: int | None = None
    vocab_size: int | None = None
    norm_eps: float | None = None
    rope: RopeSettings | None = None
    theta: float | None = None
    scaled_rope: bool = False
    max_positions: int | None = None
    sliding_window: int | None = None
    tied: bool | None = None
    tokens: TokenIds | None = None
    width_rule: tuple[int, float | None] | None = None
    dtype: str = ""  # torch's name of the weights' dtype; empty if not said


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model, fully stated."""

    family: str
    geometry: Geometry
    rope: RopeSettings
    norm_eps: float
    max_positions: int
    sliding_window: int | None
    tied: bool
    dtype: DType  # of the attention projections
    tokens: TokenIds


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something that was inferred, repaired, dropped or left out: nothing is guessed silently."""

    kind: str  # inferred, repaired, dropped, drift, not-copied, kept, own-code
    text: str
