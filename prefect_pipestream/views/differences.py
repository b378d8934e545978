"""What one change did to a sample, for people: pictures before and after, and what else differs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prefect_pipestream.errors import PipestreamError
from prefect_pipestream.items import Item, MetadataItem
from prefect_pipestream.views.thumbnails import AnyImage, inline_pair

_LARGEST_FILE = 64 << 20  # bytes: a larger one is not worth the time for a thumbnail
_MOST_DIFFERENCES = 6
_LONGEST_VALUE = 40
_MISSING = object()

Items = Mapping[str, Item[Any]]


class ShownChange(NamedTuple):
    """One sample that was changed, as it is shown.

    Attributes:
        idx: Its index.
        before: A picture of it as Markdown; empty where there is none.
        after: Likewise.
        metadata: What changed in its metadata: ``key: old → new``.
        target: The index that it was written under.
    """

    idx: int
    before: str
    after: str
    metadata: tuple[str, ...]
    target: int

    @property
    def size(self) -> int:
        """How many characters it adds to a report."""
        return len(self.before) + len(self.after) + sum(map(len, self.metadata)) + 20


def change_between(
    idx: int, before: Items, after: Items, keys: Iterable[str], target: int
) -> ShownChange:
    """Shows what changed in one sample: its first image, and its metadata.

    Args:
        idx: The sample's index.
        before: Its items before.
        after: Its items after; those that did not change may be missing.
        keys: The keys that changed.
        target: The index that it is written under.
    """
    images: list[tuple[AnyImage | None, AnyImage | None]] = []
    lines: list[str] = []
    for key in dict.fromkeys(keys):
        old, new = _value(before.get(key)), _value(after.get(key))
        old_image, new_image = _image(old), _image(new)
        if old_image is not None or new_image is not None:
            images.append((old_image, new_image))
            lines += _form_differences(key, old_image, new_image)
        elif isinstance(after.get(key) or before.get(key), MetadataItem):
            lines += metadata_differences(key, old, new)
        else:
            lines.append(f"{key}: written")
    shown = images[0] if images else (_any_image(before), None)
    return ShownChange(idx, *inline_pair(*shown), tuple(lines), target)


def item_differences(key: str, before: Item[Any] | None, after: Item[Any] | None) -> list[str]:
    """Says what differs between two values of an item, a line each; nothing where none does.

    Of metadata, the fields; of images and other arrays, shape, type and how many elements differ;
    of a single number, both. A value that cannot be read is not compared.

    Args:
        key: The item's key.
        before: The item before; None for none, or where it is not kept any more.
        after: Likewise.
    """
    if before is None or after is None:
        return []
    old, new = _value(before), _value(after)
    if isinstance(before, MetadataItem) and isinstance(after, MetadataItem):
        return metadata_differences(key, old, new)
    if not isinstance(old, np.ndarray) or not isinstance(new, np.ndarray):
        return []
    if old.size == new.size == 1 and old.dtype == new.dtype:
        a, b = old.item(), new.item()
        return [] if a == b else [f"{key}: {_shown(a)} → {_shown(b)}"]
    return [*_form_differences(key, old, new), *_element_differences(key, old, new)]


def _element_differences(key: str, old: AnyImage, new: AnyImage) -> list[str]:
    """How many pixels of images of one shape differ, or elements, and how much on average."""
    is_number = old.dtype.kind in "buif" and new.dtype.kind in "buif"
    if not is_number or old.shape != new.shape or not old.size:
        return []
    apart = np.abs(old.astype(np.float64) - new.astype(np.float64))
    differs = apart != 0
    if not differs.any():
        return []
    is_image = _image(old) is not None
    if is_image and differs.ndim == 3:
        differs = differs.any(axis=2)
    share, mean = f"{differs.mean():.3g}", f"{np.nanmean(apart):.4g}"
    what = "pixels" if is_image else "elements"
    return [f"{key}: a share of {share} of the {what} differs, by {mean} on average of all"]


def removal_of(idx: int, before: Items) -> ShownChange:
    """Shows a sample that is removed: the first image that it had."""
    return ShownChange(idx, *inline_pair(_any_image(before), None), ("removed",), idx)


def _value(item: Item[Any] | None) -> Any:
    """An item's value; None where it cannot be had: a picture of it is no reason to fail."""
    if item is None:
        return None
    try:
        if any(source.size() > _LARGEST_FILE for source in item.file_sources):
            return None
        return item()
    except (PipestreamError, OSError):
        return None


def _image(value: Any) -> AnyImage | None:
    """The value if it can be looked at: of numbers or booleans, and no single line."""
    is_array = isinstance(value, np.ndarray) and value.ndim in (2, 3) and value.dtype.kind in "buif"
    return value if is_array and min(value.shape[:2]) > 1 else None


def _any_image(items: Items) -> AnyImage | None:
    images = (_image(_value(item)) for item in items.values())
    return next((image for image in images if image is not None), None)


def _form_differences(key: str, old: AnyImage | None, new: AnyImage | None) -> list[str]:
    """What a thumbnail does not show: another size, type or mean."""
    lines = []
    if old is None or new is None:
        return []
    are_numbers = old.dtype.kind in "buif" and new.dtype.kind in "buif"
    if are_numbers and (means := (_mean(old), _mean(new)))[0] != means[1]:
        lines.append(f"{key}: mean {means[0]} → {means[1]}")
    if old.shape != new.shape:
        lines.append(f"{key}: {_shape(old)} → {_shape(new)}")
    if old.dtype != new.dtype:
        lines.append(f"{key}: {old.dtype} → {new.dtype}")
    return lines


def _mean(image: AnyImage) -> str:
    return f"{float(np.nanmean(image)):.4g}" if image.size else "none"


def _shape(image: AnyImage) -> str:
    return "×".join(map(str, image.shape))


def metadata_differences(key: str, before: Any, after: Any) -> list[str]:
    """What differs between two values of a metadata item, one line a field."""
    old, new = _flat(before), _flat(after)
    names = [name for name in {**old, **new} if old.get(name, _MISSING) != new.get(name, _MISSING)]
    lines = [
        f"{key}{name}: {_shown(old.get(name, _MISSING))} → {_shown(new.get(name, _MISSING))}"
        for name in names[:_MOST_DIFFERENCES]
    ]
    if len(names) > _MOST_DIFFERENCES:
        lines.append(f"{key}: {len(names) - _MOST_DIFFERENCES} more fields")
    return lines


def _flat(value: Any, path: str = "", depth: int = 4) -> dict[str, Any]:
    """Nested mappings and lists as one mapping from path to value."""
    if depth and isinstance(value, Mapping) and value:
        parts = [(f"{path}.{name}", part) for name, part in value.items()]
    elif depth and isinstance(value, Sequence) and not isinstance(value, str | bytes) and value:
        parts = [(f"{path}[{number}]", part) for number, part in enumerate(value)]
    else:
        is_nothing = not path and (value is None or value == {} or value == [])
        return {} if is_nothing else {path: value}
    return {name: leaf for at, part in parts for name, leaf in _flat(part, at, depth - 1).items()}


def _shown(value: Any) -> str:
    if value is _MISSING:
        return "(none)"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
