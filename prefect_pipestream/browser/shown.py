"""Items as a page shows them: each as what it is, in plain values."""

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from prefect_pipestream.browser.pictures import SHOWN_SIDE, inline
from prefect_pipestream.errors import PipestreamError
from prefect_pipestream.items import (
    BinaryItem,
    ImageItem,
    Item,
    MetadataItem,
    Model3DItem,
    NumpyItem,
    YamlMetadataItem,
)
from prefect_pipestream.sequences import Sample
from prefect_pipestream.views import thumbnail
from prefect_pipestream.views.mesh_pictures import faces_in

LARGEST_SHOWN = 64 << 20
"""The largest file that is decoded for a page, in bytes; pictures are made of larger ones, too."""

Kind = Literal["image", "array", "mesh", "metadata", "bytes", "other"]

_MOST_ROWS, _MOST_COLUMNS = 50, 20  # of a table
_MOST_TEXT = 200_000  # characters
_MOST_VALUES = 2_000  # in a form
_KINDS: tuple[tuple[type[Item[Any]], Kind], ...] = (
    (ImageItem, "image"),
    (NumpyItem, "array"),
    (Model3DItem, "mesh"),
    (MetadataItem, "metadata"),
    (BinaryItem, "bytes"),
)


class ShownItem(BaseModel):
    """An item of a sample.

    Attributes:
        key: Its key.
        kind: What it is.
        item_class: The name of its class.
        file: The name of its file; None where it has none yet.
        is_shared: Whether all samples share it.
        is_changed: Whether it is another one than on disk.
        facts: What is known of it, in words.
        picture: The address of its picture, 680 pixels at its longer side; None for none.
        text: Metadata as YAML, other text as it is.
        value: Metadata as plain values, for a form; None where it has others than JSON has.
        table: The first rows of an array.
        problem: Why it cannot be shown.
    """

    key: str
    kind: Kind
    item_class: str
    file: str | None
    is_shared: bool
    is_changed: bool = False
    facts: list[str] = []
    picture: str | None = None
    text: str | None = None
    value: Any = None
    table: list[list[Any]] | None = None
    problem: str | None = None


class ShownSample(BaseModel):
    """A sample, its items in order.

    Attributes:
        idx: Its index.
        version: What it was like on disk as it was read; see `Sample.version`.
        items: Its items.
        removed: The keys of items that a save removes.
        left: The keys of other items on disk that it lacks: a save leaves them.
    """

    idx: int
    version: str | None
    items: list[ShownItem]
    removed: list[str] = []
    left: list[str] = []


def kind_of(item: Item[Any]) -> Kind:
    """What an item is shown as."""
    return next((kind for cls, kind in _KINDS if isinstance(item, cls)), "other")


def shown_sample(
    idx: int, sample: Sample, saved: Sample, removed: Sequence[str] = ()
) -> ShownSample:
    """A sample as a page shows it.

    Args:
        idx: Its index.
        sample: The sample, maybe changed.
        saved: The same sample as it is on disk.
        removed: The keys of items that a save removes.
    """
    version = saved.version
    items = [_shown(idx, version, key, item, saved) for key, item in sample.in_order().items()]
    lacking = [key for key in saved if key not in sample]
    return ShownSample(
        idx=idx,
        version=version,
        items=items,
        removed=[key for key in lacking if key in removed],
        left=[key for key in lacking if key not in removed],
    )


def _shown(idx: int, version: str | None, key: str, item: Item[Any], saved: Sample) -> ShownItem:
    source = item.file_sources[0] if item.file_sources else None
    shown = ShownItem(
        key=key,
        kind=kind_of(item),
        item_class=type(item).__name__,
        file=None if source is None else source.path.rpartition("/")[2],
        is_shared=item.is_shared,
        is_changed=saved.get(key) is not item,
    )
    try:
        if is_too_large(item):
            return shown.model_copy(update=_of_large(idx, version, key, shown))
        return shown.model_copy(update=_content(idx, version, key, item, shown))
    except (PipestreamError, OSError) as error:
        return shown.model_copy(update={"problem": str(error)})


