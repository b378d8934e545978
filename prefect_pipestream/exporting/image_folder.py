"""Folders of images, by class and split."""

import os
import posixpath
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field, field_validator

from prefect_pipestream.errors import SampleError
from prefect_pipestream.exporting.exporter import Exporter, is_folder_name, place_below
from prefect_pipestream.items import MetadataItem
from prefect_pipestream.sequences import Sample
from prefect_pipestream.sequences.sources.import_source import CATEGORIES
from prefect_pipestream.sequences.sources.sidecars import check_sidecars
from prefect_pipestream.sequences.sources.splits import split_called


class ImagesExporter(Exporter):
    """Writes each image where it was at its source, and what stood beside it."""

    sidecars: dict[str, str] = Field(
        default_factory=dict,
        description='Items to write beside an image, by key: {"mask": "{stem}_mask.png"}.',
    )

    def write(self, idx: int, sample: Sample) -> None:
        """Writes the image, and the items beside it.

        Raises:
            SampleError: If there is no image.
            ItemError: If an item cannot be written.
        """
        file = self._place_of(idx, sample)
        patterns = {key: one for key, one in self.sidecars.items() if key in sample}
        for pattern in patterns.values():
            if place_below(posixpath.join(posixpath.dirname(file), pattern)) is None:
                raise SampleError(
                    f"sample {idx}: {pattern!r} beside {file!r} leads out of the export. Name "
                    "another pattern in `sidecars`."
                )
        path = self.free_path(idx, file, patterns.values())
        for key, pattern in patterns.items():
            beside = path.parent / pattern.replace("{stem}", path.stem)
            self.put(sample[key], Path(os.path.normpath(beside)))
        self.put(self.image_of(idx, sample), path)

    @field_validator("sidecars")
    @classmethod
    def _check_sidecars(cls, sidecars: dict[str, str]) -> dict[str, str]:
        return check_sidecars(sidecars)

    def _place_of(self, idx: int, sample: Sample) -> str:
        return self.file_of(idx, sample)


class ImageFolderExporter(ImagesExporter):
    """Writes each image into the folder of its class, by the `label` of its metadata.

    That is below the folder of its `split`, if it has one. Folders of its path stay below both, but
    for those of the split and the class that it had at its source. A sample of a split that has no
    class is in no other folder, which would be one.
    """

    def _place_of(self, idx: int, sample: Sample) -> str:
        facts = self.metadata_of(sample)
        known = {name: facts[name] for name in ("split", "label") if facts.get(name) is not None}
        for name, value in known.items():
            if not isinstance(value, int) and not is_folder_name(value):
                raise SampleError(
                    f"sample {idx}: `{name}` {value!r} is to be the name of a folder. Give it a "
                    f"text without slashes as `metadata.{name}`."
                )
        was = PurePosixPath(self.file_of(idx, sample))
        folders = list(was.parts[:-1])
        if "split" in known and folders and _is_split(folders[0], known):
            del folders[0]
        if "label" in known and folders and folders[0] in _classes_of(sample, known):
            del folders[0]
        if [*known] == ["split"]:
            folders = []
        return "/".join([*map(str, known.values()), *folders, was.name])


def _is_split(folder: str, known: Mapping[str, Any]) -> bool:
    """Whether a folder is that of a split, by its name or as the sample's own."""
    return folder == str(known["split"]) or split_called(folder) is not None


def _classes_of(sample: Sample, known: Mapping[str, Any]) -> set[str]:
    """The class of a sample and all that are listed, of which one was its class at its source."""
    item = sample.get(CATEGORIES)
    listed = item() if isinstance(item, MetadataItem) else None
    entries = listed if isinstance(listed, list) else []
    names = {str(one.get("name")) for one in entries if isinstance(one, Mapping)}
    return names | {str(known["label"])}
