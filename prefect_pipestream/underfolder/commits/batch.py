"""Samples that are committed in batches, which costs less than one by one."""

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

from prefect_pipestream.items import Item
from prefect_pipestream.underfolder.commits.staging import StagedSample, Staging
from prefect_pipestream.underfolder.format.names import check_index
from prefect_pipestream.underfolder.format.origin import SampleOrigin
from prefect_pipestream.underfolder.ledger.failure import SampleFailure
from prefect_pipestream.underfolder.ledger.records import Outcome, SampleRecord

BATCH_COUNT = 100
BATCH_SECONDS = 1.0

Items = Mapping[str, Item[Any]]
"""The items of a sample by key."""
Prepared = tuple[Items, SampleOrigin | None]
"""What is written of a sample, and the files that it was read from, where those are known."""


def as_given(idx: int, items: Items) -> Prepared:
    """Prepares nothing: the items are written as they are."""
    return items, None


class Batch:
    """Samples that are staged as they come, and committed together; see `UnderfolderWriter.batch`.

    Args:
        new_staging: Opens an empty staging.
        publish: Commits what is staged.
        count: The samples after which that is done.
        seconds: The time after which it is.
        prepare: Takes a sample, and the index to write it at, through operations before it is
            staged.

    Attributes:
        unseen_keys: Of the keys to write, those that none of the samples had; None as long as
            none was set with keys.
        while_committing: Makes the context in which a commit is made: the samples of other calls
            take their time there, and not the one that is being set.
    """

    def __init__(
        self,
        new_staging: Callable[[], AbstractContextManager[Staging]],
        publish: Callable[[Staging], list[StagedSample]],
        count: int,
        seconds: float,
        prepare: Callable[[int, Any], Prepared],
    ) -> None:
        self._new_staging = new_staging
        self._publish = publish
        self._count = count
        self._seconds = seconds
        self._prepare = prepare
        self._staging: Staging | None = None
        self._closing = ExitStack()
        self._began = 0.0
        self.unseen_keys: set[str] | None = None
        self.while_committing: Callable[[], AbstractContextManager[None]] = nullcontext

    def set_output(
        self,
        idx: int,
        sample: Items,
        keys: Collection[str] | None = None,
        origin: SampleOrigin | None = None,
        *,
        target: int | None = None,
        attempts: int = 1,
    ) -> None:
        """Adds a sample.

        Args:
            idx: The index that it was read at.
            sample: The sample, or its items.
            keys: The items to write; None is all.
            origin: The files that it was read from; by default those that `prepare` tells.
            target: The index to write at; None is `idx`.
            attempts: How often it was tried, for the ledger.

        Raises:
            ConflictError: If samples of a batch that is full were changed by another writer;
                ``error.indices`` tells which.
            InvalidSampleError: If the writer's check finds something wrong with the sample.
            ItemError: If a key, an index or a value cannot be written.
            DatasetWriteError: If the disk cannot take it; nothing of the batch was written.
        """
        items, known = self._prepare(check_index(idx if target is None else target), sample)
        origin = origin or known
        self._make_way(idx, target)
        self._open().add(idx, items, keys=keys, origin=origin, target=target, attempts=attempts)
        self._flush_if_due()
        if keys is not None:
            asked = set(keys) if self.unseen_keys is None else self.unseen_keys
            self.unseen_keys = asked.difference(items)

    def remove(
        self,
        idx: int,
        *,
        origin: SampleOrigin | None = None,
        target: int | None = None,
        attempts: int = 1,
    ) -> None:
        """Adds the removal of a sample, with all own files that it has when it is committed.

        The ledger notes it as ``removed``, or as ``skipped`` where there is nothing.

        Args:
            idx: The index that it was read at.
            origin: The files that it was read from: if another writer changed one, or added one,
                that is a conflict. None removes what is there.
            target: The index to remove; None is `idx`.
            attempts: How often it was tried, for the ledger.

        Raises:
            ConflictError, DatasetWriteError: As for `set_output`.
        """
        self._make_way(idx, target)
        self._open().remove(idx, origin=origin, target=target, attempts=attempts)
        self._flush_if_due()

    def _make_way(self, idx: int, target: int | None) -> None:
        """Commits what was added so far if it has to do with one of these samples."""
        if self._staging is not None and (
            idx in self._staging or (target is not None and target in self._staging)
        ):
            self.flush()

    def record(
        self,
        idx: int,
        outcome: Outcome,
        *,
        failure: SampleFailure | None = None,
        attempts: int = 1,
        origin: SampleOrigin | None = None,
    ) -> None:
        """Notes the outcome of a sample of which nothing is written."""
        record = SampleRecord(idx, outcome, attempts=attempts, failure=failure)
        self._open().record(record, origin)
        self._flush_if_due()

    def _open(self) -> Staging:
        if self._staging is None:
            self._staging = self._closing.enter_context(self._new_staging())
            self._began = time.monotonic()
        return self._staging

    def _flush_if_due(self) -> None:
        staging = self._staging
        if staging is not None and (
            len(staging) >= self._count or time.monotonic() - self._began >= self._seconds
        ):
            self.flush()

    def flush(self) -> list[StagedSample]:
        """Commits what was added so far.

        Raises:
            ConflictError: For samples that another writer changed; the others are committed.
            DatasetWriteError: If it could not be written; nothing of it is.
        """
        staging, self._staging = self._staging, None
        if staging is None:
            return []
        with self.while_committing(), self._closing:
            return self._publish(staging)
