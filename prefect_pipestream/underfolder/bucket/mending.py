"""What a check of a dataset in a bucket mends, and how it says so."""

from contextlib import AbstractContextManager
from datetime import UTC, datetime

from prefect_pipestream.storage.store import StoreError
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.entry import Entry
from prefect_pipestream.underfolder.bucket.keys import object_of, view_of
from prefect_pipestream.underfolder.bucket.log import BucketLog
from prefect_pipestream.underfolder.bucket.sending import kept_aside
from prefect_pipestream.underfolder.bucket.state import State
from prefect_pipestream.underfolder.format.names import PRIVATE_FOLDER
from prefect_pipestream.underfolder.format.run_key import new_run_key
from prefect_pipestream.underfolder.ledger.records import new_commit_id

_CHANGED = "It was changed meanwhile: check it once more."


def mending(log: BucketLog) -> AbstractContextManager[None]:
    """Raises `DatasetWriteError` where a dataset cannot be mended."""
    return StoreError.explaining_writes(f"{log.root} could not be mended")


def to_do(what: str) -> str:
    """Says that a check which mends would do something."""
    return f"`pipestream check --fix` {what}."


class Aside:
    """Moves what is in the way to ``.pipestream/aside/<time>/``; nothing is lost by it.

    Args:
        log: The dataset's log.
        enabled: Whether to do so; otherwise it only says that it could.
    """

    def __init__(self, log: BucketLog, enabled: bool) -> None:
        self._log = log
        self._store = log.store
        self._enabled = enabled
        self._folder = f"{PRIVATE_FOLDER}/aside/{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        self._run_key = new_run_key("check")

    def put(self, key: str) -> tuple[bool, str]:
        """Moves an object aside.

        Returns:
            Whether that was done, and how to say so, or why it was not.
        """
        if not self._enabled:
            return False, to_do("puts it aside")
        try:
            before = self._store.stat(key)
            target = self._copied(key)
            if before is None or target is None or self._store.stat(key) != before:
                return False, _CHANGED
            self._store.delete(key)
        except StoreError as error:
            return False, f"It cannot be put aside: {error}"
        return True, f"Put aside: {target}"

    def put_item(self, dataset: Bucket, name: str) -> tuple[bool, str]:
        """Moves the file of an item aside; one that the log has put in place, by the log."""
        was = self._log.state.refs.get(name)
        if was is None:
            return self.put(view_of(name))
        if not self._enabled:
            return False, to_do("puts it aside")
        commit_id = new_commit_id()

        def make(state: State) -> Entry | None:
            if state.refs.get(name) != was:
                return None
            before = kept_aside(dataset, state, [name], commit_id)
            return Entry(commit_id, self._run_key, before=before) if before else None

        with mending(self._log):
            target = self._copied(view_of(name)) or self._copied(object_of(was))
            added = self._log.append(make)
            if added is None or target is None:
                return False, _CHANGED
            self._log.placing.put(*added)
        return True, f"Put aside: {target}"

    def _copied(self, key: str) -> str | None:
        target = f"{self._folder}/{key.removeprefix(PRIVATE_FOLDER + '/')}"
        there = self._store.stat(key)
        if there is None:
            return None
        try:
            self._store.copy(key, target, there.size)
        except FileNotFoundError:
            return None
        return target
