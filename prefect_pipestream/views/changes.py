"""Some of the samples that a run changed: before, from what undo keeps, and after."""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from prefect_pipestream.errors import PipestreamError
from prefect_pipestream.items import FileSource, Item, MetadataItem
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.asking import status_through_links
from prefect_pipestream.underfolder.format.layout import Layout, staged_name
from prefect_pipestream.underfolder.format.names import key_of
from prefect_pipestream.underfolder.ledger.records import CommitRecord, SampleRecord
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.views.thumbnails import (
    AnyImage,
    Change,
    inline_pair,
    metadata_differences,
)

SHOWN_CHANGES = 16
_LARGEST_FILE = 64 << 20  # bytes: a larger one is not worth the time for a thumbnail

Items = Mapping[str, Item[Any]]


def changes_of_run(
    source: DataStream, target: DataStream, most: int = SHOWN_CHANGES
) -> Iterator[Change]:
    """Shows some of the samples that a run wrote, spread over its course.

    Costs the decoding of these few samples, whatever the size of the run.

    Args:
        source: Where the run read samples.
        target: Where it wrote them: its run key is the run.
        most: How many are shown at most.

    Raises:
        DatasetError: If the run's ledger cannot be read.
    """
    run = target.run
    commits = run.some_commits(most)
    for commit, record in _written(commits, most):
        after = _after(run.layout, record)
        if target.is_in_place:
            before: Items = _kept(run, commit, record)
        else:
            before = _read(source, record.idx)
        keys = [key_of(name) for name in record.writes or ()]
        index = record.idx if record.target is None else record.target
        yield change_between(record.idx, before, after, keys, index)


def _written(commits: list[CommitRecord], most: int) -> Iterator[tuple[CommitRecord, SampleRecord]]:
    """Some written samples by index: as many of each commit as it takes."""
    share = -(-most // max(1, len(commits)))
    found = []
    for commit in commits:
        written = [record for record in commit.samples if record.writes]
        step = max(1, len(written) / share)
        chosen = [written[int(number * step)] for number in range(min(share, len(written)))]
        found += [(commit, record) for record in chosen]
    yield from sorted(found[:most], key=lambda pair: pair[1].idx)


def _kept(run: Run, commit: CommitRecord, record: SampleRecord) -> Items:
    """The items that the commit replaced or removed."""
    folder = run.undo_of(commit.id)
    names = (*record.replaces, *record.removes)
    return _existing((name, os.path.join(folder, staged_name(name))) for name in names)


def _after(layout: Layout, record: SampleRecord) -> Items:
    return _existing((name, layout.final(name)) for name in record.writes or ())


def _existing(files: Iterable[tuple[str, str]]) -> Items:
    return {
        key_of(name): Item.from_source(FileSource(path), shared=False)
        for name, path in files
        if name[0] != "/" and status_through_links(path) is not None
    }


def _read(source: DataStream, idx: int) -> Items:
    try:
        return source.get_input(idx)
    except (IndexError, PipestreamError):  # gone since: then there is no picture of it
        return Sample()


def change_between(
    idx: int, before: Items, after: Items, keys: Iterable[str], target: int
) -> Change:
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
    return Change(idx, *inline_pair(*shown), tuple(lines), target)


def _value(item: Item[Any] | None) -> Any:
    """An item's value; None where it cannot be had: a picture of it is no reason to fail."""
    if item is None:
        return None
    try:
        if any(os.stat(source.path).st_size > _LARGEST_FILE for source in item.file_sources):
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
    if (means := (_mean(old), _mean(new)))[0] != means[1]:
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
