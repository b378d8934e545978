"""Changes that wait for a person's decision: staged where nobody looks, applied or discarded later.

::

    .pipestream/review/<id>/review.json    what is staged, and what it was made from
    .pipestream/review/<id>/staged/        the new files; in a bucket they are among its objects

Nothing of a dataset's samples changes before `apply_review`, which commits what was approved
by the usual protocol: atomically, noted in a run's ledger, and undoable. A review outlives the
process that made it. What is decided of it until then is kept beside it (see `review_decisions`).

Some of this is done in another way in a bucket: take it from `opening`.
"""

import json
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter

from prefect_pipestream.errors import ConflictError, DatasetError, DatasetNotFoundError
from prefect_pipestream.storage.address import Address, Place, is_address
from prefect_pipestream.storage.asking import is_folder, is_there
from prefect_pipestream.storage.file_source import FileSource
from prefect_pipestream.storage.removing import remove
from prefect_pipestream.storage.version import Version
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.commits.staging import StagedSample, Staging
from prefect_pipestream.underfolder.commits.writer import UnderfolderWriter
from prefect_pipestream.underfolder.format.documents import Documents, documents_of
from prefect_pipestream.underfolder.format.layout import (
    Folder,
    Layout,
    folder_of,
    run_key_of,
    staged_name,
)
from prefect_pipestream.underfolder.format.names import MAX_INDEX, is_shared
from prefect_pipestream.underfolder.format.origin import SampleOrigin
from prefect_pipestream.underfolder.format.ref import Ref
from prefect_pipestream.underfolder.format.run_key import is_run_key
from prefect_pipestream.underfolder.ledger.failure import SampleFailure
from prefect_pipestream.underfolder.ledger.records import (
    CHANGING,
    Outcome,
    SampleRecord,
    is_time,
    refuse_paths,
)
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.runs.packing import end_run

FORMAT = 3
REVIEWS = "review"
"""The folder of reviews, among the private documents."""
TAG = "review"
"""The part of its run that a review is."""
_CONFLICT = ConflictError.__name__
_CHANGED = "another writer changed the sample after its change was computed. Review it anew."


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
    sources: Mapping[str, "_Source"] = field(default_factory=dict)
    failure: tuple[str, str, str] | None = None

    def origin(self, dataset: Underfolder) -> SampleOrigin:
        """The files that it was made from, where the dataset is now."""
        files = {name: source.of(name, dataset) for name, source in self.sources.items()}
        return SampleOrigin(str(dataset.folder), self.idx, files)


@dataclass(frozen=True)
class _Source:
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
    def saved(cls, source: FileSource) -> "_Source":
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
class ReviewOutcome:
    """What became of the samples of a review.

    Attributes:
        applied: The samples that were written or removed.
        discarded: Those that were not, as it was decided.
        conflicts: Those that were approved, and that another writer had changed meanwhile.
    """

    applied: tuple[int, ...]
    discarded: tuple[int, ...]
    conflicts: tuple[int, ...]


# -- as it is kept -------------------------------------------------------------------------------


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


@DatasetError.explaining_questions()
def discard_review(folder: Folder, review_id: str) -> None:
    """Removes a review and its staged files, if there is one.

    Args:
        folder: The dataset.
        review_id: The review's name.

    Raises:
        DatasetError: If it stays.
    """
    layout = Layout.of(folder)
    _remove(layout, layout.at(*named(review_id)))


def _remove(layout: Layout, review: str) -> None:
    """Removes the folder of a review at once; what is left of it then is swept by a writer."""
    doomed = layout.at("staged", f"review-{secrets.token_hex(4)}")
    if is_there(review):
        os.rename(review, doomed)
        with suppress(OSError):
            remove(doomed)


def staged_source(review: Review, name: str) -> FileSource:
    """A staged file.

    Args:
        review: The review.
        name: The name that the file gets.

    Raises:
        DatasetError: If it is a symbolic link.
    """
    return FileSource(Layout.of(review.folder).at(*named(review.id, "staged", staged_name(name))))


# -- making one ----------------------------------------------------------------------------


@contextmanager
def staging_of_review(
    folder: Folder, review_id: str, writer: UnderfolderWriter
) -> Iterator[Staging]:
    """Gives an empty staging for a review, and removes reviews that expired.

    What a killed process left of a review of the same name is removed.

    Args:
        folder: The dataset.
        review_id: The review's name.
        writer: A writer of the dataset.
    """
    with DatasetError.explaining_questions():
        layout = Layout.of(folder)
        for name in expired_reviews(documents_of(folder)):
            _remove(layout, layout.at(REVIEWS, name))
        mine = layout.at(*named(review_id))
        _remove(layout, mine)
        staged = os.path.join(mine, "staged")
        os.makedirs(staged)
    yield writer.staging_in(staged)


def keep_review(review: Review, staging: Staging) -> Review:
    """Keeps a review with all that is staged: from here on it survives its process.

    Args:
        review: The review.
        staging: What is staged.

    Returns:
        The review as it is kept.
    """
    save_review(review)
    return review


