"""The base of the exporters, and how a whole export gets to its place or does not."""

import errno
import importlib
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from prefect_pipestream.errors import (
    DatasetError,
    DatasetExistsError,
    DatasetWriteError,
    ItemError,
    PipeBuildingError,
    PipestreamError,
    SampleError,
)
from prefect_pipestream.items import (
    ImageItem,
    Item,
    MetadataItem,
    SerializationMode,
    data_cache,
)
from prefect_pipestream.layouts import LAYOUTS, LayoutKind
from prefect_pipestream.sequences import Sample, SamplesSequence
from prefect_pipestream.sequences.building import construct
from prefect_pipestream.sequences.sources.import_source import ANNOTATIONS
from prefect_pipestream.storage.address import is_address, place_of
from prefect_pipestream.storage.asking import is_there
from prefect_pipestream.storage.new_dataset import new_sibling
from prefect_pipestream.storage.paths_below import relative
from prefect_pipestream.underfolder import SampleFailure

_NOTHING_LEFT = "Nothing is left"


@dataclass(frozen=True)
class ExportReport:
    """What became of an export.

    Attributes:
        folder: What was written.
        kind: The layout.
        samples: How many samples are in it.
        failures: Why samples are not in it, by index.
        labels_left_out: How many samples have a `label` of the whole image and no objects, where
            the layout has a place for objects alone.
    """

    folder: str
    kind: str
    samples: int
    failures: dict[int, SampleFailure] = field(default_factory=dict)
    labels_left_out: int = 0


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

    # Whether the layout has a place for objects alone, not for a label of the whole image.
    is_of_objects: ClassVar[bool] = False

    _begun: list[Path] = PrivateAttr(default_factory=list)

    def add(self, idx: int, sample: Sample) -> None:
        """Writes one sample, or nothing of it.

        Raises:
            ItemError, SampleError: If the sample cannot be written in this layout.
            OSError: If the disk cannot take it.
        """
        self._begun.clear()
        take_back = self.noted()
        try:
            self.write(idx, sample)
        except BaseException as error:
            take_back()
            self._remove_begun()
            if _is_of_sample(error):
                raise SampleError(
                    f"sample {idx} cannot be written in this layout: {_said(error)}. "
                    f"Correct its `{self.metadata_key}` or its other items, or leave it out."
                ) from error
            raise

    @abstractmethod
    def write(self, idx: int, sample: Sample) -> None:
        """Writes one sample; what it began is removed by `add` if it raises.

        Raises:
            ItemError, SampleError: If the sample cannot be written in this layout.
            OSError: If the disk cannot take it.
        """

    def noted(self) -> Callable[[], None]:
        """Returns what takes back all that is noted from now on, as of classes; by default none."""
        return lambda: None

    def _remove_begun(self) -> None:
        """Removes the files of a sample, and the folders that are empty without them."""
        for path in reversed(self._begun):
            if os.path.lexists(path):
                path.unlink()
            for folder in path.parents:
                if folder == self.folder:
                    break
                if os.path.isdir(folder) and not os.listdir(folder):
                    folder.rmdir()

    def finish(self) -> None:
        """Writes what is about all samples."""

    def leaves_label_out(self, sample: Sample) -> bool:
        """Whether a sample that was written has a label that is not in the export."""
        if not self.is_of_objects or "label" not in self.metadata_of(sample):
            return False
        item = sample.get(ANNOTATIONS)
        return item is None or not item()

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
        said = place_below(self.metadata_of(sample).get("file"))
        if said is None:
            return f"{idx:06d}{extension}"
        stem, was = os.path.splitext(said)
        return said if was.lower() == extension.lower() else stem + extension

    def free_path(self, idx: int, file: str, beside: Iterable[str] = ()) -> Path:
        """Where a file goes: another name where that one is taken, or one of a file beside it.

        Args:
            idx: The index of the sample, for that other name.
            file: The wanted path, below the folder.
            beside: Paths of files beside it, relative to its folder, with `{stem}`.
        """
        path = self.folder / file

        def is_taken(stem: str) -> bool:
            others = [path.parent / one.replace("{stem}", stem) for one in beside]
            return any(is_there(str(one)) for one in [path.with_stem(stem), *others])

        return path.with_stem(free_name(path.stem, idx, is_taken))

    def begin(self, path: Path) -> None:
        """Makes the folder of a file of the sample, which is removed if the sample fails.

        Raises:
            SampleError: If there is a file of this path.
            OSError: If the folder cannot be made.
        """
        if is_there(str(path)):
            raise SampleError(
                f"{path.relative_to(self.folder)} would be written twice. Give each file of a "
                "sample a name of its own."
            )
        self._begun.append(path)
        os.makedirs(path.parent, exist_ok=True)

    def put(self, item: Item[Any], path: Path) -> None:
        """Writes an item's file: a copy (or link) of that which holds it, else encoded.

        Raises:
            ItemError: If it cannot be encoded.
            SampleError: If there is a file of this path.
            DatasetWriteError: If the disk cannot take it.
        """
        self.begin(path)
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


