"""Images with the labels of YOLO, in Ultralytics' layout."""

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from prefect_pipestream.errors import DatasetError, DecodeError
from prefect_pipestream.items import Item, JsonMetadataItem
from prefect_pipestream.items.pictures.size import size_as_seen
from prefect_pipestream.sequences.registry import source_sequence
from prefect_pipestream.sequences.sources.import_source import (
    ANNOTATIONS,
    CATEGORIES,
    ImportSource,
    Items,
)
from prefect_pipestream.sequences.sources.text_files import text_of
from prefect_pipestream.sequences.sources.yolo_folder import (
    YoloFolder,
    label_file_of,
    label_path,
    read_folder,
)
from prefect_pipestream.sequences.sources.yolo_labels import LabelError, object_of
from prefect_pipestream.storage.paths_below import first_below, refuse_leading_out


@source_sequence
class FromYolo(ImportSource, title="from_yolo"):
    """Takes the images of a YOLO data set and the objects in them; see `yolo_labels`.

    Opening it lists the folders once. A sample costs the reading of its labels and, if there are
    any, of its image's header, some 0.1 ms.

    Raises:
        DatasetNotFoundError: If there is nothing at the folder.
    """

    folder: Path
    image_key: str = "image"
    metadata_key: str = "metadata"
    root: Path | None = None
    origin: str | None = None

    def model_post_init(self, context: Any) -> None:
        """Looks whether the folder is there."""
        self.refuse_missing(self.folder, "folder")

    @property
    def location(self) -> Path:
        """The folder, or the file that describes it."""
        return self.folder

    @cached_property
    @DatasetError.explaining_questions()
    def _found(self) -> YoloFolder:
        return read_folder(self.folder, self.root)

    @cached_property
    def _names_of_classes(self) -> Mapping[int, str]:
        return {one["id"]: one["name"] for one in self._found.classes}

    @cached_property
    def shared_items(self) -> Items:
        """The classes."""
        return {CATEGORIES: JsonMetadataItem(self._found.classes, shared=True)}

    def found_names(self) -> Iterable[str]:
        """Finds the images, by their paths below the root."""
        return self._found.splits

    def _label_path(self, idx: int) -> str | None:
        return label_path(self._found.root, self.names[idx])

    def facts_of(self, idx: int) -> Mapping[str, Any]:
        """Returns `split` (and `splits`, of an image in several), `label_file` and the size.

        `label_file` is None without one. `width` and `height`, which are there if there are
        objects, are of the picture once it is upright: the labels refer to it so.
        """
        name = self.names[idx]
        splits = self._found.splits[name]
        facts: dict[str, Any] = {"split": splits[0]} if splits else {}
        if len(splits) > 1:
            facts["splits"] = list(splits)
        has_labels = self._label_path(idx) is not None
        facts["label_file"] = label_file_of(name) if has_labels else None
        if self._lines(idx):
            facts["width"], facts["height"] = size_as_seen(self._image_path(name))
        return facts

    def items_of(self, idx: int) -> Items:
        """Returns the image and its objects."""
        image = self._image_path(self.names[idx])
        return {
            self.image_key: Item.get_instance(image),
            ANNOTATIONS: JsonMetadataItem(self._objects(idx, image)),
        }

    def _image_path(self, name: str) -> str:
        """The path of an image.

        Raises:
            DecodeError: If it leads out of the root.
        """
        root = self._found.root
        if first_below(root, [name]) != name:
            raise DecodeError(
                f"{name!r} is not below {root}. If that is meant, name a folder that has both by "
                "`root`."
            )
        refuse_leading_out(root, name)
        return os.path.join(root, name)

    def _lines(self, idx: int) -> list[tuple[int, str]]:
        """The lines of labels that are not empty, with their numbers."""
        path = self._label_path(idx)
        lines = [] if path is None else text_of(path).splitlines()
        return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]

    def _objects(self, idx: int, image: str) -> list[dict[str, Any]]:
        path, lines = self._label_path(idx), self._lines(idx)
        size = size_as_seen(image) if lines else (0, 0)
        return [self._object(line, size, f"{path}, line {number}") for number, line in lines]

    def _object(self, line: str, size: tuple[int, int], where: str) -> dict[str, Any]:
        try:
            return object_of(line, size, self._names_of_classes, self._found.pose)
        except LabelError as error:
            raise DecodeError(f"{where}: {error} (Classes: {self._found.said_in}.)") from error
