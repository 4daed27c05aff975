"""Reading pickled annotations without running what is in them.

An ordinary ``pickle.load`` calls whatever the file names. Here only plain containers, strings, numbers and arrays of
numbers come out; any other name in the file is an error, and nothing of it is imported.
"""

from __future__ import annotations

import collections
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from segearth.errors import DatasetError


def load_plain_pickle(path: str | Path) -> Any:
    """Reads a pickle that holds nothing but dicts, lists, tuples, sets, strings, bytes, numbers, arrays and ``None``.

    Args:
        path: The file. Files written by Python 2 are read as Latin-1. NumPy scalars come back as Python numbers;
            arrays of numbers are found in dicts, lists and tuples.

    Raises:
        DatasetError: The file is missing, damaged, or names anything beyond plain data.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _with_arrays(_PlainUnpickler(file, encoding="latin1").load())
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    except _ForbiddenNameError as error:
        raise DatasetError(f"{path}: refused, it names {error}; only plain data is read, nothing was run") from error
    except Exception as error:  # a damaged pickle raises almost anything
        raise DatasetError(f"{path}: damaged or not a pickle ({error}); fetch it again") from error


class _ForbiddenNameError(Exception):
    pass


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        allowed = _ALLOWED.get(("builtins" if module == "__builtin__" else module, name))  # Python 2's name of it
        if allowed is None:
            raise _ForbiddenNameError(f"{module}.{name}")
        return allowed


class _Dtype:
    """Stands in for ``numpy.dtype``, whose real one takes arbitrary state from the file."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"[biufc?]\d{0,2}", code):
            raise _ForbiddenNameError(f"numpy dtype {code!r}")
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        byte_order = {"<": "<", ">": ">"}.get(state[1], "=")
        self.code = byte_order + self.code


def _scalar(dtype: _Dtype, data: bytes | str) -> int | float | complex | bool:
    raw = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(raw, np.dtype(dtype.code), count=1)[0].item()


class _Array:
    """Stands in for ``numpy.ndarray``, whose real one takes arbitrary state from the file."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
        flat = np.frombuffer(raw, np.dtype(dtype.code)).copy()  # a buffer of bytes cannot be written to
        self.value = flat.reshape(shape, order="F" if fortran else "C")


def _reconstruct(kind: type, *_: object) -> _Array:
    """Stands in for NumPy's maker of empty arrays, which the file then fills by ``__setstate__``."""
    return _Array()


def _from_buffer(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    """Stands in for what protocol 5 writes arrays with."""
    return np.frombuffer(bytes(data), np.dtype(dtype.code)).copy().reshape(shape, order="F" if order == "F" else "C")


def _with_arrays(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        for key in value:
            value[key] = _with_arrays(value[key])
    elif isinstance(value, list):
        value[:] = [_with_arrays(item) for item in value]
    elif isinstance(value, tuple):
        return tuple(_with_arrays(item) for item in value)
    return value


def _encode(text: str, encoding: str) -> bytes:
    """Stands in for ``_codecs.encode``, which protocol 2 uses to write bytes."""
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    """Stands in for ``bytes``, which old protocols call without arguments to write empty ones."""
    return b""


_ALLOWED: dict[tuple[str, str], Any] = {
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "complex"): complex,
    ("builtins", "bytes"): _empty_bytes,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
}