# Errors of the operating system that are about a name, or about two that exclude each other.
_ERRNOS_OF_A_NAME = (
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
)
_ERRORS_OF_VALUES = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError)


def _is_of_sample(error: BaseException) -> bool:
    """Whether an error that says nothing of a sample comes from what a sample has."""
    if isinstance(error, OSError):
        return error.errno in _ERRNOS_OF_A_NAME
    is_known = isinstance(error, PipestreamError)
    return not is_known and isinstance(error, (*_ERRORS_OF_VALUES, RecursionError))


def _said(error: BaseException) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror} ({os.path.basename(error.filename or '')})"
    return f"{type(error).__name__}: {error}"


def place_below(said: object) -> str | None:
    """The path of a file to write, as `relative` has it; None also if it cannot be shown."""
    path = relative(said)
    return path if path is not None and path.isprintable() else None


def is_folder_name(said: object) -> bool:
    """Whether a value can be the name of a folder, or part of the name of a file."""
    return isinstance(said, str) and "/" not in said and place_below(said) == said


def free_name(stem: str, idx: int, is_taken: Callable[[str], bool]) -> str:
    """A name without extension that no other sample has: with its index, as often as it takes."""
    while is_taken(stem):
        stem = f"{stem}-{idx}"
    return stem


def export(
    samples: SamplesSequence,
    kind: LayoutKind,
    target: str | os.PathLike[str],
    *,
    indices: Iterable[int] | None = None,
    max_failed: float = 0.0,
    **options: Any,
) -> ExportReport:
    """Writes samples as another layout: the whole of it, or nothing.

    Args:
        samples: The samples; empty ones, as in the gaps of a dataset, are left out.
        kind: The layout, one of `LAYOUTS`.
        target: The folder to make; it must not be there.
        indices: The samples to write; by default all.
        max_failed: The share of samples that may be left out, as they cannot be written so.
        **options: Those of the layout: see its class below `exporting`.

    Returns:
        How many samples were written, and why others were not.

    Raises:
        DatasetExistsError: If there is something at the target.
        DatasetError: If the target is the address of an object store.
        ExportError: If more than the share `max_failed` cannot be written.
        PipeBuildingError: If the kind or an option is wrong.
        MissingExtraError: If what the layout needs is not installed.
        DatasetWriteError: If the disk cannot take it.
    """
    place = place_of(target)
    if is_address(place):
        raise DatasetError(
            f"{place}: an export is written to a folder of this machine, and not to an object "
            "store. Name a folder, and copy what is in it there."
        )
    root = os.path.abspath(os.path.expanduser(place))
    if is_there(root):
        raise DatasetExistsError(f"{root} exists, and is not to be overwritten. Name another one.")
    make = exporter_of(kind)
    explained = DatasetWriteError.explaining(f"the export {root} cannot be written", _NOTHING_LEFT)
    with explained, _new_folder(root) as fresh:
        exporter = construct(make, kind, (), {**options, "folder": fresh})
        with data_cache(MetadataItem):  # an exporter asks for each more than once
            report = _write(exporter, samples, indices, ExportReport(root, kind, 0))
        total = report.samples + len(report.failures)
        if len(report.failures) > max_failed * total:
            raise ExportError(report)
        exporter.finish()
        os.rename(fresh, root)
    return report


@contextmanager
def _new_folder(root: str) -> Iterator[str]:
    """Makes a folder that is to get another name inside, and those above; or none is left."""
    above = [Path(root).parent, *Path(root).parent.parents]
    made = [folder for folder in above if not is_there(str(folder))]
    fresh = new_sibling(root)
    try:
        os.makedirs(fresh)
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # not there, once it has its name
        for folder in made:
            if folder.is_dir() and not os.listdir(folder):
                folder.rmdir()


def _write(
    exporter: Exporter,
    samples: SamplesSequence,
    indices: Iterable[int] | None,
    report: ExportReport,
) -> ExportReport:
    written = labels_left_out = 0
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
            labels_left_out += exporter.leaves_label_out(sample)
    return ExportReport(report.folder, report.kind, written, failures, labels_left_out)


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
