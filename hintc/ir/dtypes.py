"""Element types, numbered as in tensorflow/core/framework/types.proto (`DataType`)."""

from __future__ import annotations

import enum

import numpy as np

from hintc.errors import HintcError

_REF_OFFSET = 100


class DType(enum.IntEnum):
    """An element type. The value is TensorFlow's enum number; references are number + 100."""

    INVALID = 0
    FLOAT = 1
    DOUBLE = 2
    INT32 = 3
    UINT8 = 4
    INT16 = 5
    INT8 = 6
    STRING = 7
    COMPLEX64 = 8
    INT64 = 9
    BOOL = 10
    QINT8 = 11
    QUINT8 = 12
    QINT32 = 13
    BFLOAT16 = 14
    QINT16 = 15
    QUINT16 = 16
    UINT16 = 17
    COMPLEX128 = 18
    HALF = 19
    RESOURCE = 20
    VARIANT = 21
    UINT32 = 22
    UINT64 = 23
    FLOAT8_E5M2 = 24
    FLOAT8_E4M3FN = 25
    FLOAT8_E4M3FNUZ = 26
    FLOAT8_E4M3B11FNUZ = 27
    FLOAT8_E5M2FNUZ = 28
    INT4 = 29
    UINT4 = 30
    INT2 = 31
    UINT2 = 32
    FLOAT_REF = 101
    DOUBLE_REF = 102
    INT32_REF = 103
    UINT8_REF = 104
    INT16_REF = 105
    INT8_REF = 106
    STRING_REF = 107
    COMPLEX64_REF = 108
    INT64_REF = 109
    BOOL_REF = 110
    QINT8_REF = 111
    QUINT8_REF = 112
    QINT32_REF = 113
    BFLOAT16_REF = 114
    QINT16_REF = 115
    QUINT16_REF = 116
    UINT16_REF = 117
    COMPLEX128_REF = 118
    HALF_REF = 119
    RESOURCE_REF = 120
    VARIANT_REF = 121
    UINT32_REF = 122
    UINT64_REF = 123
    FLOAT8_E5M2_REF = 124
    FLOAT8_E4M3FN_REF = 125
    FLOAT8_E4M3FNUZ_REF = 126
    FLOAT8_E4M3B11FNUZ_REF = 127
    FLOAT8_E5M2FNUZ_REF = 128
    INT4_REF = 129
    UINT4_REF = 130
    INT2_REF = 131
    UINT2_REF = 132

    @property
    def is_ref(self) -> bool:
        """True for the type of a TF1 reference variable."""
        return self > _REF_OFFSET

    @property
    def base(self) -> DType:
        """The type without its reference mark."""
        return DType(self - _REF_OFFSET) if self.is_ref else self

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The NumPy dtype that holds such elements; strings are object arrays of bytes.

        Raises:
            HintcError: the type has no NumPy form that hintc reads (resource, variant, quantised).
        """
        name = _NUMPY_NAMES.get(self.base)
        if name is None:
            raise HintcError(f"elements of type {self.name} cannot be read as an array")
        return np.dtype(name)

    @classmethod
    def of(cls, dtype: np.dtype[np.generic] | type[np.generic] | str) -> DType:
        """The DType of a NumPy dtype.

        Raises:
            HintcError: TensorFlow has no such element type.
        """
        wanted = np.dtype(dtype)
        found = _FROM_NUMPY.get(wanted.name)
        if found is None and wanted.kind in "SUO":
            found = cls.STRING
        if found is None:
            raise HintcError(f"TensorFlow has no element type for NumPy's {wanted}")
        return found


_NUMPY_NAMES: dict[DType, str] = {
    DType.FLOAT: "float32",
    DType.DOUBLE: "float64",
    DType.INT32: "int32",
    DType.UINT8: "uint8",
    DType.INT16: "int16",
    DType.INT8: "int8",
    DType.STRING: "object",
    DType.COMPLEX64: "complex64",
    DType.INT64: "int64",
    DType.BOOL: "bool",
    DType.UINT16: "uint16",
    DType.COMPLEX128: "complex128",
    DType.HALF: "float16",
    DType.UINT32: "uint32",
    DType.UINT64: "uint64",
}
_FROM_NUMPY: dict[str, DType] = {
    "bfloat16": DType.BFLOAT16,
    **{name: dtype for dtype, name in _NUMPY_NAMES.items() if dtype is not DType.STRING},
}