def reviewed_samples(staging: Staging) -> list[ReviewedSample]:
    """What the staged samples would be written as, and what they were made from."""
    return [_reviewed(staged) for staged in staging.in_order()]


def _reviewed(staged: StagedSample) -> ReviewedSample:
    record, origin = staged.record, staged.origin
    why = record.failure
    if not staged.changes_files:
        failure = None if why is None else (why.error_type, why.message, why.traceback)
        return ReviewedSample(record.idx, record.outcome, failure=failure)
    sources = {} if origin is None else origin.sources
    return ReviewedSample(
        idx=record.idx,
        outcome="removed" if staged.is_removal else "written",
        files=tuple(file.name for file in staged.files),
        sources={name: _Source.saved(source) for name, source in sources.items()},
    )


# -- deciding ------------------------------------------------------------------------------


@DatasetError.explaining_questions()
def apply_review(
    review: Review, approved: Collection[int], facts: Mapping[str, Any]
) -> ReviewOutcome:
    """Commits the approved samples, all together, and notes the others as skipped.

    A call that was interrupted is to be repeated: what is done is not done again, nor undone by
    another decision.

    Args:
        review: The review.
        approved: The indices of the samples to write, or to remove.
        facts: What the ledger is to say of the run: who decided what.

    Returns:
        What became of the samples.

    Raises:
        DatasetNotFoundError: If the dataset is not there any more. Where it was moved to, load the
            review again.
        DatasetWriteError: If the disk cannot take it; the dataset is as it was.
    """
    layout = Layout.of(review.folder)
    if not is_folder(layout.root):
        raise DatasetNotFoundError(
            f"Dataset {layout.root}: no such folder. If it was moved, load the review again, from "
            "where it is now."
        )
    run = Run.of(layout, review.id)
    run.note(facts)
    run.update(**facts)
    writer = UnderfolderWriter(review.folder, exists_ok=True, run_key=review.id)
    with writer.staging() as staging:
        stage_decided(review, approved, run.done_indices(), staging, staged_source)
        stale = _published(writer, staging)
    _record_conflicts(writer, stale)
    end_run(run)
    return outcome_of(review, run)


def stage_decided(
    review: Review,
    approved: Collection[int],
    done: Collection[int],
    staging: Staging,
    source_of: Callable[[Review, str], FileSource],
) -> None:
    """Stages what was approved of a review, and notes what was not.

    Args:
        review: The review.
        approved: The samples to write, or to remove.
        done: The samples that the run has done already.
        staging: Where that is staged.
        source_of: Gives a staged file of the review, by the name that it gets.
    """
    wanted = {sample.idx for sample in review.changed}.intersection(approved).difference(done)
    for sample in review.samples:
        if sample.idx not in wanted:
            if sample.idx not in done:
                staging.record(_record_of(sample))
            continue
        origin = sample.origin(staging.dataset)
        if sample.outcome == "removed":
            staging.remove(sample.idx, origin=origin)
        else:
            files = {name: source_of(review, name) for name in sample.files}
            staging.restore(sample.idx, files, origin=origin)
    if wanted:
        staging.restore_shared({name: source_of(review, name) for name in review.shared})


def outcome_of(review: Review, run: Run) -> ReviewOutcome:
    """What became of the samples of a review that was applied, by the ledger of its run."""
    records = run.outcomes()
    changed = {sample.idx for sample in review.changed}
    applied = {idx for idx in changed if idx in records and records[idx].outcome in CHANGING}
    conflicts = {idx for idx in changed if idx in records and is_conflict(records[idx])}
    return ReviewOutcome(
        applied=tuple(sorted(applied)),
        discarded=tuple(sorted(changed - applied - conflicts)),
        conflicts=tuple(sorted(conflicts)),
    )


def is_conflict(record: SampleRecord) -> bool:
    """Whether a sample was approved, and is as somebody else left it meanwhile."""
    return record.failure is not None and record.failure.error_type == _CONFLICT


def _published(writer: UnderfolderWriter, staging: Staging) -> set[int]:
    """Commits what is staged; gives the samples that others changed since they were read."""
    try:
        writer.publish(staging, TAG)
    except ConflictError as error:
        return set(error.indices)
    return set()


def _record_of(sample: ReviewedSample) -> SampleRecord:
    """What the ledger says of a sample that is not written."""
    outcome: Outcome = "skipped" if sample.outcome in CHANGING else sample.outcome
    failure = None if sample.failure is None else SampleFailure(*sample.failure)
    return SampleRecord(sample.idx, outcome, failure=failure)


def _record_conflicts(writer: UnderfolderWriter, indices: Iterable[int]) -> None:
    with writer.staging() as staging:
        for idx in sorted(indices):
            staging.record(conflict_record(idx))
        if len(staging):
            writer.publish(staging, TAG)


def conflict_record(idx: int) -> SampleRecord:
    """What the ledger says of an approved sample that others changed meanwhile."""
    return SampleRecord(idx, "failed", failure=SampleFailure(_CONFLICT, _CHANGED, ""))
