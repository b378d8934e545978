"""Items that hold numpy arrays outside of image formats: `.npy` and text."""

import math
import os
import re
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from prefect_pipestream.errors import DecodeError, EncodeError
from prefect_pipestream.items.base import Item
from prefect_pipestream.items.opaque import require_unpickling

Array = NDArray[Any]

_TEXT_FORMATS = {"b": "%d", "i": "%d", "u": "%d", "f": "%.18e"}
_LINE_WITH_CONTENT = re.compile(rb"^[^\S\n]*[^#\s]", re.MULTILINE)


class NumpyItem(Item[Array]):
    """A numpy array; anything that `numpy.asarray` takes, but text, is a value."""

    __slots__ = ()

    @classmethod
    def validate(cls, value: Any) -> Array:
        """Returns the value as an array, without a copy where it is one."""
        if isinstance(value, np.ndarray):
            return value
        if isinstance(value, (str, bytes, os.PathLike)):
            raise EncodeError(
                f"{cls.__name__} holds an array, not {type(value).__name__} {value!r}. "
                "To name a file, give a pathlib.Path."
            )
        try:
            array = np.asarray(value)
        except (ValueError, TypeError) as error:
            raise EncodeError(
                f"{cls.__name__}: {type(value).__name__} is no array ({error})."
            ) from error
        if array.dtype.hasobject:
            raise EncodeError(
                f"{cls.__name__} holds an array, not {type(value).__name__}. "
                "Give an array of dtype object if that is meant."
            )
        return array

    @classmethod
    def default_concrete(cls) -> type[Item[Any]]:
        """Returns the class itself, or `NpyNumpyItem` for the abstract ones."""
        return cls if "file_extensions" in cls.__dict__ else NpyNumpyItem


class NumpyRawItem(NumpyItem):
    """A numpy array of any shape and meaning, other than an image."""

    __slots__ = ()


class NpyNumpyItem(NumpyRawItem):
    """An array of any shape and dtype in numpy's own format.

    One of dtype object is pickled, and decodes only where unpickling is allowed.
    """

    __slots__ = ()

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.npy`."""
        return (".npy",)

    @classmethod
    def decode(cls, stream: BinaryIO) -> Array:
        """Reads the array, checking first that the file holds as much as its header tells."""
        data = stream.read()
        stream.seek(0)
        version = npy.read_magic(stream)
        if version == (3, 0):  # field names outside of Latin-1; numpy has no public reader for it
            stream.seek(0)
            return np.asarray(npy.read_array(stream, allow_pickle=False))
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran_order, dtype = read_header(stream)
        if dtype.hasobject:
            require_unpickling("an array of Python objects")
            stream.seek(0)
            return np.asarray(npy.read_array(stream, allow_pickle=True))
        content = memoryview(data)[stream.tell() :]
        expected = math.prod(shape) * dtype.itemsize
        if len(content) < expected:
            raise DecodeError(
                f"the file is truncated: an array of {dtype} with shape {shape} takes {expected} "
                f"bytes, {len(content)} are there. Restore the file or remove it."
            )
        buffer = bytearray(content[:expected])
        return np.ndarray(shape, dtype, buffer, order="F" if fortran_order else "C")

    @classmethod
    def encode(cls, value: Array, stream: BinaryIO) -> None:
        """Writes the array as `numpy.save` does."""
        npy.write_array(stream, np.asanyarray(value))


class TxtNumpyItem(NumpyRawItem):
    """A 1-D or 2-D array as text, one row a line; a single number is an array of one.

    Integers and booleans are written as `%d`, floats as `%.18e`. Read back it is float64 and at
    least 1-D; an array of a single row or column is 1-D.
    """

    __slots__ = ()

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.txt`."""
        return (".txt",)

    @classmethod
    def validate(cls, value: Any) -> Array:
        """Returns the value as an array of at least one dimension, as it is read back."""
        return np.atleast_1d(super().validate(value))

    @classmethod
    def decode(cls, stream: BinaryIO) -> Array:
        """Reads the rows; text after a `#` is a comment."""
        if not _LINE_WITH_CONTENT.search(stream.read()):
            return np.empty((0,))
        stream.seek(0)
        return np.atleast_1d(np.loadtxt(stream))

    @classmethod
    def encode(cls, value: Array, stream: BinaryIO) -> None:
        """Writes one row a line, as `numpy.savetxt` does."""
        array = np.atleast_1d(value)
        number = _TEXT_FORMATS.get(array.dtype.kind)
        if number is None or array.ndim > 2:
            raise EncodeError(
                f"{cls.__name__} holds numbers in at most 2 dimensions, not {array.dtype} with "
                f"shape {array.shape}. Use NpyNumpyItem for it."
            )
        if not array.size:
            # An empty file would be indistinguishable from one whose content was lost.
            stream.write(b"# empty\n")
            return
        rows = array.tolist() if array.ndim == 2 else [(number,) for number in array.tolist()]
        line = " ".join([number] * len(rows[0])) + "\n"
        stream.write("".join([line % tuple(row) for row in rows]).encode("ascii"))
