"""Items whose content is taken as it is: raw bytes and Python pickles."""

import pickle
from collections.abc import Sequence
from typing import Any, BinaryIO, ClassVar

from prefect_pipestream.errors import EncodeError, UnpicklingNotAllowedError
from prefect_pipestream.items import settings
from prefect_pipestream.items.base import Item


class BinaryItem(Item[bytes]):
    """Raw bytes."""

    __slots__ = ()
    may_be_empty: ClassVar[bool] = True

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.bin`."""
        return (".bin",)

    @classmethod
    def decode(cls, stream: BinaryIO) -> bytes:
        """Reads all bytes."""
        return stream.read()

    @classmethod
    def encode(cls, value: bytes, stream: BinaryIO) -> None:
        """Writes the bytes."""
        stream.write(value)

    @classmethod
    def validate(cls, value: Any) -> bytes:
        """Returns bytes, a bytearray or a memoryview as bytes."""
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise EncodeError(f"{cls.__name__} holds bytes, not {type(value).__name__}.")
        return bytes(value)


class PickleItem(Item[Any]):
    """Any Python object that can be pickled.

    Unpickling runs code, so it decodes only inside `with allow_unpickling():`, or if the item
    was made with `allow_pickle=True`.
    """

    __slots__ = ()

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.pkl` and `.pickle`."""
        return (".pkl", ".pickle")

    @classmethod
    def decode(cls, stream: BinaryIO) -> Any:
        """Unpickles the value where that is allowed."""
        require_unpickling("a pickle")
        return pickle.load(stream)

    @classmethod
    def encode(cls, value: Any, stream: BinaryIO) -> None:
        """Pickles the value."""
        pickle.dump(value, stream)


def require_unpickling(what: str) -> None:
    """Raises `UnpicklingNotAllowedError` where the caller has not allowed pickles."""
    if not settings.is_unpickling_allowed():
        raise UnpicklingNotAllowedError(
            f"is {what}, and unpickling runs code. If you trust where it comes from, open the "
            "dataset with allow_pickle=True or decode inside `with allow_unpickling():`."
        )
