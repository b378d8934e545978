"""Folders of images, by class and split."""

from pathlib import PurePosixPath

from pydantic import Field

from prefect_pipestream.errors import SampleError
from prefect_pipestream.exporting.exporter import Exporter, is_below
from prefect_pipestream.sequences import Sample


class ImagesExporter(Exporter):
    """Writes each image where it was at its source, and what stood beside it."""

    sidecars: dict[str, str] = Field(
        default_factory=dict,
        description='Items to write beside an image, by key: {"mask": "{stem}_mask.png"}.',
    )

    def add(self, idx: int, sample: Sample) -> None:
        """Writes the image, and the items beside it.

        Raises:
            SampleError: If there is no image.
            ItemError: If an item cannot be written.
        """
        image = self.image_of(idx, sample)
        path = self.free_path(idx, self._place_of(idx, sample))
        for key, pattern in self.sidecars.items():
            if key in sample:
                beside = path.parent / pattern.replace("{stem}", path.stem)
                beside.parent.mkdir(parents=True, exist_ok=True)
                self.put(sample[key], beside)
        self.put(image, path)

    def _place_of(self, idx: int, sample: Sample) -> str:
        return self.file_of(idx, sample)


class ImageFolderExporter(ImagesExporter):
    """Writes each image into the folder of its class, by the `label` of its metadata."""

    def _place_of(self, idx: int, sample: Sample) -> str:
        facts = self.metadata_of(sample)
        known = {name: facts[name] for name in ("split", "label") if facts.get(name) is not None}
        for name, value in known.items():
            if not _is_folder_name(value):
                raise SampleError(
                    f"sample {idx}: `{name}` {value!r} is to be the name of a folder. Give it a "
                    f"text without slashes as `metadata.{name}`."
                )
        was = PurePosixPath(self.file_of(idx, sample))
        return "/".join([*map(str, known.values()), *was.parts[len(known) : -1], was.name])


def _is_folder_name(value: object) -> bool:
    if isinstance(value, int):
        return True
    return (
        isinstance(value, str) and is_below(value) and "/" not in value and value not in ("", ".")
    )
