"""What a safetensors header says and how torch says it: dtypes, shapes, ties; without importing torch."""

from __future__ import annotations

ITEM_BYTES: dict[str, int] = {
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "uint16": 2,
    "int16": 2,
    "uint32": 4,
    "int32": 4,
    "uint64": 8,
    "int64": 8,
    "float4_e2m1fn_x2": 1,
    "float8_e4m3fn": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "complex32": 4,
    "complex64": 8,
    "complex128": 16,
}
"""Bytes of one element, for every dtype that a checkpoint may hold."""

SAFETENSORS_CODES: dict[str, str] = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float4_e2m1fn_x2": "F4",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2": "F8_E5M2",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
}
"""The code of a dtype in a safetensors header; a dtype that is missing here cannot be in such a file."""

TORCH_NAMES: dict[str, str] = {code: name for name, code in SAFETENSORS_CODES.items()}
"""The other direction of `SAFETENSORS_CODES`."""

TIES_KEY = "tersor.ties"
"""Metadata key of a JSON object that maps each tied name to the name of the tensor that it repeats."""

_PACKED = "float4_e2m1fn_x2"  # one torch element is a byte with two values; safetensors counts the values


def to_header_shape(dtype: str, shape: tuple[int, ...]) -> list[int]:
    """The shape that a safetensors header gives to a tensor of torch's `shape`.

    Raises:
        ValueError: a 0-d tensor of packed values, which has no axis to count them on.
    """
    if dtype != _PACKED:
        return list(shape)
    if not shape:
        raise ValueError(f"a 0-d tensor of {dtype} has no axis to count its values on")
    return [*shape[:-1], 2 * shape[-1]]


def to_torch_shape(dtype: str, shape: list[int]) -> tuple[int, ...]:
    """The shape that torch gives to a tensor whose safetensors header says `shape`.

    Raises:
        ValueError: packed values whose last axis is not a whole number of bytes.
    """
    if dtype != _PACKED:
        return tuple(shape)
    if not shape or shape[-1] % 2:
        raise ValueError(f"shape {shape} of {dtype} is not a whole number of bytes")
    return (*shape[:-1], shape[-1] // 2)
