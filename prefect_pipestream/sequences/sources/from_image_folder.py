"""Images in a folder, by class and split, with the files that stand beside them."""

import os
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from natsort import natsorted
from pydantic import field_validator

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.items import JsonMetadataItem
from prefect_pipestream.items.pictures.base import is_image
from prefect_pipestream.sequences.registry import source_sequence
from prefect_pipestream.sequences.sources.import_source import CATEGORIES, ImportSource, Items
from prefect_pipestream.sequences.sources.sidecars import check_sidecars
from prefect_pipestream.sequences.sources.splits import split_called
from prefect_pipestream.storage.asking import files_below


@source_sequence
class FromImageFolder(ImportSource, title="from_image_folder"):
    """Takes the images below a folder; the folder is read once, when needed.

    Raises:
        DatasetNotFoundError: If there is no such folder.
    """

    folder: Path
    image_key: str = "image"
    metadata_key: str = "metadata"
    classes: bool | list[str] = True
    splits: bool | None = None
    sidecars: dict[str, str] | None = None
    origin: str | None = None

    @field_validator("sidecars")
    @classmethod
    def _check_sidecars(cls, sidecars: dict[str, str] | None) -> dict[str, str] | None:
        return None if sidecars is None else check_sidecars(sidecars)

    def model_post_init(self, context: Any) -> None:
        """Looks whether the folder is there."""
        self.refuse_missing(self.folder, "folder")

    @property
    def location(self) -> Path:
        """The folder."""
        return self.folder

    def found_names(self) -> Iterable[str]:
        """Finds the images, but for those that have the name of a file beside another one."""
        return [name for name in files_below(self.folder) if is_image(name) and self._is_own(name)]

    def _is_own(self, name: str) -> bool:
        return not any(pattern.fullmatch(name) for pattern in self._patterns)

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        """Of the files beside images: their paths, also where the image is gone."""
        found = []
        for pattern in (self.sidecars or {}).values():
            parts = [part for part in PurePosixPath(pattern).parts if part not in ("..", ".")]
            text = re.escape("/".join(parts)).replace(re.escape("{stem}"), "[^/]+")
            found.append(re.compile(f"(?:.*/)?{text}"))
        return found

    def _beside(self, name: str) -> dict[str, str]:
        """Where the files beside an image would be, by key: paths relative to the folder."""
        folder, file = os.path.split(name)
        stem = os.path.splitext(file)[0]
        return {
            key: os.path.normpath(os.path.join(folder, pattern.replace("{stem}", stem)))
            for key, pattern in (self.sidecars or {}).items()
        }

    @cached_property
    def _has_splits(self) -> bool:
        if self.splits is not None:
            return self.splits
        first = {name.partition("/")[0] for name in self.names if "/" in name}
        return bool(first) and None not in map(split_called, first)

    @cached_property
    def shared_items(self) -> Items:
        """The classes, where folders are classes."""
        if not self.categories:
            return {}
        listed = [{"id": number, "name": name} for name, number in self.categories.items()]
        return {CATEGORIES: JsonMetadataItem(listed, shared=True)}

    @cached_property
    def categories(self) -> Mapping[str, int]:
        """The number of each class: those that were given, then the others in natural order."""
        if self.classes is False:
            return {}
        given = self.classes if isinstance(self.classes, list) else []
        found = {label for name in self.names if (label := self._parts(name)[1]) is not None}
        return self.numbered([*given, *natsorted(sorted(found))], first=0)

    def _parts(self, name: str) -> tuple[str | None, str | None]:
        """The split and the class of an image, as far as it has them."""
        folders = name.split("/")[:-1]
        split = folders[0] if self._has_splits and folders else None
        folders = folders[1:] if split is not None else folders
        return split, folders[0] if folders and self.classes is not False else None

    def facts_of(self, idx: int) -> Mapping[str, Any]:
        """Returns `split`, `label` and `label_id`, as far as there are any."""
        split, label = self._parts(self.names[idx])
        facts: dict[str, Any] = {} if split is None else {"split": split}
        if label is not None:
            facts |= {"label": label, "label_id": self.categories[label]}
        return facts

    def items_of(self, idx: int) -> Items:
        """Returns the image, and what stands beside it."""
        name = self.names[idx]
        items: Items = {self.image_key: self.file_at(name)}
        for key, path in self._beside(name).items():
            if path in self._files:
                items[key] = self.file_at(path)
        return items

    @cached_property
    @DatasetError.explaining_questions()
    def _files(self) -> frozenset[str]:
        return frozenset(files_below(self.folder)) if self.sidecars else frozenset()
