"""Number formats of stored tensors: their spellings on disk and their sizes. Nothing here casts."""

from __future__ import annotations

from enum import Enum


class DType(Enum):
    """A stored number format; the value is safetensors' spelling."""

    BOOL = "BOOL"
    U8 = "U8"
    I8 = "I8"
    F8_E4M3 = "F8_E4M3"
    F8_E5M2 = "F8_E5M2"
    F8_E8M0 = "F8_E8M0"
    I16 = "I16"
    U16 = "U16"
    F16 = "F16"
    BF16 = "BF16"
    I32 = "I32"
    U32 = "U32"
    F32 = "F32"
    I64 = "I64"
    U64 = "U64"
    F64 = "F64"

    @property
    def nbytes(self) -> int:
        """Bytes of one element."""
        return _NBYTES[self]

    @property
    def torch_name(self) -> str:
        """The attribute of `torch` with this dtype, which is also config.json's spelling."""
        return _TORCH_NAMES[self]


_NBYTES = {
    DType.BOOL: 1,
    DType.U8: 1,
    DType.I8: 1,
    DType.F8_E4M3: 1,
    DType.F8_E5M2: 1,
    DType.F8_E8M0: 1,
    DType.I16: 2,
    DType.U16: 2,
    DType.F16: 2,
    DType.BF16: 2,
    DType.I32: 4,
    DType.U32: 4,
    DType.F32: 4,
    DType.I64: 8,
    DType.U64: 8,
    DType.F64: 8,
}

_TORCH_NAMES = {
    DType.BOOL: "bool",
    DType.U8: "uint8",
    DType.I8: "int8",
    DType.F8_E4M3: "float8_e4m3fn",
    DType.F8_E5M2: "float8_e5m2",
    DType.F8_E8M0: "float8_e8m0fnu",
    DType.I16: "int16",
    DType.U16: "uint16",
    DType.F16: "float16",
    DType.BF16: "bfloat16",
    DType.I32: "int32",
    DType.U32: "uint32",
    DType.F32: "float32",
    DType.I64: "int64",
    DType.U64: "uint64",
    DType.F64: "float64",
}

BY_TORCH_NAME = {name: dtype for dtype, name in _TORCH_NAMES.items()}
