"""A progress artifact that moves while a run is on, at no cost to the run."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from httpx import HTTPError
from prefect.artifacts import create_progress_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.exceptions import PrefectException

from prefect_pipestream.running.progress import Advance, Log

PERIOD_S = 2.0
"""How often the artifact moves, at most: a request of some milliseconds, in another thread."""

API_ERRORS = (HTTPError, PrefectException, OSError)
"""What may go wrong with a report; none of it is a reason for a run to fail."""


@contextmanager
def progress_artifact(total: int, done: int, what: str, log: Log) -> Iterator[Advance]:
    """Shows in the flow run's artifacts how far the run is.

    Args:
        total: How many samples the run is about.
        done: How many of them are done already.
        what: The name of what is processed.
        log: Where it is said that the API did not take it.

    Yields:
        A function to call with how many more samples are processed, and how many of them failed.
    """
    progress = _Progress(total, done, what)
    try:
        artifact = create_progress_artifact(progress.percent, description=str(progress))
    except API_ERRORS as error:
        log.warning("No progress artifact: %s", error)
        yield progress.advance
        return
    ended = threading.Event()
    with get_client(sync_client=True) as client:
        sender = threading.Thread(
            target=_send_until, args=(ended, client, artifact, progress, log), daemon=True
        )
        sender.start()
        try:
            yield progress.advance
        finally:
            ended.set()
            sender.join()


class _Progress:
    def __init__(self, total: int, done: int, what: str) -> None:
        self._total, self._done, self._what = total, done, what
        self._failed = 0

    def advance(self, samples: int, failures: int) -> None:
        self._done += samples
        self._failed += failures

    @property
    def percent(self) -> float:
        return round(100 * self._done / self._total, 1) if self._total else 100.0

    def __str__(self) -> str:
        failed = f", {self._failed:,} failed" if self._failed else ""
        return f"{self._what}: {self._done:,} of {self._total:,} samples{failed}"


def _send_until(
    ended: threading.Event, client: SyncPrefectClient, artifact: UUID, progress: _Progress, log: Log
) -> None:
    sent = ""
    is_last = False
    while not is_last:
        is_last = ended.wait(PERIOD_S)
        text = str(progress)
        if text == sent:
            continue
        update = ArtifactUpdate(data=progress.percent, description=text)
        try:
            client.update_artifact(artifact, update)
            sent = text
        except API_ERRORS as error:
            log.debug("The progress artifact did not move: %s", error)
