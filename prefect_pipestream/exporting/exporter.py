"""The base of the exporters, and how a whole export gets to its place or does not."""

import importlib
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from prefect_pipestream.errors import (
    DatasetExistsError,
    DatasetWriteError,
    ItemError,
    PipeBuildingError,
    PipestreamError,
    SampleError,
)
from prefect_pipestream.items import ImageItem, Item, MetadataItem, SerializationMode
from prefect_pipestream.layouts import LAYOUTS, LayoutKind
from prefect_pipestream.sequences import Sample, SamplesSequence
from prefect_pipestream.sequences.building import construct
from prefect_pipestream.storage.asking import is_there
from prefect_pipestream.storage.new_dataset import new_sibling
from prefect_pipestream.underfolder import SampleFailure


@dataclass(frozen=True)
class ExportReport:
    """What became of an export.

    Attributes:
        folder: What was written.
        kind: The layout.
        samples: How many samples are in it.
        failures: Why samples are not in it, by index.
    """

    folder: str
    kind: str
    samples: int
    failures: dict[int, SampleFailure] = field(default_factory=dict)


class ExportError(PipestreamError):
    """More samples could not be exported than were allowed to; nothing is left of the export.

    Attributes:
        report: What would have been exported.
    """

    def __init__(self, report: ExportReport) -> None:
        self.report = report
        idx, first = next(iter(report.failures.items()))
        total = report.samples + len(report.failures)
        super().__init__(
            f"{len(report.failures):,} of {total:,} samples cannot be exported as {report.kind}, "
            f"more than `max_failed` allows. The first, sample {idx}: {first.error_type}: "
            f"{first.message}"
        )

    def __reduce__(self) -> tuple[type["ExportError"], tuple[ExportReport]]:
        return type(self), (self.report,)


