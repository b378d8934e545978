"""Reviews of a dataset in a bucket: contents are sent once, and applied by one entry of the log."""

import logging
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from prefect_pipestream.errors import (
    ConflictError,
    DatasetError,
    ReviewNotFoundError,
)
from prefect_pipestream.storage.address import Address
from prefect_pipestream.storage.store import Store, StoreError, at_once, open_store
from prefect_pipestream.underfolder.bucket.commit import BucketCommit
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.entry import Entry, Ref, fact_entry
from prefect_pipestream.underfolder.bucket.kept_source import KeptSource
from prefect_pipestream.underfolder.bucket.keys import object_of
from prefect_pipestream.underfolder.bucket.log import BucketLog, whole_log
from prefect_pipestream.underfolder.bucket.sending import sent
from prefect_pipestream.underfolder.bucket.source import BucketSource
from prefect_pipestream.underfolder.bucket.state import State
from prefect_pipestream.underfolder.bucket.writer import BucketWriter
from prefect_pipestream.underfolder.commits.commit import Rules
from prefect_pipestream.underfolder.commits.staging import StagedFile, Staging
from prefect_pipestream.underfolder.commits.writer import UnderfolderWriter
from prefect_pipestream.underfolder.format.documents import BucketDocuments
from prefect_pipestream.underfolder.format.layout import Folder
from prefect_pipestream.underfolder.format.names import PRIVATE_FOLDER
from prefect_pipestream.underfolder.ledger.provenance import beginning
from prefect_pipestream.underfolder.ledger.records import new_commit_id
from prefect_pipestream.underfolder.ledger.run import Run, runs_of
from prefect_pipestream.underfolder.runs.kept_review import (
    REVIEWS,
    Review,
    content_of,
    expired_reviews,
    load_review,
    named,
    review_file,
)
from prefect_pipestream.underfolder.runs.review_decisions import end_review, gone
from prefect_pipestream.underfolder.runs.staged_review import (
    TAG,
    ReviewOutcome,
    conflict_record,
    outcome_of,
    stage_decided,
)

_log = logging.getLogger(__name__)


# -- making one ----------------------------------------------------------------------------


@contextmanager
def staging_of_review_in_bucket(
    folder: Folder, review_id: str, writer: UnderfolderWriter
) -> Iterator[Staging]:
    """Gives an empty staging for a review, and removes reviews that expired.

    Args:
        folder: The dataset's address.
        review_id: The review's name.
        writer: A writer of the dataset.
    """
    documents = BucketDocuments(Address.of(folder))
    with _explained(documents):
        open_store(Address.of(folder)).require_create(PRIVATE_FOLDER)
        for name in expired_reviews(documents):
            _remove_expired(documents, name)
        if not documents.is_there(*review_file(review_id)):
            documents.remove_all(*named(review_id))  # what a killed process left
    with tempfile.TemporaryDirectory(prefix="pipestream-") as staged:
        yield writer.staging_in(staged)


def keep_review_in_bucket(review: Review, staging: Staging) -> Review:
    """Sends the contents of a review, and keeps it: from here on it survives its process.

    Args:
        review: The review.
        staging: What is staged.

    Returns:
        The review as it is kept: another one of its name, where somebody else was faster.
    """
    documents = BucketDocuments(Address.of(review.folder))
    store = open_store(Address.of(review.folder))
    files = [file for staged in staging.samples.values() for file in staged.files]
    files += staging.shared.values()
    folder = f"review.{new_commit_id()}"
    with _explained(documents):
        refs = at_once(partial(sent, store, folder), files)
        contents = {file.name: ref for file, ref in zip(files, refs, strict=True)}
        kept = replace(review, contents=contents)
        if documents.create(content_of(kept), *review_file(review.id)):
            return kept
        _delete(store, refs)
    other = load_review(review.folder, review.id)
    if other is None:
        raise gone(review.folder, review.id)
    return other


def _explained(documents: BucketDocuments) -> AbstractContextManager[None]:
    return StoreError.explaining_writes(f"{documents.root}: the review could not be kept")


def staged_source_in_bucket(review: Review, name: str) -> KeptSource:
    """A staged file.

    Args:
        review: The review.
        name: The name that the file gets.
    """
    ref = review.contents[name]
    return KeptSource(open_store(Address.of(review.folder)), ref)


# -- deciding ------------------------------------------------------------------------------


@DatasetError.explaining_questions()
def apply_review_in_bucket(
    review: Review, approved: Collection[int], facts: Mapping[str, Any]
) -> ReviewOutcome:
    """Commits the approved samples, and notes the others as skipped: by one entry of the log.

    Args, Returns: As for a folder; see `apply_review`.

    Raises:
        ReviewNotFoundError: If the review is not there any more.
        DatasetWriteError: If the store cannot take it; the dataset is as it was.
    """
    decisions = end_review(review, "applied", approved)
    if decisions.end != "applied":
        raise gone(review.folder, review.id)
    writer = BucketWriter(str(review.folder), exists_ok=True)
    log = writer.dataset.log
    if not Run.of(log.ledgers(), review.id).exists():
        known = {**beginning(), **facts}
        log.placing.recover()
        _commit(review, decisions.approved, known, writer)
    return outcome_of(review, Run.of(log.ledgers(), review.id))


