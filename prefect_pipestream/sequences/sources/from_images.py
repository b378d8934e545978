"""Images of a folder, each as a sample."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from prefect_pipestream.errors import DatasetError, DatasetNotFoundError
from prefect_pipestream.items import ImageItem, Item
from prefect_pipestream.sequences.registry import source_sequence
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.samples_sequence import SamplesSequence
from prefect_pipestream.storage.asking import is_folder


@source_sequence
class FromImages(SamplesSequence, title="from_images"):
    """Takes every image file in a folder as a sample. The folder is read once, when needed.

    Raises:
        DatasetNotFoundError: If the folder must exist and does not.
    """

    folder: Path
    must_exist: bool = True
    image_key: str = "image"
    sort_files: bool = False
    recursive: bool = True

    @DatasetError.explaining_questions()
    def model_post_init(self, context: Any) -> None:
        """Checks the folder."""
        if self.must_exist and not is_folder(str(self.folder)):
            raise DatasetNotFoundError(
                f"there is no folder {self.folder}: give the folder that holds the images."
            )

    @cached_property
    @DatasetError.explaining_questions()
    def _paths(self) -> list[str]:
        extensions = tuple(_image_extensions(ImageItem))
        paths = [
            os.path.join(where, name)
            for where, _, names in self._walk()
            for name in names
            if name.lower().endswith(extensions)
        ]
        return sorted(paths) if self.sort_files else paths

    def _walk(self) -> Iterator[tuple[str, list[str], list[str]]]:
        for found in os.walk(self.folder.absolute(), onerror=_refuse_to_skip):
            yield found
            if not self.recursive:
                return

    def size(self) -> int:
        """Returns the number of images."""
        return len(self._paths)

    def get_sample(self, idx: int) -> Sample:
        """Returns a sample with the one image, not decoded."""
        return Sample.of({self.image_key: Item.get_instance(self._paths[idx])})


def _image_extensions(cls: Any) -> Iterator[str]:
    for sub in cls.__subclasses__():
        yield from sub.file_extensions()
        yield from _image_extensions(sub)


def _refuse_to_skip(error: OSError) -> None:
    """Raises the error of a folder that is there and cannot be listed."""
    if not isinstance(error, FileNotFoundError):
        raise error