def _content(
    idx: int, version: str | None, key: str, item: Item[Any], shown: ShownItem
) -> Mapping[str, Any]:
    """What is in an item.

    Raises:
        PipestreamError: If it cannot be decoded.
    """
    if shown.kind == "metadata":
        return _metadata(item())
    address = _address(idx, version, key)
    if shown.kind == "mesh":
        faces = faces_in(item())
        picture = _inline(item) if shown.is_changed else address
        return {"facts": [f"{faces:,} faces"], "picture": picture if faces else None}
    if shown.kind in ("image", "array"):
        array = item()
        picture = _inline(item) if shown.is_changed else address
        table = _table(array) if shown.kind == "array" else None
        return {
            "facts": [" × ".join(map(str, array.shape)) or "a number", str(array.dtype)],
            "picture": picture if has_picture(shown.kind, array) else None,
            "table": table,
        }
    if shown.kind == "bytes":
        return _text(item())
    return {}


def _address(idx: int, version: str | None, key: str) -> str:
    return f"/picture/{idx}/{quote(key, safe='')}?version={quote(version or '', safe='')}"


def _of_large(idx: int, version: str | None, key: str, shown: ShownItem) -> Mapping[str, Any]:
    if shown.kind in ("image", "array", "mesh"):
        return {"facts": ["large"], "picture": _address(idx, version, key)}
    return {"problem": f"its file has more than {LARGEST_SHOWN >> 20} MiB: it is not read here."}


def has_picture(kind: Kind, value: Any) -> bool:
    """Whether there is a picture of a value: of a mesh with faces, of numbers, if more than one."""
    if kind == "mesh":
        return faces_in(value) > 0
    return kind in ("image", "array") and value.dtype.kind in "buifc" and value.size > 1


def is_too_large(item: Item[Any]) -> bool:
    """Whether an item is not to be decoded for a page: its file is, or its files are, too large."""
    sizes = (source.size() for source in item.file_sources)
    return not item.has_value and any(size > LARGEST_SHOWN for size in sizes)


def _metadata(value: Any) -> Mapping[str, Any]:
    stream = BytesIO()
    try:
        YamlMetadataItem.encode(value, stream)
    except (ValueError, RecursionError) as error:
        return {"problem": f"it cannot be written as text: {error}"}
    text = stream.getvalue().decode()
    if len(text) > _MOST_TEXT:
        return {"problem": f"its {len(text):,} characters are too many for a page."}
    return {"text": text, "value": value if _survives_json(value) else None}


def _survives_json(value: Any) -> bool:
    """Whether a form may have a value: JSON gives back the same, and it is not too much."""
    todo = [value]
    for _ in range(_MOST_VALUES):
        if not todo:
            return True
        match todo.pop():
            case None | bool() | str():
                continue
            case int(number) if abs(number) < 1 << 64:  # as text, whose digits the page keeps
                continue
            case float(number) if math.isfinite(number):
                continue
            case list(members):
                todo += members
            case dict(fields) if all(type(name) is str for name in fields):
                todo += fields.values()
            case _:
                return False
    return False


def _inline(item: Item[Any]) -> str | None:
    """The picture of an item that is on no disk yet, in its own address."""
    found = thumbnail(item, SHOWN_SIDE)
    return None if found is None else inline(found)


def _table(array: np.ndarray[Any, Any]) -> list[list[Any]] | None:
    if array.ndim > 2 or array.dtype.kind not in "buif":
        return None
    rows = np.atleast_2d(array)[:_MOST_ROWS, :_MOST_COLUMNS]
    table: list[list[Any]] = to_jsonable_python(rows.tolist(), inf_nan_mode="strings")
    return table


def _text(content: bytes) -> Mapping[str, Any]:
    facts = [f"{len(content):,} bytes"]
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return {"facts": facts}
    return {"facts": facts, "text": text[:_MOST_TEXT]}
