"""Reads pickled annotations without running code from the file.

An ordinary ``pickle.load`` calls any function that the file names, so a file from the internet could do anything. Here
only plain containers, strings, numbers and arrays of numbers are read. Any other name in the file is an error, and it
is not imported. A file can neither change how a later file is read, nor make the reader use much more memory than the
file is large.
"""

from __future__ import annotations

import collections
import math
import pickle
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from segearth.errors import DatasetError

MAX_DIMS = 32


def load_plain_pickle(path: str | Path) -> Any:
    """Reads a pickle that holds nothing but dicts, lists, tuples, sets, strings, bytes, numbers, arrays and ``None``.

    Args:
        path: The file. Files written by Python 2 are read as Latin-1. NumPy scalars come back as Python numbers. Keys
            of dicts and members of sets are strings, bytes, numbers, ``None``, or tuples of these.

    Raises:
        DatasetError: The file is missing, damaged, or names anything beyond plain data.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, path.stat().st_size).load()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    except _RefusedError as error:
        raise DatasetError(f"{path}: refused, {error}; only plain data is read, nothing was run") from error
    except Exception as error:  # a damaged pickle raises almost anything
        reason = str(error)[:200] or type(error).__name__
        raise DatasetError(f"{path}: damaged or not a pickle ({reason}); fetch it again") from error


class _RefusedError(Exception):
    pass


class _PlainUnpickler(pickle._Unpickler):
    """The unpickler that is written in Python.

    The one written in C is faster, but it cannot be kept from setting attributes of objects, nor from reserving
    gigabytes for its table of objects that the file refers back to.
    """

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]

    def __init__(self, file: Any, size: int) -> None:
        super().__init__(file, encoding="latin1")
        # Twice the size, because in protocol 2 the bytes of an array are charged when they are decoded and again when
        # they fill the array.
        self._allowance = 2 * size

    def find_class(self, module: str, name: str) -> Any:
        qualified = "builtins" if module == "__builtin__" else module, name  # Python 2 calls the module __builtin__
        if qualified not in _ALLOWED:
            raise _RefusedError(f"it names {ascii(f'{module}.{name}')[1:-1][:200]}")
        return _ALLOWED[qualified]

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self._charge(max((len(value) for value in arguments if hasattr(value, "__len__")), default=0))
        self.stack[-1] = self.stack[-1](*arguments)

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, np.ndarray):
            _, shape, dtype, fortran, data = state
            self._charge(len(data))
            _fill(target, shape, dtype, fortran, data)
        elif isinstance(target, _Dtype):
            target.order = state[1]
        elif not isinstance(target, collections.OrderedDict):  # torch sets attributes of these; they are not needed
            raise _RefusedError(f"it sets attributes of a {type(target).__name__}")

    def load_append(self) -> None:
        value = self.stack.pop()
        _typed(self.stack[-1], list).append(value)

    def load_appends(self) -> None:
        items = self.pop_mark()
        _typed(self.stack[-1], list).extend(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _typed(self.stack[-1], dict)[_key(key)] = value

    def load_setitems(self) -> None:
        items = self.pop_mark()
        _typed(self.stack[-1], dict).update(_pairs(items))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.stack.append(dict(_pairs(items)))

    def load_additems(self) -> None:
        items = self.pop_mark()
        _typed(self.stack[-1], set).update(map(_key, items))

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self.stack.append(frozenset(map(_key, items)))

    def load_bytearray8(self) -> None:
        # The original allocates as many bytes as the file states before it reads them, however many that are.
        self.stack.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    def refuse(self) -> None:
        raise _RefusedError("it makes objects or refers to data elsewhere")

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
        pickle.APPEND[0]: load_append,
        pickle.APPENDS[0]: load_appends,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.BYTEARRAY8[0]: load_bytearray8,
        **dict.fromkeys(
            b"".join([
                pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.PERSID, pickle.BINPERSID,
                pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER,
            ]),
            refuse,
        ),
    }  # fmt: skip

    def _charge(self, length: int) -> None:
        """Counts data that is copied, and refuses a file that has the same part copied again and again."""
        self._allowance -= length
        if self._allowance < 0:
            raise _RefusedError("it asks for more data than it holds")


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__} where a {kind.__name__} should be")
    return value


def _key(value: Any) -> Any:
    """Checks the key of a dict: hashing deeply nested tuples could take forever or overflow the interpreter's stack."""
    if type(value) not in _SCALARS and not (type(value) is tuple and all(type(part) in _SCALARS for part in value)):
        raise _RefusedError(f"a key is a {type(value).__name__} of no plain values")
    return value


