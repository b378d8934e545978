"""Images with objects, as COCO has them."""

import io
import os
import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr

from prefect_pipestream.errors import DatasetWriteError, SampleError
from prefect_pipestream.exporting.classes import Classes
from prefect_pipestream.exporting.exporter import Exporter
from prefect_pipestream.exporting.objects import (
    file_in_split,
    objects_of,
    size_of,
    split_of,
)
from prefect_pipestream.items import Item, JsonMetadataItem
from prefect_pipestream.sequences import Sample
from prefect_pipestream.sequences.sources.from_coco import COCO
from prefect_pipestream.sequences.sources.import_source import ANNOTATIONS
from prefect_pipestream.sequences.sources.objects import are_polygons
from prefect_pipestream.storage.paths_below import relative

Entry = dict[str, Any]


@dataclass
class _Split:
    """What is listed in one file."""

    images: list[tuple[Entry, list[Entry]]] = field(default_factory=list)
    beside: Entry = field(default_factory=dict)
    has_objects: bool = False


class CocoExporter(Exporter):
    """Writes images and a JSON file of them and their objects, for each split one of its own.

    Splits are `<split>/` and `annotations/instances_<split>.json`; samples without one are in
    `images/` and `annotations/instances.json`. What is said of images and objects is written as it
    is. Their ids are kept where they are unique in a file; others get new ones. An object that was
    none of COCO's before gets what is missing: `area` and `iscrowd`. The class of an object is its
    `label`; one that is not among `categories` is added to them.
    """

    is_of_objects = True

    annotations_key: str = Field(ANNOTATIONS, description="The key of the objects.")

    _splits: dict[str | None, _Split] = PrivateAttr(default_factory=dict)
    _classes: Classes = PrivateAttr(default_factory=lambda: Classes(first=1))

    def write(self, idx: int, sample: Sample) -> None:
        """Writes the image, and notes its objects.

        Raises:
            SampleError: If there is no image, or an object is none.
            ItemError: If an item cannot be read or written.
        """
        image, facts = self.image_of(idx, sample), self.metadata_of(sample)
        split = split_of(idx, facts)
        self._classes.take(idx, sample)
        objects = objects_of(idx, sample, self.annotations_key, self._classes)
        entry = _entry_of(image, facts)
        listed = self._listed_in(idx, split, sample)
        entries = [self._object(one) for one in objects or ()]
        _require_json(idx, [entry, entries])
        folder = split or "images"
        wanted = self._wanted(idx, sample, entry.get("file_name"), split)
        path = self.free_path(idx, f"{folder}/{wanted}")
        self.put(image, path)
        written = path.relative_to(self.folder / folder).as_posix()
        if relative(entry.get("file_name")) != written:
            entry["file_name"] = written
        listed.images.append((entry, entries))
        listed.has_objects |= objects is not None
        self._splits[split] = listed

    def _wanted(self, idx: int, sample: Sample, said: Any, split: str | None) -> str:
        """The path below the split's folder: what COCO said, or that of the source."""
        file = self.file_of(idx, sample)
        name = relative(said)
        if name is not None and f"/{file}".endswith(f"/{name}"):
            return name
        return posixpath.normpath(file_in_split(file, split))

    def noted(self) -> Callable[[], None]:
        """Returns what takes back the classes that are noted from now on."""
        return self._classes.noted()

    def _listed_in(self, idx: int, split: str | None, sample: Sample) -> _Split:
        """What is listed of a split: at first what its file said beside the lists."""
        if split in self._splits:
            return self._splits[split]
        known = sample[COCO]() if COCO in sample else None
        beside = known.get(split or "") if isinstance(known, dict) else None
        if not isinstance(beside, dict):
            return _Split()
        _require_json(idx, beside)
        return _Split(beside=beside)

    def _object(self, entry: Entry) -> Entry:
        """An object as it is listed: with the number of its class in place of its label."""
        found = {name: value for name, value in entry.items() if name != "label"}
        if "label" in entry:
            number = entry.get("category_id")
            found["category_id"] = self._classes.number_of(entry["label"], number)
        if "id" not in entry:
            found.setdefault("iscrowd", 0)
            found.setdefault("area", _area(entry))
        return found

    def finish(self) -> None:
        """Writes the JSON files; one of no images where there are no samples."""
        if not self._splits:
            self._splits[None] = _Split(has_objects=True)
        for split, listed in self._splits.items():
            name = "instances.json" if split is None else f"instances_{split}.json"
            _write_json(self.folder / "annotations" / name, self._content(listed))

    def _content(self, listed: _Split) -> Entry:
        images = [entry for entry, _ in listed.images]
        numbers = _numbers(images)
        images = [
            entry if entry.get("id") == number else {**entry, "id": number}
            for entry, number in zip(images, numbers, strict=True)
        ]
        objects = [
            one if one.get("image_id") == number else {**one, "image_id": number}
            for number, (_, several) in zip(numbers, listed.images, strict=True)
            for one in several
        ]
        objects = [{**one, "id": id_} for one, id_ in zip(objects, _numbers(objects), strict=True)]
        content = {**listed.beside, "images": images, "annotations": objects}
        if not listed.has_objects:
            del content["annotations"]
        return {**content, "categories": list(self._classes.known)}


def _require_json(idx: int, said: Any) -> None:
    """Raises `SampleError` if JSON cannot have what is to be listed of a sample."""
    try:
        JsonMetadataItem.encode(said, io.BytesIO())
    except (TypeError, ValueError, RecursionError) as error:
        raise SampleError(
            f"sample {idx}: COCO's JSON cannot have what is said of it ({error}). Correct its "
            "metadata or its objects."
        ) from error


def _entry_of(image: Item[Any], facts: Entry) -> Entry:
    """What is listed of an image: what COCO said of it, else its size."""
    known = facts.get(COCO)
    if not isinstance(known, dict):
        return dict(zip(("width", "height"), size_of(image, facts), strict=True))
    return {**known, **{name: facts[name] for name in ("width", "height") if name in facts}}


def _numbers(entries: Iterable[Entry]) -> list[int | str]:
    """The id of each entry: its own where it is the first to have it, else a new one."""
    kept: list[int | str | None] = []
    taken: set[int | str] = set()
    for entry in entries:
        number = entry.get("id")
        if isinstance(number, int | str) and number not in taken:
            taken.add(number)
            kept.append(number)
        else:
            kept.append(None)
    fresh = count(max((one for one in taken if isinstance(one, int)), default=0) + 1)
    return [next(fresh) if one is None else one for one in kept]


def _area(entry: Entry) -> float:
    """The area of an object in pixels: of its polygons, else of its box."""
    polygons = entry.get("segmentation")
    if polygons and are_polygons(polygons):
        return float(sum(map(_area_of, polygons)))
    box = entry.get("bbox")
    return 0.0 if box is None else float(box[2] * box[3])


def _area_of(points: list[float]) -> float:
    """The area of a polygon [x0, y0, x1, y1, …], by the shoelace formula."""
    x, y = points[0::2], points[1::2]
    crossed = (
        a * d - b * c for a, b, c, d in zip(x, y, x[1:] + x[:1], y[1:] + y[:1], strict=False)
    )
    return abs(sum(crossed)) / 2


def _write_json(path: Path, content: Entry) -> None:
    with DatasetWriteError.explaining(f"{path} cannot be written"):
        os.makedirs(path.parent, exist_ok=True)
        with path.open("wb") as stream:
            JsonMetadataItem.encode(content, stream)
