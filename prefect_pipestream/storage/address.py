"""Addresses of datasets in object stores, such as ``s3://bucket/datasets/parts``."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from prefect_pipestream.errors import DatasetError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

SCHEMES = ("s3", "gs", "az", "memory")
"""The schemes of addresses: Amazon S3 and what speaks like it, Google, Azure; a process' memory."""

_KNOWN = "s3a?|gc?s|azure|abfss?|az|memory"
# Characters that would be others, or none, once they are part of a URL.
_NONE_OF = r"?#\\\x00-\x1f\x7f"
# One slash as well: that is what a `Path` makes of an address.
_FORM = re.compile(rf"({_KNOWN}):/{{1,2}}([^/{_NONE_OF}]+)(?:/([^{_NONE_OF}]*))?")
_MEANT = re.compile(rf"\s*([a-z][a-z0-9+.-]*://|({_KNOWN}):)", re.IGNORECASE)
_MEANT_AS_PATH = re.compile(rf"\s*([a-z][a-z0-9+.-]+:/|({_KNOWN}):)", re.I)  # no drive of Windows
_ONE_SLASH = re.compile(r"(?<=:)/(?!/)")
_SAME = {"s3a": "s3", "gcs": "gs", "azure": "az", "abfs": "az", "abfss": "az"}


class Address(str):
    """The address of a dataset, or of a file of it: ``<scheme>://<bucket>/<key>``."""

    __slots__ = ()

    @classmethod
    def of(cls, text: "str | os.PathLike[str]") -> "Address":
        """The address that a text is.

        Raises:
            DatasetError: If it is none, or has `.` or `..` in it.
        """
        given = os.fspath(text)
        match = _FORM.fullmatch(given)
        parts = [part for part in (match[3] or "").split("/") if part] if match else []
        if match is None or {".", ".."}.intersection(parts):
            typed = given if isinstance(text, str) else _ONE_SLASH.sub("//", given, count=1)
            raise DatasetError(
                f"{typed!r} is no address of a dataset: expected <scheme>://<bucket>/<path>, where "
                f"the scheme is one of {', '.join(SCHEMES[:-1])}, and the path has no `?`, `#` or "
                "`\\`, and no part that is `.` or `..`."
            )
        return cls("/".join([f"{_SAME.get(match[1], match[1])}://{match[2]}", *parts]))

    @property
    def bucket(self) -> str:
        """The bucket, with the scheme."""
        return "/".join(self.split("/")[:3])

    @property
    def key(self) -> str:
        """The path in the bucket: no slash before or after it."""
        return "/".join(self.split("/")[3:])

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.rpartition("/")[2]

    def __truediv__(self, part: str) -> "Address":
        """The address below this one."""
        return Address(f"{self}/{part}")

    def __reduce__(self) -> tuple[type["Address"], tuple[str]]:
        return Address, (str(self),)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: "GetCoreSchemaHandler"
    ) -> "CoreSchema":
        from pydantic_core import core_schema

        return core_schema.is_instance_schema(
            cls, serialization=core_schema.to_string_ser_schema(when_used="json")
        )


def is_address(text: Any) -> bool:
    """Whether something is the address of an object store, also where it was made a path of."""
    if isinstance(text, Address):
        return True
    return isinstance(text, str | os.PathLike) and _FORM.fullmatch(os.fspath(text)) is not None


def place_of(given: Any) -> Any:
    """An address, where one is given; else what is given.

    Raises:
        DatasetError: If it looks like an address, and is none: it is no folder, either.
    """
    if isinstance(given, str):
        is_meant = _MEANT.match(given) is not None
    else:
        is_meant = isinstance(given, Path) and _MEANT_AS_PATH.match(str(given)) is not None
    return Address.of(given) if is_meant or is_address(given) else given


Place = Path | Address
"""Where a dataset is: a folder, or an address of an object store."""
PlaceField = Annotated[
    Place, BeforeValidator(place_of), WithJsonSchema({"type": "string", "format": "path"})
]
"""The same, as a field of a model: what looks like an address is one."""


def local_folder(place: Place) -> Path:
    """The folder of a dataset, for what can be done with a folder only.

    Raises:
        DatasetError: If it is in an object store.
    """
    if is_address(place):
        raise DatasetError(
            f"{place}: this can be done with a dataset in a folder only. Copy it to one first."
        )
    return Path(place)
