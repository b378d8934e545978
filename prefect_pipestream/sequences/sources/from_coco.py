"""Images with objects, as COCO lists them in JSON files."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from natsort import natsorted

from prefect_pipestream.errors import DatasetError, DecodeError
from prefect_pipestream.items import FileSource, Item, JsonMetadataItem
from prefect_pipestream.items.pictures.base import is_image
from prefect_pipestream.sequences.categories import is_class_number
from prefect_pipestream.sequences.registry import source_sequence
from prefect_pipestream.sequences.sources.coco_json import Id, Listed, read_listed
from prefect_pipestream.sequences.sources.import_source import (
    ANNOTATIONS,
    CATEGORIES,
    ImportSource,
    Items,
)
from prefect_pipestream.sequences.sources.objects import (
    check_box,
    said,
)
from prefect_pipestream.storage.asking import is_file, is_folder, names_in, status_through_links
from prefect_pipestream.storage.paths_below import refuse_leading_out, relative

COCO = "coco"
"""The key of the shared item with what a file says beside its lists (`info`, `licenses`), by
split; and of what it says of an image, in the metadata."""
NAMED = ("instances", "person_keypoints")
"""How the names of annotation files begin; what follows, after `_`, is the split."""
ROBOFLOW = "_annotations.coco.json"
_LOOKED_FOR = 100  # images, until one is found


@source_sequence
class FromCoco(ImportSource, title="from_coco"):
    """Takes the images that COCO's JSON files list; the files are read once, when needed.

    They are read by the standard library. `pycocotools.coco.COCO` would read them with it too,
    and index them by loops that are not faster than those here; it also prints, needs a compiled
    package, and leaves a wrong entry to be found later.

    Raises:
        DatasetNotFoundError: If there is no such file or folder.
    """

    annotations: Path
    images: Path | None = None
    image_key: str = "image"
    metadata_key: str = "metadata"
    origin: str | None = None

    def model_post_init(self, context: Any) -> None:
        """Looks whether the files are there."""
        self.refuse_missing(self.annotations, "file or folder")
        if self.images is not None:
            self.refuse_missing(self.images, "folder of images")

    @property
    def location(self) -> Path:
        """The annotation file, or the folder that was given."""
        return self.annotations

    # -- the files ---------------------------------------------------------------------------

    @cached_property
    @DatasetError.explaining_questions()
    def _files(self) -> list[Listed]:
        return [read_listed(path, split) for path, split in self._found_files()]

    def _found_files(self) -> list[tuple[Path, str | None]]:
        folder = self.annotations
        if not is_folder(os.fspath(folder)):
            return [(folder, _split_said(folder.name))]
        found = self._found_in(folder)
        for path, _ in found:
            relative = os.fspath(path.relative_to(folder))
            refuse_leading_out(os.path.abspath(folder), relative, "name the file itself")
        return found

    def _found_in(self, folder: Path) -> list[tuple[Path, str | None]]:
        below = [None, *natsorted(names_in(os.fspath(folder)))]
        beside = [(folder / (split or "") / ROBOFLOW, split) for split in below]
        if found := [one for one in beside if is_file(os.fspath(one[0]))]:
            return found
        if is_folder(os.fspath(folder / "annotations")):
            folder = folder / "annotations"
        every = [one for one in names_in(os.fspath(folder)) if one.endswith(".json")]
        for prefix in NAMED:
            if named := [one for one in natsorted(every) if _is_named(one, prefix)]:
                return [(folder / one, _split_said(one)) for one in named]
        if not every:
            raise DatasetError(
                f"{self.annotations}: there are no annotations of COCO in it: no `annotations/"
                f"instances_*.json`, no `{ROBOFLOW}`, no other JSON file. Name the file itself."
            )
        return [
            (folder / one, one.removesuffix(".json") if len(every) > 1 else None)
            for one in natsorted(every)
        ]

    @cached_property
    @DatasetError.explaining_questions()
    def _folders(self) -> dict[Path, str]:
        """The folder of the images of each file, absolute."""
        return {file.path: os.path.abspath(self._folder_of(file)) for file in self._files}

    def _folder_of(self, file: Listed) -> Path:
        split = file.split or ""
        root = self._root_of(file)
        if file.path.name == ROBOFLOW and self.images is None:
            return file.path.parent
        places = [root / split, root / "images" / split, root / "images", root]
        names = list(islice(filter(None, (path_of(entry) for entry in file.images)), _LOOKED_FOR))
        for place in places:
            if any(status_through_links(os.fspath(place / name)) for name in names):
                return place
        if self.images is None and names:
            raise DatasetError(
                f"{file.path}: none of its images, such as {names[0]}, is in one of "
                f"{', '.join(dict.fromkeys(map(str, places)))}. Name their folder as `images`."
            )
        return root

    def _root_of(self, file: Listed) -> Path:
        """What has all images of a file; nothing leads out of it."""
        beside = file.path.parent
        return self.images or (beside.parent if beside.name == "annotations" else beside)

    @cached_property
    def categories(self) -> Sequence[Mapping[str, Any]]:
        """The classes as the files list them, each once.

        Raises:
            DatasetError: If one number stands for classes of two names.
        """
        found: dict[Id, dict[str, Any]] = {}
        for file in self._files:
            for entry in file.categories:
                known = found.setdefault(entry["id"], entry)
                if known["name"] != entry["name"]:
                    raise DatasetError(
                        f"{file.path}: category {entry['id']!r} is {known['name']!r} and "
                        f"{entry['name']!r}. Make them one, or import each file on its own."
                    )
        return list(found.values())

    @cached_property
    def _labels(self) -> dict[Id, str]:
        return {entry["id"]: entry["name"] for entry in self.categories}

    @cached_property
    def shared_items(self) -> Items:
        """The list of classes, and what files say beside their lists."""
        items: Items = {CATEGORIES: JsonMetadataItem(self.categories, shared=True)}
        if beside := {file.split or "": file.beside for file in self._files if file.beside}:
            items[COCO] = JsonMetadataItem(beside, shared=True)
        return items

    # -- the samples -------------------------------------------------------------------------

    def found_names(self) -> Iterable[str]:
        """Lists the images: the split, if there is one, and the path that the file says."""
        return [name for name, *_ in self._listed()]

    def _listed(self) -> Iterator[tuple[str, Listed, int]]:
        for file in self._files:
            prefix = f"{file.split}/" if file.split else ""
            for number, entry in enumerate(file.images):
                name = path_of(entry) or _name_said(entry) or f"images[{number}]"
                yield prefix + name, file, number

    @cached_property
    def _places(self) -> dict[str, tuple[Listed, int]]:
        return {name: (file, number) for name, file, number in self._listed()}

    def _entry(self, idx: int) -> tuple[Listed, dict[str, Any], str]:
        """The file, the entry and the path of an image.

        Raises:
            DecodeError: If the entry cannot be meant.
        """
        file, number = self._places[self.names[idx]]
        entry = file.images[number]
        path = path_of(entry)
        if not isinstance(entry, dict):
            problem = f"{said(entry)} is no mapping"
        elif path is None:
            problem = (
                f"its `file_name` is {said(entry.get('file_name'))}, expected a path below the "
                "folder of the images"
            )
        elif not is_image(path):
            problem = f"{path!r} has no extension of an image"
        elif not is_class_number(entry.get("id")):
            problem = f"its `id` is {said(entry.get('id'))}, expected a number"
        elif entry["id"] in file.twice:
            problem = f"another image has its id {entry['id']!r}, so that their objects are mixed"
        else:
            return file, entry, path
        raise DecodeError(f"{file.path}: images[{number}]: {problem}. Correct the entry.")

    def facts_of(self, idx: int) -> Mapping[str, Any]:
        """Returns `split`, `width` and `height`, and as `coco` what else is said of the image."""
        file, entry, _ = self._entry(idx)
        size: dict[str, Any] = {name: entry[name] for name in ("width", "height") if name in entry}
        facts: dict[str, Any] = {} if file.split is None else {"split": file.split}
        return {**facts, **size, COCO: {name: entry[name] for name in entry if name not in size}}

    def items_of(self, idx: int) -> Items:
        """Returns the image and its objects."""
        file, entry, path = self._entry(idx)
        image = os.path.join(self._folders[file.path], path)
        root = os.path.abspath(self._root_of(file))
        refuse_leading_out(root, os.path.relpath(image, root), "name that folder as `images`")
        items: Items = {self.image_key: Item.from_source(FileSource(image))}
        if file.objects is not None:
            objects = [self._object(file, entry, one) for one in file.objects[entry["id"]]]
            items[ANNOTATIONS] = JsonMetadataItem(objects)
        return items

    def _object(self, file: Listed, image: Mapping[str, Any], entry: Any) -> dict[str, Any]:
        """An object as the file has it, with its class's name as `label`."""
        try:
            if "bbox" in entry:
                check_box(entry["bbox"])
            if "category_id" not in entry:
                return dict(entry)
            number = entry["category_id"]
            if not is_class_number(number) or number not in self._labels:
                raise ValueError(f"its category {said(number)} is none of `categories`")
        except ValueError as error:
            raise DecodeError(
                f"{file.path}: annotation {said(entry.get('id'))} of image {image['id']!r} "
                f"({image['file_name']}): {error}. Correct the entry."
            ) from error
        return {**entry, "label": self._labels[number]}


def path_of(image: Any) -> str | None:
    """The path of an image below its folder; None if the entry has none that stays there."""
    return relative(image.get("file_name")) if isinstance(image, dict) else None


def _name_said(image: Any) -> str | None:
    """The name of an image that leads out: that sample fails, and is called by it."""
    name = image.get("file_name") if isinstance(image, dict) else None
    return name if isinstance(name, str) and name.isprintable() and name else None


def _is_named(file: str, prefix: str) -> bool:
    return file.startswith((f"{prefix}_", f"{prefix}."))


def _split_said(file: str) -> str | None:
    """The split that the name of a file says: `val2017` of `instances_val2017.json`."""
    for prefix in NAMED:
        if file.startswith(f"{prefix}_"):
            return file.removeprefix(f"{prefix}_").removesuffix(".json") or None
    return None