def _commit(
    review: Review, approved: Collection[int], facts: Mapping[str, Any], writer: BucketWriter
) -> None:
    with tempfile.TemporaryDirectory(prefix="pipestream-") as folder:
        staging = writer.staging_in(folder)
        stage_decided(review, approved, (), staging, staged_source_in_bucket)
        if not len(staging):
            _note(writer.dataset.log, review.id, facts)
            return
        with suppress(ConflictError):  # the ledger has it
            _ReviewCommit(staging, writer.dataset, facts).publish(review.id, TAG)


def _note(log: BucketLog, run_key: str, facts: Mapping[str, Any]) -> None:
    """Notes a review of no samples."""
    entry = fact_entry(run_key, {**facts, "finished": time.time()})
    log.append(lambda state: None if run_key in state.runs else entry)


class _ReviewCommit(BucketCommit):
    """The commit of what was approved of a review, whose contents are there.

    Args:
        staging: What is approved, and what became of the others.
        dataset: The dataset.
        facts: What is noted of the run.
    """

    def __init__(self, staging: Staging, dataset: Bucket, facts: Mapping[str, Any]) -> None:
        super().__init__(staging, Rules(), dataset)
        self._facts = facts

    def _send(self) -> None:
        """Sends nothing.

        Raises:
            DatasetError: If a content is not there as it was sent.
        """
        files = [file for staged in self._staging.samples.values() for file in staged.files]
        at_once(self._find, [*files, *self._staging.shared.values()])

    def _find(self, file: StagedFile) -> None:
        source = file.source
        assert isinstance(source, KeptSource)
        there = self._log.store.stat(object_of(source.ref))
        if there is None or there.size != source.ref.size:
            raise DatasetError(
                f"{source.path}: what {file.name} is to hold is gone. Nothing was written. Restore "
                "the object, or discard the review."
            )
        self._refs[file.name] = source.ref
        file.source = BucketSource(self._contents, file.name, source.ref)
        file.source.version = source.ref.version(is_read=True)

    def _entry(self, state: State, run_key: str, tag: str, drops: tuple[str, ...]) -> Entry | None:
        """The entry to be added; None where the review was applied already."""
        if run_key in state.runs:
            return None
        entry = super()._entry(state, run_key, tag, drops)
        if entry is None:
            return None
        facts = {**self._facts, "finished": entry.commit.at}
        return _checked(replace(entry, facts=facts), self._dataset)

    def _drop_conflicting(self) -> list[int]:
        conflicts = super()._drop_conflicting()
        for idx in conflicts:
            self._staging.record(conflict_record(idx))
        return conflicts

    def _forget_unused(self, entry: Entry | None) -> None:
        """Leaves the contents of the review, of which another attempt may have made use."""
        self._refs = {}
        super()._forget_unused(entry)


def _checked(entry: Entry, dataset: Bucket) -> Entry:
    """An entry that others can read, whatever the review says that it was made of."""
    try:
        return Entry.from_bytes(entry.to_bytes())
    except ValueError as error:
        raise DatasetError(
            f"{dataset.address}: the review {entry.run_key!r} cannot be applied, as it is damaged "
            f"({error}). Discard it, and review the changes anew."
        ) from error


# -- removing ------------------------------------------------------------------------------


@DatasetError.explaining_questions()
def discard_review_in_bucket(folder: Folder, review_id: str) -> None:
    """Removes a review, and its contents that nothing needs, if there is one.

    Args:
        folder: The dataset's address.
        review_id: The review's name.

    Raises:
        DatasetError: If it stays, as one that is being applied.
    """
    address = Address.of(folder)
    documents, store = BucketDocuments(address), open_store(address)
    try:
        review = load_review(address, review_id)
    except StoreError:
        raise
    except DatasetError as error:
        _log.warning("%s The contents of the review are left.", error)
        review = None
    if review is not None:
        _delete(store, _unused(review))
    documents.remove(*review_file(review_id))
    documents.remove_all(*named(review_id))


def _unused(review: Review) -> list[Ref]:
    """The contents of a review that nothing needs; nobody can apply it from here on.

    Raises:
        DatasetError: If somebody is about to apply it, or died over that.
    """
    try:
        decisions = end_review(review, "discarded")
    except ReviewNotFoundError:  # somebody else has removed it
        return []
    if decisions.end != "applied":
        return list(review.contents.values())
    if not _was_applied(review):
        raise DatasetError(
            f"{review.folder}: the review {review.id!r} is being applied, or that was interrupted. "
            "Apply it again, which finishes it."
        )
    approved = decisions.approved
    used = {name for one in review.changed if one.idx in approved for name in one.files}
    used.update(review.shared if approved else ())
    return [ref for name, ref in review.contents.items() if name not in used]


def _was_applied(review: Review) -> bool:
    """Whether an entry applied a review; the run that it is may be pruned since."""
    log = whole_log(open_store(Address.of(review.folder)))
    is_its_run = any(run.key == review.id for run in runs_of(log.ledgers()))
    return is_its_run or any(entry.run_key == review.id for entry in log.all_entries())


def _remove_expired(documents: BucketDocuments, name: str) -> None:
    """Removes a review whose time is over, but one that is being applied."""
    noted = documents.read_json(REVIEWS, name, "review.json").get("id")
    if isinstance(noted, str) and named(noted)[1] == name:
        try:
            discard_review_in_bucket(documents.root, noted)
        except StoreError:
            raise
        except DatasetError as error:
            _log.info("%s", error)
        return
    documents.remove_all(REVIEWS, name)


def _delete(store: Store, refs: Collection[Ref]) -> None:
    at_once(store.delete, map(object_of, refs))
