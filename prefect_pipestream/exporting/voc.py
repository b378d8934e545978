"""Images with objects, as Pascal VOC has them."""

import os
import posixpath
from collections.abc import Callable
from typing import Any

from pydantic import Field, PrivateAttr

from prefect_pipestream.errors import DatasetWriteError, SampleError
from prefect_pipestream.exporting.classes import Classes
from prefect_pipestream.exporting.exporter import Exporter, free_name, place_below
from prefect_pipestream.exporting.objects import (
    depth_of,
    file_in_split,
    objects_of,
    size_of,
    split_of,
)
from prefect_pipestream.items import ImageItem, Item
from prefect_pipestream.sequences import Sample
from prefect_pipestream.sequences.sources.from_voc import MASKS, SETS, VOC
from prefect_pipestream.sequences.sources.import_source import ANNOTATIONS
from prefect_pipestream.sequences.sources.voc_xml import written


class VocExporter(Exporter):
    """Writes images, an XML file for the objects of each, masks, and the sets of images.

    `JPEGImages`, `Annotations`, `ImageSets/Main/<split>.txt`; `SegmentationClass` and
    `SegmentationObject` where samples have such PNG items. What is said of images and objects is
    written as it is, and with the same spelling; nothing and empty lists are left out, and lists
    that XML cannot tell from others are JSON in an element. The class of an object is its `label`;
    its `category_id`, which VOC has not, is left out; a box of less than a pixel becomes one. A
    sample without the item of objects gets no XML file.
    """

    is_of_objects = True

    annotations_key: str = Field(ANNOTATIONS, description="The key of the objects.")

    _classes: Classes = PrivateAttr(default_factory=lambda: Classes(first=1))
    _stems: set[str] = PrivateAttr(default_factory=set)
    _sets: dict[str, list[str]] = PrivateAttr(default_factory=dict)

    def write(self, idx: int, sample: Sample) -> None:
        """Writes the image, its objects and its masks.

        Raises:
            SampleError: If there is no image, or an object is none, has no box or no label.
            ItemError: If an item cannot be read or written.
        """
        image, facts = self.image_of(idx, sample), self.metadata_of(sample)
        self._classes.take(idx, sample)
        objects = objects_of(idx, sample, self.annotations_key, self._classes)
        sets = _sets_of(idx, facts)
        stem, extension = self._place_of(idx, sample, facts)
        content = None
        if objects is not None:
            said = _said_of(image, facts, f"{stem}{extension}")
            try:
                content = written(said, objects)
            except (ValueError, RecursionError) as error:
                raise SampleError(
                    f"sample {idx} cannot be written as VOC: {error}. Correct `metadata` or "
                    f"{self.annotations_key!r}."
                ) from error
        self.put(image, self.folder / f"JPEGImages/{stem}{extension}")
        for key, folder in MASKS.items():
            mask = sample.get(key)
            if isinstance(mask, ImageItem) and mask.extension_in_use().lower() == ".png":
                self.put(mask, self.folder / f"{folder}/{stem}.png")
        if content is not None:
            self._write(f"Annotations/{stem}.xml", content)
        self._stems.add(stem)
        for name in sets:
            self._sets.setdefault(name, []).append(stem)

    def noted(self) -> Callable[[], None]:
        """Returns what takes back the classes that are noted from now on."""
        return self._classes.noted()

    def _place_of(self, idx: int, sample: Sample, facts: dict[str, Any]) -> tuple[str, str]:
        """The stem, which is no other sample's, and the extension of an image."""
        file = posixpath.normpath(self.file_of(idx, sample))
        if VOC not in facts:
            file = file_in_split(file, split_of(idx, facts))
        stem, extension = os.path.splitext(file)
        return free_name(stem, idx, self._stems.__contains__), extension

    def _write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        with DatasetWriteError.explaining(f"{path} cannot be written"):
            self.begin(path)
            path.write_bytes(content)

    def finish(self) -> None:
        """Writes the sets; the folders by which the layout is known are there without samples, too.

        Raises:
            DatasetWriteError: If the disk cannot take it.
        """
        with DatasetWriteError.explaining(f"{self.folder} cannot be written"):
            for name in ("JPEGImages", "Annotations"):
                os.makedirs(self.folder / name, exist_ok=True)
        for name, stems in self._sets.items():
            self._write(f"{SETS}/{name}.txt", "".join(f"{stem}\n" for stem in stems).encode())


def _sets_of(idx: int, facts: dict[str, Any]) -> list[str]:
    """The sets of a sample: those that it was in, if its split is still among them."""
    split = split_of(idx, facts)
    said = facts.get("sets")
    sets = said if isinstance(said, list) else []
    for name in sets:
        if place_below(name) is None or place_below(name) != name:
            raise SampleError(
                f"sample {idx}: `sets` has {name!r}, expected names as `Main/train`. Correct "
                "`metadata.sets`."
            )
    if split is None or f"Main/{split}" in sets:
        return sets
    return [f"Main/{split}"]


def _said_of(image: Item[Any], facts: dict[str, Any], file: str) -> dict[str, Any]:
    """What is said of an image in its XML: what was, with the name that it has now."""
    known = facts.get(VOC)
    if isinstance(known, dict):
        name = os.path.basename(file)
        was_renamed = name != os.path.basename(str(facts.get("file")))
        return {**known, "filename": name} if was_renamed else known
    width, height = size_of(image, facts)
    return {
        "folder": "JPEGImages",
        "filename": os.path.basename(file),
        "size": {"width": width, "height": height, "depth": depth_of(image)},
        "segmented": 0,
    }
