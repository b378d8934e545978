"""A review as it is kept: what is staged of a dataset, and what it was made from.

::

    .pipestream/review/<id>/review.json    what is staged, and what it was made from
    .pipestream/review/<id>/staged/        the new files; in a bucket they are among its objects

What is done with one is in `staged_review`.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from uuid import UUID

from pydantic import TypeAdapter

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.address import Address, Place, is_address
from prefect_pipestream.storage.file_source import FileSource
from prefect_pipestream.storage.version import Version
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.format.documents import Documents, documents_of
from prefect_pipestream.underfolder.format.layout import Folder, folder_of, run_key_of
from prefect_pipestream.underfolder.format.names import MAX_INDEX, is_shared
from prefect_pipestream.underfolder.format.origin import SampleOrigin
from prefect_pipestream.underfolder.format.ref import Ref
from prefect_pipestream.underfolder.format.run_key import is_run_key
from prefect_pipestream.underfolder.ledger.records import CHANGING, Outcome, is_time, refuse_paths

FORMAT = 3
REVIEWS = "review"
"""The folder of reviews, among the private documents."""


@dataclass(frozen=True)
class ReviewedSample:
    """One sample of a review.

    Attributes:
        idx: Its index.
        outcome: What became of it: ``written`` and ``removed`` ones are to be decided about.
        files: The names that its staged files get.
        sources: The files that it was made from, by name.
        failure: Why it failed: error type, message, traceback.
    """

    idx: int
    outcome: Outcome
    files: tuple[str, ...] = ()
    sources: Mapping[str, "SavedSource"] = field(default_factory=dict)
    failure: tuple[str, str, str] | None = None

    def origin(self, dataset: Underfolder) -> SampleOrigin:
        """The files that it was made from, where the dataset is now."""
        files = {name: source.of(name, dataset) for name, source in self.sources.items()}
        return SampleOrigin(str(dataset.folder), self.idx, files)


@dataclass(frozen=True)
class SavedSource:
    """What is saved of a `FileSource`.

    Attributes:
        size: See `Version`, here and below; None: the version is not known.
        mtime_ns: It may be copied elsewhere with the dataset: its inode is left out.
        digest: As hexadecimal digits. Where there is one it is compared, whatever the times say:
            until the decision days may pass, and the time of reading is left out.
        is_newer: See `FileSource`.
    """

    size: int | None
    mtime_ns: int = 0
    digest: str | None = None
    is_newer: bool = False

    @classmethod
    def saved(cls, source: FileSource) -> "SavedSource":
        """What is to be saved of a file."""
        version = source.version
        if version is None:
            return cls(None, is_newer=source.is_newer)
        digest = None if version.digest is None else version.digest.hex()
        return cls(version.size, version.mtime_ns, digest, source.is_newer)

    @property
    def version(self) -> Version | None:
        """The version that the file had.

        Raises:
            ValueError: If the digest is none.
        """
        if self.size is None:
            return None
        digest = None if self.digest is None else bytes.fromhex(self.digest)
        return Version(self.size, self.mtime_ns, digest=digest)

    def of(self, name: str, dataset: Underfolder) -> FileSource:
        """The file of a dataset, as it was."""
        return dataset.source_as_it_was(name, self.version, self.is_newer)


@dataclass(frozen=True)
class Review:
    """Staged changes, as they are kept.

    Attributes:
        id: The review's name, and the key of the run that applies it.
        folder: The dataset.
        samples: Its samples, by index.
        shared: The names of staged shared items that the dataset does not have yet.
        expires: When it may be removed, in seconds since the epoch.
        flow_run: The id of the Prefect flow run that waits for the decision, and applies it; None
            where whoever decides does.
        contents: Where the staged files are, of a review in a bucket: by the names that they get.
    """

    id: str
    folder: Place
    samples: tuple[ReviewedSample, ...]
    shared: tuple[str, ...]
    expires: float
    flow_run: str | None = None
    contents: Mapping[str, Ref] = field(default_factory=dict)

    @property
    def changed(self) -> tuple[ReviewedSample, ...]:
        """The samples to decide about."""
        return tuple(sample for sample in self.samples if sample.outcome in CHANGING)


@dataclass(frozen=True)
class _Saved:
    """What ``review.json`` says. It names no paths: a dataset is moved, or comes from anybody."""

    format: int
    id: str
    samples: tuple[ReviewedSample, ...]
    shared: tuple[str, ...]
    expires: float
    flow_run: str | None = None
    contents: Mapping[str, Ref] = field(default_factory=dict)

    def check(self, review_id: str) -> None:
        """Raises `ValueError` if it is not what this version wrote for this review."""
        if self.format != FORMAT:
            raise ValueError(f"its format is {self.format}, and {FORMAT} is known here")
        if self.id != review_id or not is_time(self.expires):
            raise ValueError(f"it is of {self.id!r}, until {self.expires}")
        if self.flow_run is not None:
            UUID(self.flow_run)
        for sample in self.samples:
            if not 0 <= sample.idx < MAX_INDEX:
                raise ValueError(f"there is no sample {sample.idx}")
            refuse_paths(sample.files)
            for name, source in sample.sources.items():
                refuse_paths([name.removeprefix("/")])
                _ = source.version
        if not all(is_shared(name) for name in self.shared):
            raise ValueError(f"it shares {self.shared!r:.100}")
        refuse_paths(name[1:] for name in self.shared)

    def check_contents(self) -> None:
        """Raises `ValueError` if it does not say where each staged file is."""
        names = (name for sample in self.samples for name in sample.files)
        lost = [name for name in (*names, *self.shared) if name not in self.contents]
        if lost:
            raise ValueError(f"it does not say where {lost[0]} is")


def named(review_id: str, *name: str) -> tuple[str, ...]:
    """The parts by which a document of a review is known, or its folder."""
    return (REVIEWS, folder_of(review_id), *name)


def review_file(review_id: str) -> tuple[str, ...]:
    """The document that says what is staged; it is written anew when that changes."""
    return named(review_id, "review.json")


@DatasetError.explaining_questions()
def save_review(review: Review) -> None:
    """Writes down what is staged: from here on the review survives its process."""
    documents_of(review.folder).write(content_of(review), *review_file(review.id))


def content_of(review: Review) -> bytes:
    """What ``review.json`` says of a review."""
    saved = _Saved(
        FORMAT,
        review.id,
        review.samples,
        review.shared,
        review.expires,
        review.flow_run,
        review.contents,
    )
    return json.dumps(asdict(saved), indent=1).encode()


@DatasetError.explaining_questions()
def review_ids(folder: Folder | Place) -> list[str]:
    """The names of the reviews that are there, readable or not."""
    documents = documents_of(folder)
    found = []
    for name in sorted(documents.names_in(REVIEWS)):
        try:
            noted = documents.read_json(REVIEWS, name, "review.json").get("id")
        except DatasetError:  # a link: who loads it is told
            noted = None
        is_its = isinstance(noted, str) and is_run_key(noted) and folder_of(noted) == name
        found.append(str(noted) if is_its else run_key_of(name))
    return found


@DatasetError.explaining_questions()
def load_review(folder: Folder | Place, review_id: str) -> Review | None:
    """A review as it was saved; None where there is none.

    Raises:
        DatasetError: If it is damaged, or of a format that this version does not know.
    """
    documents = documents_of(folder)
    name = review_file(review_id)
    try:
        content = documents.read(*name)
        if content is None:
            return None
        saved = TypeAdapter(_Saved).validate_json(content, strict=True)
        saved.check(review_id)
        if is_address(folder):
            saved.check_contents()
    except ValueError as error:
        raise DatasetError(
            f"{documents.at(*name)}: this review cannot be read ({error}). Remove "
            f"{documents.at(*name[:-1])} and review the changes anew."
        ) from error
    return Review(
        review_id,
        Address.of(folder) if is_address(folder) else Path(documents.root),
        saved.samples,
        saved.shared,
        saved.expires,
        saved.flow_run,
        saved.contents,
    )


def expired_reviews(documents: Documents) -> Iterator[str]:
    """The names of the folders of reviews whose time is over."""
    for name in documents.names_in(REVIEWS):
        expires = documents.read_json(REVIEWS, name, "review.json").get("expires")
        if is_time(expires) and expires < time.time():
            yield name
