"""What the processes do that the tests with servers start, and kill."""

import os
import random
import time
from collections import Counter
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from typing import Any

from prefect_pipestream.blocks import ReadWriteUnderfolder
from prefect_pipestream.errors import ConflictError, PipestreamError
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.address import Address
from prefect_pipestream.storage.store import open_store

KEYS = ("left", "right")

# One process has everything imported, and forks the others before any store is used.
processes = get_context("forkserver")
processes.set_forkserver_preload(["tests.bucket.work"])


def put_around(root: Address, samples: int) -> None:
    """Samples of two counters, as another program puts them there."""
    for idx in range(samples):
        for key in KEYS:
            open_store(root).put(f"data/{idx:03d}_{key}.json", b"0")


def counted_in(root: Address) -> list[int]:
    """The counters, as they are read, which the files in their places agree with.

    Some earlier writer may be dead: this one puts their files in place.
    """
    stream = DataStream.read_write_underfolder(root)
    stream.recover()
    read = [tuple(sample[key]() for key in KEYS) for sample in stream]
    store = open_store(root)
    seen = [
        tuple(int(store.read(f"data/{idx:03d}_{key}.json").data) for key in KEYS)
        for idx in range(len(read))
    ]
    assert seen == read
    assert all(left == right for left, right in read), f"torn: {read}"
    return [left for left, _ in read]


def incremented(sample: Sample) -> Sample:
    left, right = (sample[key]() for key in KEYS)
    assert left == right, "torn"
    return sample.set_value("left", left + 1).set_value("right", right + 1)


def count_up(root: Address, seconds: float, seed: int, begin: Barrier, out: Connection) -> None:
    """Increments samples one by one; tells how often it did, by sample, and how often it failed."""
    rng = random.Random(seed)
    stream = DataStream.read_write_underfolder(root)
    counted: Counter[int | str] = Counter()
    begin.wait()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        idx = rng.randrange(len(stream))
        try:
            stream.set_output(idx, incremented(stream[idx]))
            counted[idx] += 1
        except ConflictError:
            counted["refused"] += 1
    out.send(counted)


def add_to_all(root: Address, run_key: str, batch: int) -> None:
    """Increments each sample that the run has not incremented, in commits of a few."""
    stream = DataStream.read_write_underfolder(root, run_key=run_key).for_attempt()
    stream.recover()
    done = stream.run.done_indices()
    with stream.commit_group(count=batch) as group:
        for idx in range(len(stream)):
            if idx not in done:
                group.set_output(idx, incremented(stream[idx]))


def add_and_tell(root: Address, run_key: str, batch: int, out: Connection) -> None:
    """Does the same; tells when it begins, and what became of it."""
    out.send("begun")
    try:
        add_to_all(root, run_key, batch)
    except PipestreamError as error:
        out.send(f"{type(error).__name__}: {error}")
    else:
        out.send("done")


def increment_first(dataset: DataStream | ReadWriteUnderfolder, out: Connection) -> None:
    """Increments the first sample of a dataset that was sent here."""
    stream = dataset if isinstance(dataset, DataStream) else dataset.open()
    stream.set_output(0, incremented(stream[0]))
    out.send("done")


class Working:
    """A process that does some of this, with this one's environment; used as a context manager.

    Args:
        work: The function; it is given a connection as its last argument.
        *args: The arguments before that.
    """

    def __init__(self, work: Any, *args: Any) -> None:
        self._out, its = processes.Pipe(duplex=False)
        self.process: ForkServerProcess = processes.Process(  # type: ignore[assignment]
            target=_in_environment, args=(dict(os.environ), work, *args, its), daemon=True
        )
        self.process.start()
        its.close()

    def told(self, timeout: float = 120) -> Any:
        """What it tells next; None: it died."""
        assert self._out.poll(timeout), "a process does not get on"
        with suppress(EOFError):
            return self._out.recv()

    def __enter__(self) -> "Working":
        return self

    def __exit__(self, *args: object) -> None:
        self.process.kill()
        self.process.join()
        self._out.close()


def _in_environment(environment: dict[str, str], work: Any, *args: Any) -> None:
    os.environ.update(environment)
    work(*args)
