"""What each column of a dataset of the library `datasets` is in a sample, and the other way.

A column is described by plain data, which is kept with the samples: an export needs it.
"""

import base64
import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from prefect_pipestream.errors import DatasetError, MissingExtraError, SampleError
from prefect_pipestream.sequences.sources.named_keys import key_like

if TYPE_CHECKING:
    import pyarrow

HF = "hf"
"""The key of the shared item that describes the columns."""

OWN_FACTS = frozenset({"name", "file", "origin", "split", "label", "label_id", "paths"})
"""The fields of metadata that an import makes itself."""

Role = Literal["file", "files", "array", "label", "plain"]


def datasets() -> Any:
    """The library.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import datasets

        datasets.Features  # noqa: B018 # a folder called `datasets` is imported, too, as nothing
    except (ImportError, AttributeError) as error:
        raise MissingExtraError(
            "saved datasets of Hugging Face need datasets: pip install 'prefect-pipestream[hf]'."
        ) from error
    return datasets


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: Its name.
        role: What it holds: a file (bytes and path) or several, an array of fixed shape, the
            class, or plain data.
        key: The key of its item, of several without their numbers; of plain data the field of the
            metadata.
    """

    name: str
    role: Role
    key: str

    def described(self) -> dict[str, str]:
        """What is kept of it."""
        return asdict(self)


def columns_of(
    features: Mapping[str, Any],
    *,
    keys: Mapping[str, str],
    image_key: str,
    label_column: str | None,
    taken: Collection[str],
) -> list[Column]:
    """Tells what each column is to be.

    The column of images that is called so is the image, else the first of them; the first one of
    classes is the label.

    Args:
        features: The features of the columns.
        keys: Keys that the user gave to columns.
        image_key: The key of the image.
        label_column: The column that is the label.
        taken: Keys that no item can have.

    Raises:
        DatasetError: If a column cannot be brought into a sample.
    """
    columns: list[Column] = []
    used_keys, used_facts = {*taken, *keys.values()}, {*OWN_FACTS, *keys.values()}
    labels = [name for name, feature in features.items() if _type_of(feature) == "ClassLabel"]
    if label_column is not None and label_column not in labels:
        raise DatasetError(
            f"the column {label_column!r} is none of classes. Those are: {', '.join(labels)}."
        )
    label = label_column or next(iter(labels), None)
    images = [name for name, feature in features.items() if _type_of(feature) == "Image"]
    image = image_key if image_key in images else next(iter(images), None)
    for name, feature in features.items():
        role: Role = "label" if name == label else _role_of(name, feature)
        used = used_facts if role == "plain" else used_keys
        key = keys.get(name)
        if key is None and name == image and image_key not in used:
            key = image_key
        elif key is None:
            key = name if role == "plain" else key_like(name)
            while key in used:
                key += "_"
        used.add(key)
        columns.append(Column(name, role, key))
    return columns


def _type_of(feature: Any) -> str:
    return str(getattr(feature, "_type", type(feature).__name__))


def _role_of(name: str, feature: Any) -> Role:
    if is_file(feature):
        return "file"
    if is_list(feature) and is_file(feature.feature):
        return "files"
    if _type_of(feature) in ("Array2D", "Array3D", "Array4D", "Array5D"):
        return "array"
    _require_plain(name, feature)
    return "plain"


def is_list(feature: Any) -> bool:
    """Whether a feature is a list of another one."""
    return _type_of(feature) in ("List", "LargeList")


def is_file(feature: Any) -> bool:
    """Whether a feature is a file, decoded by the library: an image, a sound, a film, …"""
    kind = getattr(feature, "pa_type", None)
    return hasattr(feature, "decode") and "struct<bytes" in str(kind)


def _require_plain(name: str, feature: Any) -> None:
    parts: Sequence[Any] = ()
    if isinstance(feature, Mapping):
        parts = list(feature.values())
    elif is_list(feature):
        parts = [feature.feature]
    elif _type_of(feature) not in ("Value", "ClassLabel", "Json", "Translation"):
        raise DatasetError(
            f"the column {name!r} has {_type_of(feature)} within lists or mappings, which is no "
            f"item and no metadata. Leave it out: leave_out={[name]!r}."
        )
    elif _type_of(feature) == "Value":
        _form_of(feature.pa_type)
    for part in parts:
        _require_plain(name, part)


# -- values that JSON has, and others -------------------------------------------------------


def plain(feature: Any, value: Any) -> Any:
    """A value of a column as JSON has it: times as text, bytes in base64.

    Raises:
        SampleError: If it cannot be.
    """
    if value is None:
        return None
    if isinstance(feature, Mapping):
        return {name: plain(part, value.get(name)) for name, part in feature.items()}
    if is_list(feature):
        return [plain(feature.feature, one) for one in value]
    if _type_of(feature) != "Value":
        return value
    form = _form_of(feature.pa_type)
    if form is None:
        return value
    if form == "base64":
        return base64.b64encode(value).decode("ascii")
    import pyarrow

    scalar = pyarrow.scalar(value, feature.pa_type)
    return scalar.cast(getattr(pyarrow, form)()).as_py()