class Exporter(BaseModel, ABC):
    """Writes samples in one layout, into an empty folder; its other fields are the options."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    folder: Path = Field(description="Where to write.")
    image_key: str = Field("image", description="The key of the image.")
    metadata_key: str = Field("metadata", description="The key of the metadata.")
    link: bool = Field(
        False, description="Whether files are hard links to the dataset's, not copies."
    )

    @abstractmethod
    def add(self, idx: int, sample: Sample) -> None:
        """Writes one sample, or nothing of it.

        Raises:
            ItemError, SampleError: If the sample cannot be written in this layout.
            OSError: If the disk cannot take it.
        """

    def finish(self) -> None:
        """Writes what is about all samples."""

    # -- what exporters have in common -----------------------------------------------------

    def metadata_of(self, sample: Sample) -> dict[str, Any]:
        """What is known of a sample; nothing where it has no metadata."""
        item = sample.get(self.metadata_key)
        value = item() if isinstance(item, MetadataItem) else None
        return value if isinstance(value, dict) else {}

    def image_of(self, idx: int, sample: Sample) -> Item[Any]:
        """The image of a sample.

        Raises:
            SampleError: If it has none.
        """
        item = sample.get(self.image_key)
        if not isinstance(item, ImageItem):
            raise SampleError(
                f"sample {idx} has no image {self.image_key!r} (its items: {', '.join(sample)}). "
                "Name another `image_key`, or leave the sample out."
            )
        return item

    def file_of(self, idx: int, sample: Sample) -> str:
        """The path of a sample's image in the export: that at its source, or `<index>.<ext>`.

        It has the extension that the image has now.
        """
        image = self.image_of(idx, sample)
        extension = image.extension_in_use()
        said = self.metadata_of(sample).get("file")
        if not isinstance(said, str) or not is_below(said):
            return f"{idx:06d}{extension}"
        stem, was = os.path.splitext(said)
        return said if was.lower() == extension.lower() else stem + extension

    def free_path(self, idx: int, file: str) -> Path:
        """Where a file goes, its folder made; another name where that one is taken.

        Raises:
            OSError: If the folder cannot be made.
        """
        path = self.folder / file
        os.makedirs(path.parent, exist_ok=True)
        return path.with_stem(f"{path.stem}-{idx}") if is_there(str(path)) else path

    def put(self, item: Item[Any], path: Path) -> None:
        """Writes an item's file: a copy (or link) of that which holds it, else encoded.

        Raises:
            ItemError: If it cannot be encoded.
            DatasetWriteError: If the disk cannot take it.
        """
        mode = SerializationMode.HARD_LINK if self.link else SerializationMode.DEEP_COPY
        _store(item, path, mode)

    def bytes_of(self, item: Item[Any], extension: str) -> bytes:
        """The content of the file that `put` would write, for a file that many items are in.

        Raises:
            ItemError: If it cannot be encoded.
            DatasetWriteError: If the disk cannot take it.
        """
        path = self.folder / f".item{extension}"
        try:
            _store(item, path, SerializationMode.HARD_LINK)
            return path.read_bytes()
        finally:
            path.unlink(missing_ok=True)


def _store(item: Item[Any], path: Path, mode: SerializationMode) -> None:
    options = item.encoder_options  # as of one that was turned upright
    wanted = item.with_options(**options) if options else type(item)(item)
    wanted.allow_pickle = item.allow_pickle
    wanted.serialization_mode = mode
    wanted.store(str(path))


def is_below(path: str) -> bool:
    """Whether a relative path stays below where it begins."""
    return not os.path.isabs(path) and ".." not in path.split("/") and path.isprintable()


def export(
    samples: SamplesSequence,
    kind: LayoutKind,
    target: str | os.PathLike[str],
    *,
    indices: Iterable[int] | None = None,
    max_failed: float = 0.0,
    on_progress: Callable[[int], None] | None = None,
    **options: Any,
) -> ExportReport:
    """Writes samples as another layout: the whole of it, or nothing.

    Args:
        samples: The samples; empty ones, as in the gaps of a dataset, are left out.
        kind: The layout, one of `LAYOUTS`.
        target: The folder to make; it must not be there.
        indices: The samples to write; by default all.
        max_failed: The share of samples that may be left out, as they cannot be written so.
        on_progress: Called now and then with the number of samples written so far.
        **options: Those of the layout: see its class below `exporting`.

    Returns:
        How many samples were written, and why others were not.

    Raises:
        DatasetExistsError: If there is something at the target.
        ExportError: If more than the share `max_failed` cannot be written.
        PipeBuildingError: If the kind or an option is wrong.
        MissingExtraError: If what the layout needs is not installed.
        DatasetWriteError: If the disk cannot take it.
    """
    root = os.path.abspath(os.path.expanduser(os.fspath(target)))
    if is_there(root):
        raise DatasetExistsError(f"{root} exists, and is not to be overwritten. Name another one.")
    make = exporter_of(kind)
    with DatasetWriteError.explaining(f"the export {root} cannot be written", "Nothing is left"):
        os.makedirs(os.path.dirname(root), exist_ok=True)
        fresh = new_sibling(root)
        os.mkdir(fresh)
        try:
            exporter = construct(make, kind, (), {**options, "folder": fresh})
            report = _write(exporter, samples, indices, ExportReport(root, kind, 0), on_progress)
            total = report.samples + len(report.failures)
            if len(report.failures) > max_failed * total:
                raise ExportError(report)
            exporter.finish()
            os.rename(fresh, root)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)  # not there, once it has its name
    return report


def _write(
    exporter: Exporter,
    samples: SamplesSequence,
    indices: Iterable[int] | None,
    report: ExportReport,
    on_progress: Callable[[int], None] | None,
) -> ExportReport:
    written = 0
    failures = {}
    for idx in range(len(samples)) if indices is None else indices:
        try:
            sample = samples[idx]
            if not any(not item.is_shared for item in sample.values()):
                continue
            exporter.add(idx, sample)
        except (ItemError, SampleError) as error:
            failures[idx] = SampleFailure.of_error(error)
        else:
            written += 1
            if on_progress is not None:
                on_progress(written)
    return ExportReport(report.folder, report.kind, written, failures)


def exporter_of(kind: str) -> type[Exporter]:
    """The class that writes a layout.

    Raises:
        PipeBuildingError: If there is no such layout.
    """
    layout = {str(known): layout for known, layout in LAYOUTS.items()}.get(kind)
    if layout is None:
        raise PipeBuildingError(f"there is no layout {kind!r}. Known: {', '.join(LAYOUTS)}.")
    module, _, name = layout.exporter.partition(":")
    found: type[Exporter] = getattr(importlib.import_module(f"{__package__}.{module}"), name)
    return found
