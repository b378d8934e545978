"""Changes that wait for a person's decision: staged on disk, applied or discarded later.

::

    .pipestream/review/<id>/review.json    what is staged, and what it was made from
    .pipestream/review/<id>/staged/        the new files

Nothing of a dataset's samples changes before `apply_review`, which commits what was approved
by the usual protocol: atomically, noted in a run's ledger, and undoable. A review outlives the
process that made it. What is decided of it until then is kept beside it (see `review_decisions`).
"""

import os
import secrets
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter

from prefect_pipestream.errors import ConflictError, DatasetError, DatasetNotFoundError
from prefect_pipestream.storage.asking import is_folder, is_there, names_in
from prefect_pipestream.storage.file_source import FileSource
from prefect_pipestream.storage.removing import remove
from prefect_pipestream.storage.untrusted import read_json, read_regular
from prefect_pipestream.storage.version import Version
from prefect_pipestream.underfolder.commits.staging import StagedSample, Staging
from prefect_pipestream.underfolder.commits.writer import UnderfolderWriter
from prefect_pipestream.underfolder.format.layout import (
    Folder,
    Layout,
    folder_of,
    run_key_of,
    staged_name,
)
from prefect_pipestream.underfolder.format.names import MAX_INDEX, is_shared
from prefect_pipestream.underfolder.format.origin import SampleOrigin
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

FORMAT = 3
_TAG = "review"
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

    def origin(self, layout: Layout) -> SampleOrigin:
        """The files that it was made from, where the dataset is now."""
        files = {name: source.at(layout.final(name)) for name, source in self.sources.items()}
        return SampleOrigin(layout.root, self.idx, files)


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
    def of(cls, source: FileSource) -> "_Source":
        version = source.version
        if version is None:
            return cls(None, is_newer=source.is_newer)
        digest = None if version.digest is None else version.digest.hex()
        return cls(version.size, version.mtime_ns, digest, source.is_newer)

    def at(self, path: str) -> FileSource:
        """The file at its path, as it was.

        Raises:
            ValueError: If the digest is none.
        """
        version = None
        if self.size is not None:
            digest = None if self.digest is None else bytes.fromhex(self.digest)
            version = Version(self.size, self.mtime_ns, digest=digest)
        return FileSource(path, version, is_newer=self.is_newer)


@dataclass(frozen=True)
class Review:
    """Staged changes, as they are on disk.

    Attributes:
        id: The review's name, and the key of the run that applies it.
        folder: The dataset.
        samples: Its samples, by index.
        shared: The names of staged shared items that the dataset does not have yet.
        expires: When it may be removed, in seconds since the epoch.
        flow_run: The id of the Prefect flow run that waits for the decision, and applies it; None
            where whoever decides does.
    """

    id: str
    folder: Path
    samples: tuple[ReviewedSample, ...]
    shared: tuple[str, ...]
    expires: float
    flow_run: str | None = None

    def staged_path(self, name: str) -> str:
        """The path of the staged file that gets this name.

        Raises:
            DatasetError: If it is a symbolic link.
        """
        layout = Layout.of(self.folder)
        return layout.at("review", folder_of(self.id), "staged", staged_name(name))

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


# -- on disk -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Saved:
    """What ``review.json`` says. It names no paths: a dataset is moved, or comes from anybody."""

    format: int
    id: str
    samples: tuple[ReviewedSample, ...]
    shared: tuple[str, ...]
    expires: float
    flow_run: str | None = None

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
                source.at(name)
        if not all(is_shared(name) for name in self.shared):
            raise ValueError(f"it shares {self.shared!r:.100}")
        refuse_paths(name[1:] for name in self.shared)


def review_folder(layout: Layout, review_id: str) -> str:
    """The folder of a review."""
    return layout.at("review", folder_of(review_id))


@DatasetError.explaining_questions()
def new_review_folder(folder: Folder, review_id: str) -> str:
    """Makes the empty folder for the files of a review, and removes reviews that expired.

    What a killed process left of a review of the same name is removed.

    Returns:
        The folder for the staged files.
    """
    layout = Layout.of(folder)
    for name in names_in(layout.reviews):
        expires = read_json(layout.at("review", name, "review.json")).get("expires")
        if is_time(expires) and expires < time.time():
            _remove(layout, layout.at("review", name))
    mine = review_folder(layout, review_id)
    _remove(layout, mine)
    staged = os.path.join(mine, "staged")
    os.makedirs(staged)
    return staged


