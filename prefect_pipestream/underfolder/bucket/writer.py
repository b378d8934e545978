"""Writing a dataset in a bucket: every write is a commit, alone or in a batch."""

import copy
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from prefect_pipestream.storage.store import StoreError
from prefect_pipestream.underfolder.bucket.commit import BucketCommit, taken_over
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.entry import Entry, fact_entry
from prefect_pipestream.underfolder.bucket.staging import BucketStaging
from prefect_pipestream.underfolder.bucket.state import State
from prefect_pipestream.underfolder.commits.attempts import moved_since, new_attempt
from prefect_pipestream.underfolder.commits.commit import Rules
from prefect_pipestream.underfolder.commits.staging import Staging
from prefect_pipestream.underfolder.commits.writer import UnderfolderWriter, dataset_exists
from prefect_pipestream.underfolder.format.names import DATA_FOLDER
from prefect_pipestream.underfolder.ledger.provenance import beginning


class BucketWriter(UnderfolderWriter):
    """Writes samples into a dataset in a bucket, each commit entirely or not at all.

    Args, Raises: As for a folder; see `UnderfolderWriter`. A commit is on disk when it is made,
        whatever `durable` says.
    """

    dataset: Bucket
    batch_seconds = 5.0  # a commit takes a dozen answers of the store
    _knows: int | None = None  # of an attempt, up to which entry it knows the samples

    def __init__(self, address: str, *, dataset: Bucket | None = None, **options: Any) -> None:
        if dataset is None:
            dataset = Bucket(address, must_exist=False, watch=True)
        super().__init__(address, dataset=dataset, **options)

    def _reset(self) -> None:
        super()._reset()
        self._is_prepared = False

    def for_attempt(self) -> "BucketWriter":
        """Returns a writer of the same run that has the run to itself, with its copies."""
        other = copy.copy(self)
        other.attempt = new_attempt()
        exists = self.run.exists()
        other._knows = self.dataset.log.state.position
        if exists or self.run_key in self.dataset.log.state.attempts:
            other._note(attempt=other.attempt)
        return other

    def begin_run(self, facts: Mapping[str, Any]) -> None:
        """Creates the dataset where there is none, and notes facts on the run."""
        self._prepare()
        known = {**beginning(), **facts}
        noted = self.run.facts()
        if "fingerprint" not in noted:
            self._note({**known, "started": noted.get("started", known["started"])})
        if self.attempt is not None:
            self._begin_attempt(self.attempt)

    def _begin_attempt(self, attempt: str) -> None:
        """Notes the first attempt at the run.

        Raises:
            RunTakenOverError: If another attempt was noted meanwhile, or samples were moved.
        """

        def make(state: State) -> Entry | None:
            noted = state.attempts.get(self.run_key)
            if noted is None:
                self._refuse_moved(state)
                return fact_entry(self.run_key, {}, attempt=attempt)
            if noted != attempt:
                raise taken_over(self.folder, state, self.run_key)
            return None

        with self._explained_store():
            self.dataset.log.append(make)

    def _refuse_moved(self, state: State) -> None:
        moved, by = state.moved
        if self._knows is not None and moved > self._knows and by != self.run_key:
            raise moved_since(str(self.folder), self.run_key, by)

    def end_run(self) -> None:
        """Notes that the run has finished.

        Raises:
            DatasetWriteError: If that cannot be noted.
        """
        if self.run.exists():
            self._note({"finished": time.time()})

    def _note(self, facts: Mapping[str, Any] | None = None, **others: Any) -> None:
        with self._explained_store():
            entry = fact_entry(self.run_key, facts or {}, **others)
            self.dataset.log.append(lambda _: entry)

    def _explained_store(self) -> AbstractContextManager[None]:
        return StoreError.explaining_writes(f"{self.dataset.address} cannot be opened for writing")

    # -- opening -----------------------------------------------------------------------

    def claim(self) -> None:
        """Creates the dataset, as this run's own where it may not exist yet.

        Raises:
            DatasetExistsError: If it exists, may not, and was not created by this run.
            DatasetWriteError: If it cannot be created.
        """
        log = self.dataset.log
        with self._explained_store():
            if not self._exists_ok:
                log.append(self._claim)
                self._check_claim()

    def _claim(self, state: State) -> Entry | None:
        if state.claimed_by is not None:
            return None
        self._refuse_others()
        return fact_entry(self.run_key, {}, claims=True)

    def _refuse_others(self) -> None:
        log = self.dataset.log
        log.refresh()
        if log.state.position or next(log.store.objects_in(DATA_FOLDER), None) is not None:
            self._check_claim()

    def _check_claim(self) -> None:
        claimed_by = self.dataset.log.state.claimed_by
        if claimed_by == self.run_key:
            return
        raise dataset_exists(self.dataset.address, claimed_by, "address")

    def _prepare(self) -> None:
        with self._entering:
            if self._is_prepared:
                return
            log = self.dataset.log
            with self._explained_store():
                self.claim()
                if not log.is_part:  # whose whole did it
                    log.placing.recover()
                log.append(self._first_note)
            self._is_prepared = True

    def _first_note(self, state: State) -> Entry | None:
        """The note that begins the run; None where it has begun, or is another attempt's."""
        noted = state.attempts.get(self.run_key)
        is_others = self.attempt is not None and noted not in (None, self.attempt)
        if is_others or self.run_key in state.runs or self.run.exists():
            return None
        self._refuse_moved(state)
        return fact_entry(self.run_key, beginning(), attempt=self.attempt)

    @contextmanager
    def staging(self) -> Iterator[Staging]:
        """Gives an empty staging; what is not published inside is discarded."""
        self._prepare()
        with tempfile.TemporaryDirectory(prefix="pipestream-") as folder:
            yield self.staging_in(folder)

    def staging_in(self, folder: str) -> BucketStaging:
        """Gives a staging in an empty folder."""
        return BucketStaging(self.dataset, folder, **self._names())

    def _commit(self, staging: Staging, signed: bool = False, moves: bool = False) -> BucketCommit:
        rules = Rules(self.durable, self.on_conflict, signed, self.attempt, moves, self.by)
        return BucketCommit(staging, rules, self.dataset)
