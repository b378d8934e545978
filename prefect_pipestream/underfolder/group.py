"""Samples committed in groups, which costs less than one by one."""

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from prefect_pipestream.items import Item
from prefect_pipestream.underfolder.commit import Commit
from prefect_pipestream.underfolder.failure import SampleFailure
from prefect_pipestream.underfolder.origin import SampleOrigin
from prefect_pipestream.underfolder.records import Outcome, SampleRecord
from prefect_pipestream.underfolder.staging import StagedSample

GROUP_COUNT = 100
GROUP_SECONDS = 1.0


class Group:
    """Collects samples, and commits them in groups. See `UnderfolderWriter.group`.

    Args:
        run_key: The run that the commits belong to.
        tag: The part of the run.
        new_commit: Opens an empty commit.
        count: The samples after which a group is committed.
        seconds: The time after which it is.
    """

    def __init__(
        self,
        run_key: str,
        tag: str,
        new_commit: Callable[[], AbstractContextManager[Commit]],
        count: int = GROUP_COUNT,
        seconds: float = GROUP_SECONDS,
    ) -> None:
        self._run_key = run_key
        self._tag = tag
        self._new_commit = new_commit
        self._count = count
        self._seconds = seconds
        self._commit: Commit | None = None
        self._closing = ExitStack()
        self._began = 0.0

    def write(
        self,
        idx: int,
        items: Mapping[str, Item[Any]],
        keys: Collection[str] | None = None,
        origin: SampleOrigin | None = None,
        *,
        target: int | None = None,
        attempts: int = 1,
    ) -> None:
        """Adds a sample; see `Commit.add`. Raises also what an earlier sample's commit does."""
        if self._commit is not None and (
            idx in self._commit or (target is not None and target in self._commit)
        ):
            self.flush()
        self._open().add(idx, items, keys=keys, origin=origin, target=target, attempts=attempts)
        self._flush_if_due()

    def record(
        self,
        idx: int,
        outcome: Outcome,
        *,
        failure: SampleFailure | None = None,
        attempts: int = 1,
        origin: SampleOrigin | None = None,
    ) -> None:
        """Adds the outcome of a sample of which nothing is written."""
        record = SampleRecord(idx, outcome, attempts=attempts, failure=failure)
        self._open().record(record, origin)
        self._flush_if_due()

    def _open(self) -> Commit:
        if self._commit is None:
            self._commit = self._closing.enter_context(self._new_commit())
            self._began = time.monotonic()
        return self._commit

    def _flush_if_due(self) -> None:
        commit = self._commit
        if commit is not None and (
            len(commit) >= self._count or time.monotonic() - self._began >= self._seconds
        ):
            self.flush()

    def flush(self) -> list[StagedSample]:
        """Commits what was collected.

        Raises:
            ConflictError: For samples that another writer changed; the others are committed.
            DatasetWriteError: If it could not be written; none of the group is.
        """
        commit, self._commit = self._commit, None
        if commit is None:
            return []
        with self._closing:
            return commit.publish(self._run_key, self._tag)
