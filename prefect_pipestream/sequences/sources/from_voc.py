"""Images with objects, as Pascal VOC keeps them: an XML file for each image."""

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from natsort import natsorted

from prefect_pipestream.errors import DatasetError, DecodeError
from prefect_pipestream.items import FileSource, Item, JsonMetadataItem
from prefect_pipestream.items.pictures.base import is_image
from prefect_pipestream.sequences.registry import source_sequence
from prefect_pipestream.sequences.sources.import_source import (
    ANNOTATIONS,
    CATEGORIES,
    ImportSource,
    Items,
)
from prefect_pipestream.sequences.sources.splits import split_called
from prefect_pipestream.sequences.sources.text_files import text_of
from prefect_pipestream.sequences.sources.voc_xml import labels_in, read_voc
from prefect_pipestream.storage.asking import files_below, is_folder
from prefect_pipestream.storage.paths_below import refuse_leading_out

VOC = "voc"
"""The key in the metadata of what an annotation file says of its image."""
SETS = "ImageSets"
MASKS = {"mask": "SegmentationClass", "instances": "SegmentationObject"}
"""The folder of the masks of each key."""


@source_sequence
class FromVoc(ImportSource, title="from_voc"):
    """Takes the images of a folder as Pascal VOC has it; its names are read once, when needed.

    Raises:
        DatasetNotFoundError: If there is no such folder.
    """

    folder: Path
    annotations: str | None = None
    images: str | None = None
    image_key: str = "image"
    metadata_key: str = "metadata"
    classes: list[str] | None = None
    origin: str | None = None

    def model_post_init(self, context: Any) -> None:
        """Looks whether the folders are there."""
        self.refuse_missing(self.folder, "folder")
        for given in (self.annotations, self.images):
            if given is not None:
                self.refuse_missing(self.folder / given, "folder")

    @property
    def location(self) -> Path:
        """The folder."""
        return self.folder

    # -- what there is -----------------------------------------------------------------------

    @cached_property
    @DatasetError.explaining_questions()
    def _annotations(self) -> Path:
        return self._place(self.annotations, "Annotations", "annotations")

    @cached_property
    @DatasetError.explaining_questions()
    def _images(self) -> Path:
        return self._place(self.images, "JPEGImages", "images")

    def _place(self, given: str | None, *usual: str) -> Path:
        names = usual if given is None else [given]
        there = [name for name in names if is_folder(os.fspath(self.folder / name))]
        if there and given is None:
            self._refuse_linked(there[0], f"name that folder as `{usual[-1]}`")
        return self.folder / there[0] if there else self.folder

    def _refuse_linked(self, name: str, way: str = "put a folder in place of the link") -> None:
        refuse_leading_out(os.path.abspath(self.folder), f"{name}/x", way)

    @cached_property
    @DatasetError.explaining_questions()
    def _stems(self) -> frozenset[str]:
        """The annotation files, without their extension."""
        files = files_below(self._annotations)
        return frozenset(name[:-4] for name in files if name.endswith(".xml"))

    @cached_property
    @DatasetError.explaining_questions()
    def _images_of(self) -> dict[str, list[str]]:
        """The images by the stem that they share with an annotation file."""
        found: dict[str, list[str]] = {}
        for name in files_below(self._images):
            if is_image(name) and not (self._is_flat and _is_of_masks(name)):
                found.setdefault(os.path.splitext(name)[0], []).append(name)
        return found

    @property
    def _is_flat(self) -> bool:
        return self._images == self.folder

    @cached_property
    @DatasetError.explaining_questions()
    def _masks(self) -> Mapping[str, frozenset[str]]:
        there = {
            key: name for key, name in MASKS.items() if is_folder(os.fspath(self.folder / name))
        }
        for name in there.values():
            self._refuse_linked(name)
        return {key: frozenset(files_below(self.folder / name)) for key, name in there.items()}

    @cached_property
    @DatasetError.explaining_questions()
    def _sets(self) -> Mapping[str, Sequence[str]]:
        """The sets of each stem, as `Main/train`; of `ImageSets`, those that just list images."""
        found: dict[str, list[str]] = {}
        lost = []
        for name in natsorted(files_below(self.folder / SETS)) if self._has_sets else ():
            if not name.endswith(".txt"):
                continue
            for stem in _listed_in(self.folder / SETS / name):
                if stem in self._stems or stem in self._images_of:
                    found.setdefault(stem, []).append(name.removesuffix(".txt"))
                else:
                    lost.append(f"{name}: {stem}")
        if lost:
            warnings.warn(
                f"{self.folder / SETS}: {len(lost):,} names have neither image nor annotations, "
                f"and are left out. The first: {lost[0]}.",
                stacklevel=2,
            )
        return found

    @cached_property
    @DatasetError.explaining_questions()
    def _has_sets(self) -> bool:
        self._refuse_linked(SETS)
        return is_folder(os.fspath(self.folder / SETS))

    @cached_property
    def categories(self) -> Sequence[Mapping[str, Any]]:
        """The classes, from number 1 on: those that were given, else all that files name.

        These are found by reading all files; what cannot be read has none.
        """
        given = self.classes
        names = natsorted(sorted(self._classes_found())) if given is None else given
        return [{"id": n, "name": name} for name, n in self.numbered(names, first=1).items()]

    def _classes_found(self) -> set[str]:
        found: set[str] = set()
        for stem in self._stems:
            try:
                found |= labels_in(self._annotations / f"{stem}.xml")
            except DecodeError:
                continue  # the sample fails, once it is read
        return found

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {entry["name"]: entry["id"] for entry in self.categories}

    @cached_property
    def shared_items(self) -> Items:
        """The list of classes, if there are any."""
        if not self.categories:
            return {}
        return {CATEGORIES: JsonMetadataItem(self.categories, shared=True)}

    # -- the samples -------------------------------------------------------------------------

    def found_names(self) -> Iterable[str]:
        """Finds the images, by their paths; an annotation file without one goes by its own."""
        if not self._stems:
            raise DatasetError(
                f"{self._annotations}: there is no XML file in it. Name the folder that has "
                "`Annotations` and `JPEGImages` in it, or these two by `annotations` and `images`."
            )
        images = [name for names in self._images_of.values() for name in names]
        return [*images, *(f"{stem}.xml" for stem in self._stems if stem not in self._images_of)]

    def _said_of(self, idx: int) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        """What the annotation file says of the image and its objects; None without one.

        Raises:
            DecodeError: If it cannot be meant, or is of no image or several.
        """
        name = self.names[idx]
        stem = os.path.splitext(name)[0]
        path = self._annotations / f"{stem}.xml"
        images = self._images_of.get(stem, [])
        if not images:
            raise DecodeError(
                f"{path}: there is no image {stem}.* in {self._images}, of which it is. Restore "
                "it, or remove the annotations."
            )
        if stem not in self._stems:
            return None
        if len(images) > 1:
            raise DecodeError(
                f"{path}: is it of {' or '.join(natsorted(images))}? Rename one of the images."
            )
        return read_voc(path)

    def facts_of(self, idx: int) -> Mapping[str, Any]:
        """Returns `split`, `width` and `height`, and as `voc` what is said of the image."""
        found = self._said_of(idx)
        image = dict(found[0]) if found else {}
        stem = os.path.splitext(self.names[idx])[0]
        split, sets = self._split_of(stem)
        facts: dict[str, Any] = {} if split is None else {"split": split}
        size = image.get("size")
        if isinstance(size, dict):
            facts |= {name: size[name] for name in ("width", "height") if name in size}
        return {**facts, VOC: image, **({"sets": sets} if sets else {})}

    def _split_of(self, stem: str) -> tuple[str | None, list[str]]:
        """The split, and all sets if they are not just the main one of that split."""
        sets = list(self._sets.get(stem, ()))
        main = [one.removeprefix("Main/") for one in sets if one.startswith("Main/")]
        usual = filter(split_called, main)
        split = next(iter([*usual, *main]), None)
        first, slash, _ = stem.partition("/")
        if slash and not self._has_sets and split_called(first) is not None:
            split = first
        return split, [] if sets == [f"Main/{split}"] else sets

    def items_of(self, idx: int) -> Items:
        """Returns the image, its objects and its masks."""
        name = self.names[idx]
        stem = os.path.splitext(name)[0]
        found = self._said_of(idx)
        items: Items = {self.image_key: _item_at(self._images, name)}
        if found is not None:
            objects = [self._numbered(stem, entry) for entry in found[1]]
            items[ANNOTATIONS] = JsonMetadataItem(objects)
        for key, files in self._masks.items():
            if f"{stem}.png" in files:
                items[key] = _item_at(self.folder / MASKS[key], f"{stem}.png")
        return items

    def _numbered(self, stem: str, entry: dict[str, Any]) -> dict[str, Any]:
        """An object, with the number of its class where the classes were given."""
        if self.classes is None:
            return entry
        if entry["label"] not in self.classes:
            raise DecodeError(
                f"{self._annotations / stem}.xml: the class {entry['label']!r} is none of "
                "`classes`. Add it there, or correct the file."
            )
        return {**entry, "category_id": self._numbers[entry["label"]]}


def _item_at(folder: Path, name: str) -> Item[Any]:
    return Item.from_source(FileSource(os.path.join(os.path.abspath(folder), name)))


def _is_of_masks(name: str) -> bool:
    return name.startswith(tuple(f"{folder}/" for folder in MASKS.values()))


def _listed_in(path: Path) -> list[str]:
    """The names that a set lists; none where a second column says something of each."""
    rows = [line.split() for line in text_of(os.fspath(path)).splitlines() if line.strip()]
    return [row[0] for row in rows] if all(len(row) == 1 for row in rows) else []