def from_plain(feature: Any, value: Any) -> Any:
    """The value that `plain` made this of, as the library takes it.

    Raises:
        ValueError, TypeError, AttributeError: If it is none of this feature.
    """
    if value is None:
        return None
    if isinstance(feature, Mapping):
        return {name: from_plain(part, value.get(name)) for name, part in feature.items()}
    if is_list(feature):
        if not isinstance(value, list):
            raise TypeError(f"{value!r} is no list")
        return [from_plain(feature.feature, one) for one in value]
    if _type_of(feature) == "Json":
        return json.dumps(value)
    if _type_of(feature) != "Value":
        return value
    form = _form_of(feature.pa_type)
    if form is None:
        return value
    if form == "base64":
        return base64.b64decode(value, validate=True)
    import pyarrow

    return pyarrow.scalar(value, getattr(pyarrow, form)()).cast(feature.pa_type).as_py()


def _form_of(kind: "pyarrow.DataType") -> str | None:
    """How a type that JSON lacks is written: a type of pyarrow, or base64; None: as it is."""
    from pyarrow import types

    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return "base64"
    if types.is_timestamp(kind) or types.is_date(kind) or types.is_decimal(kind):
        return "string"
    if types.is_time32(kind):
        return "int32"
    if types.is_time64(kind) or types.is_duration(kind):
        return "int64"
    return None


def array_bytes(feature: Any, value: Any) -> bytes:
    """The content of an `.npy` file of an array of a column."""
    stream = io.BytesIO()
    np.save(stream, np.asarray(value, dtype=feature.dtype), allow_pickle=False)
    return stream.getvalue()


def class_name(feature: Any, number: int | None) -> str | None:
    """The name of a class by its number; None of none, as -1 is."""
    if number is None or not 0 <= number < feature.num_classes:
        return None
    return str(feature.names[number])


# -- what an export needs -------------------------------------------------------------------


def description(features: Any, columns: Sequence[Column]) -> dict[str, Any]:
    """What the shared item says of the columns."""
    return {
        "features": features.to_dict(),
        "columns": [column.described() for column in columns],
    }


def described(value: Any) -> tuple[Any, list[Column]]:
    """The features and columns that `description` says.

    Raises:
        SampleError: If it says none.
    """
    try:
        features = datasets().Features.from_dict(value["features"])
        columns = [Column(**column) for column in value["columns"]]
        if [column.name for column in columns] != list(features):
            raise ValueError("features and columns differ")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SampleError(
            f"the shared item {HF!r} does not describe columns ({error}). Remove it, and the "
            "columns are told by what the samples have."
        ) from error
    return features, columns


def extension_by_content(start: bytes, path: str | None) -> str:
    """The extension that fits the first 32 bytes of a file; that of its path, if they agree."""
    was = "" if path is None else _extension(path)
    found = next(iter(_extensions_for(start)), None)
    if found is None:
        return was or ".bin"
    return was if was.lower() in _extensions_for(start) else found


def _extension(path: str) -> str:
    name = path.rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    return dot + extension if stem and extension.isalnum() else ""


def _extensions_for(start: bytes) -> list[str]:
    return [one for magic, ones in _matching(start) for one in ones]


def _matching(start: bytes) -> Iterator[tuple[bytes, tuple[str, ...]]]:
    for offset, magic, ones in _MAGIC:
        if start[offset : offset + len(magic)] == magic:
            yield magic, ones


_MAGIC: tuple[tuple[int, bytes, tuple[str, ...]], ...] = (
    (0, b"\xff\xd8\xff", (".jpg", ".jpeg")),
    (0, b"\x89PNG\r\n\x1a\n", (".png", ".apng")),
    (0, b"GIF8", (".gif",)),
    (0, b"BM", (".bmp",)),
    (0, b"II*\0", (".tif", ".tiff")),
    (0, b"MM\0*", (".tif", ".tiff")),
    (8, b"WEBP", (".webp",)),
    (4, b"jP  \r\n\x87\n", (".jp2",)),
    (0, b"\xff\x4f\xff\x51", (".j2k", ".j2c", ".jp2")),
    (4, b"ftypavif", (".avif",)),
    (4, b"ftyphei", (".heic", ".heif")),
    (4, b"ftypmif1", (".heif", ".heic")),
    (0, b"\xff\x0a", (".jxl",)),
    (4, b"JXL \r\n\x87\n", (".jxl",)),
    (0, b"v/1\x01", (".exr",)),
    (0, b"#?RADIANCE", (".hdr",)),
    (0, b"fLaC", (".flac",)),
    (8, b"WAVE", (".wav",)),
    (0, b"%PDF", (".pdf",)),
)