@DatasetError.explaining_questions()
def save_review(review: Review) -> None:
    """Writes down what is staged: from here on the review survives its process."""
    saved = _Saved(
        FORMAT, review.id, review.samples, review.shared, review.expires, review.flow_run
    )
    layout = Layout.of(review.folder)
    layout.write_json(review_file(layout, review.id), asdict(saved))


@DatasetError.explaining_questions()
def review_ids(folder: Folder) -> list[str]:
    """The names of the reviews that are there, readable or not."""
    layout = Layout.of(folder)
    found = []
    for name in sorted(names_in(layout.reviews)):
        try:
            noted = read_json(layout.at("review", name, "review.json")).get("id")
        except DatasetError:  # a link: who loads it is told
            noted = None
        is_its = isinstance(noted, str) and is_run_key(noted) and folder_of(noted) == name
        found.append(str(noted) if is_its else run_key_of(name))
    return found


def review_file(layout: Layout, review_id: str) -> str:
    """The file that says what is staged; it is written anew when that changes."""
    return layout.at("review", folder_of(review_id), "review.json")


@DatasetError.explaining_questions()
def load_review(folder: Folder, review_id: str) -> Review | None:
    """A review as it was saved; None where there is none.

    Raises:
        DatasetError: If it is damaged, or of a format that this version does not know.
    """
    layout = Layout.of(folder)
    path = review_file(layout, review_id)
    if not is_there(path):
        return None
    try:
        saved = TypeAdapter(_Saved).validate_json(read_regular(path), strict=True)
        saved.check(review_id)
    except ValueError as error:
        raise DatasetError(
            f"{path}: this review cannot be read ({error}). Remove {os.path.dirname(path)} and "
            "review the changes anew."
        ) from error
    root = Path(layout.root)
    return Review(review_id, root, saved.samples, saved.shared, saved.expires, saved.flow_run)


@DatasetError.explaining_questions()
def discard_review(folder: Folder, review_id: str) -> None:
    """Removes a review and its staged files, if there is one.

    Raises:
        DatasetError: If it stays.
    """
    layout = Layout.of(folder)
    _remove(layout, review_folder(layout, review_id))


def _remove(layout: Layout, review: str) -> None:
    """Removes the folder of a review at once; what is left of it then is swept by a writer."""
    doomed = layout.at("staged", f"review-{secrets.token_hex(4)}")
    if is_there(review):
        os.rename(review, doomed)
        with suppress(OSError):
            remove(doomed)


# -- making one ----------------------------------------------------------------------------


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
        sources={name: _Source.of(source) for name, source in sources.items()},
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
    wanted = {sample.idx for sample in review.changed} & set(approved)
    done = run.done_indices()
    records = run.outcomes() if done else {}
    written = {idx for idx in done if records[idx].outcome in CHANGING}
    writer = UnderfolderWriter(review.folder, exists_ok=True, run_key=review.id)
    with writer.staging() as staging:
        for sample in review.samples:
            if sample.idx in wanted - done and sample.outcome == "removed":
                staging.remove(sample.idx, origin=sample.origin(layout))
            elif sample.idx in wanted - done:
                files = {name: review.staged_path(name) for name in sample.files}
                staging.restore(sample.idx, files, origin=sample.origin(layout))
            elif sample.idx not in done:
                staging.record(_record_of(sample))
        if wanted - done:
            staging.restore_shared({name: review.staged_path(name) for name in review.shared})
        stale = _published(writer, staging)
    _record_conflicts(writer, stale)
    applied = written | (wanted - done - stale)
    return ReviewOutcome(
        applied=tuple(sorted(applied)),
        discarded=tuple(sorted({s.idx for s in review.changed} - applied - stale)),
        conflicts=tuple(sorted(stale)),
    )


def _published(writer: UnderfolderWriter, staging: Staging) -> set[int]:
    """Commits what is staged; gives the samples that others changed since they were read."""
    try:
        writer.publish(staging, _TAG)
    except ConflictError as error:
        return set(error.indices)
    return set()


def _record_of(sample: ReviewedSample) -> SampleRecord:
    """What the ledger says of a sample that is not written."""
    outcome: Outcome = "skipped" if sample.outcome in CHANGING else sample.outcome
    failure = None if sample.failure is None else SampleFailure(*sample.failure)
    return SampleRecord(sample.idx, outcome, failure=failure)


def _record_conflicts(writer: UnderfolderWriter, indices: Iterable[int]) -> None:
    why = SampleFailure("ConflictError", _CHANGED, "")
    with writer.staging() as staging:
        for idx in sorted(indices):
            staging.record(SampleRecord(idx, "failed", failure=why))
        if len(staging):
            writer.publish(staging, _TAG)