def _pairs(items: list[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(map(_key, items[::2]), items[1::2], strict=True)


class _Dtype:
    """Takes the place of ``numpy.dtype``, which would accept any state that the file holds."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"b1|[iu][1248]|f[248]|f16|c8|c16|c32", code):
            raise _RefusedError(f"it names numpy dtype {ascii(code)[:200]}")
        self.code = code
        self.order: Any = "="

    def real(self) -> np.dtype:
        return np.dtype((self.order if self.order in ("<", ">") else "=") + self.code)


def _bytes(data: Any) -> bytes:
    if isinstance(data, str):
        return data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)):  # given a number, bytes() would make so many zeros
        raise TypeError(f"data of an array is of type {type(data).__name__}")
    return bytes(data)


def _fill(array: np.ndarray, shape: Any, dtype: _Dtype, fortran: Any, data: Any) -> None:
    raw, real = _bytes(data), dtype.real()
    if type(shape) is not tuple or len(shape) > MAX_DIMS:
        raise ValueError("the shape of an array is no short tuple")
    if any(type(length) is not int or not 0 <= length <= 1 << 60 for length in shape):
        raise ValueError("the shape of an array holds something else than lengths")
    if math.prod(shape) * real.itemsize != len(raw):
        raise ValueError(f"an array of shape {shape} and {real} has {len(raw)} bytes")
    # NumPy brings the bytes into the order that this machine uses.
    array.__setstate__((1, shape, real, bool(fortran), raw))  # type: ignore[arg-type]


def _scalar(dtype: _Dtype, data: Any) -> int | float | complex | bool:
    return np.frombuffer(_bytes(data), dtype.real(), count=1)[0].item()


def _reconstruct(*_: object) -> np.ndarray:
    """Takes the place of NumPy's function that makes an empty array, which :func:`_fill` fills afterwards."""
    return np.empty(0)


def _from_buffer(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    """Takes the place of the function with which protocol 5 writes arrays."""
    array = np.empty(0)
    _fill(array, shape, dtype, order == "F", data)
    return array


def _encode(text: str, encoding: str) -> bytes:
    """Takes the place of ``_codecs.encode``, with which protocol 2 writes bytes."""
    return _typed(text, str).encode("latin1")


def _empty_bytes() -> bytes:
    """Takes the place of ``bytes``, which old protocols call without arguments to write an empty one."""
    return b""


def _set(items: Iterable[Any] = ()) -> set[Any]:
    return set(map(_key, items))


def _frozenset(items: Iterable[Any] = ()) -> frozenset[Any]:
    return frozenset(map(_key, items))


def _ordered(pairs: Iterable[tuple[Any, Any]] = ()) -> collections.OrderedDict[Any, Any]:
    return collections.OrderedDict((_key(key), value) for key, value in pairs)


def _complex(real: float, imaginary: float) -> complex:
    return complex(real, imaginary)


_SCALARS = {str, bytes, int, float, complex, bool, type(None)}
_ALLOWED: dict[tuple[str, str], Any] = {
    ("builtins", "set"): _set,
    ("builtins", "frozenset"): _frozenset,
    ("builtins", "complex"): _complex,
    ("builtins", "bytes"): _empty_bytes,
    ("collections", "OrderedDict"): _ordered,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy", "ndarray"): "ndarray",  # the class is an argument of _reconstruct and is not used there
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
}
