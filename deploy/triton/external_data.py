"""The files beside an ONNX model that hold its weights, found without the onnx package.

Walks the protobuf wire format (protobuf.dev/programming-guides/encoding) down the fields of
onnx.proto: ModelProto.graph 7, GraphProto.initializer 5, TensorProto.external_data 13, whose
entries are keys 1 and values 2.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from deploy.triton.errors import TritonError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH, _INITIALIZER, _EXTERNAL = 7, 5, 13


def external_files(path: Path) -> list[str]:
    """Names, relative to the model's folder; raises TritonError when one is missing."""
    if not path.stat().st_size:
        raise TritonError(f"{path} is empty: give an ONNX model")
    found: dict[str, None] = {}
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for graph in _fields(data, 0, len(data), _GRAPH):
                for initializer in _fields(data, *graph, _INITIALIZER):
                    for entry in _fields(data, *initializer, _EXTERNAL):
                        key, value = (_text(data, *entry, number) for number in (1, 2))
                        if key == "location":
                            found[value] = None
    except (IndexError, UnicodeDecodeError) as error:
        raise TritonError(f"{path} is damaged or not an ONNX model: copy it again") from error
    for name in found:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise TritonError(f"{path} keeps weights outside of its folder ({name}): save it anew")
        if not (path.parent / name).is_file():
            raise TritonError(f"{path.parent} lacks {name}, where the model's weights are")
    return list(found)


def _fields(data: mmap.mmap, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Where the length-delimited fields of this number lie, as (start, end)."""
    at = start
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == _BYTES:
            size, at = _varint(data, at)
            if at + size > end:
                raise IndexError
            if number == wanted:
                yield at, at + size
            at += size
        elif wire == _VARINT:
            _, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise IndexError


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _text(data: mmap.mmap, start: int, end: int, number: int) -> str:
    return "".join(data[a:b].decode() for a, b in _fields(data, start, end, number))
