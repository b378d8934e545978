"""The dataset that is shown: one stream that reads, one for each person who writes."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from prefect_pipestream.browser.kept import KeptFiles
from prefect_pipestream.errors import SampleError
from prefect_pipestream.items import Item
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.sequences.sorting import Sorted
from prefect_pipestream.sequences.where import Found
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.underfolder import UndoReport, undo_commit
from prefect_pipestream.underfolder.format.run_key import is_run_name
from prefect_pipestream.views import Thumbnail, Thumbnails

MOST_READS = 20_000
"""How many metadata files are read for one answer: some two seconds' work, for all cores."""
NOBODY = "somebody"
"""Who writes without having told a name."""

_LONGEST_NAME = 60  # characters
_AT_ONCE = 16  # answers of a store that are waited for

T = TypeVar("T")
R = TypeVar("R")


def name_of(person: str) -> str:
    """The name that a person told, without what is around it.

    Raises:
        SampleError: If that can be no name.
    """
    name = person.strip() or NOBODY
    if len(name) > _LONGEST_NAME or not name.isprintable() or not is_run_name(name):
        raise SampleError(
            f"{person!r} is no name: expected at most {_LONGEST_NAME} characters that can be "
            "printed."
        )
    return name


def run_key_of(name: str, began: datetime) -> str:
    """The key of a run of a person."""
    return f"{name} in the browser, {began:%Y-%m-%d %H:%M:%S}"


class ShownDataset:
    """A dataset as the browser's pages ask for it, used by several threads.

    Args:
        folder: Where it is.

    Raises:
        DatasetNotFoundError: If there is none.
        DatasetError: If it cannot be read.
    """

    def __init__(self, folder: Place) -> None:
        self.started = datetime.now()
        self.stream = DataStream.read_write_underfolder(folder)
        self.folder = self.stream.output_folder
        self.thumbnails = Thumbnails(self.folder)
        self.kept = KeptFiles(self.folder)
        self._streams: dict[str, DataStream] = {}
        self._lock = Lock()
        self._waiting = ThreadPoolExecutor(_AT_ONCE, "browser") if is_address(self.folder) else None

    def of_each(self, work: Callable[[T], R], things: Iterable[T]) -> list[R]:
        """What some work makes of each thing; in a bucket of several at a time, as each waits.

        Args:
            work: The work, which does not call this.
            things: The things.
        """
        do = map if self._waiting is None else self._waiting.map
        return list(do(work, things))

    def now(self) -> SamplesSequence:
        """The samples as they are now, to take several of them."""
        return self.stream.as_of_now()

    def indices(self) -> npt.NDArray[np.int64]:
        """The indices of all samples: int64, ascending."""
        return self.stream.indices()

    def found(self, where: str) -> Found:
        """The samples of which a query is true, of as many as are known; ask again for more.

        Args:
            where: The query; empty for all samples.
        """
        if not where.strip():
            everything = self.indices()
            return Found(everything, known=len(everything), of=len(everything))
        return self.stream.found(where, most_reads=MOST_READS)

    def sorted(self, found: Found, path: str, descending: bool) -> Sorted:
        """Samples that were found, in the order of a value in their metadata."""
        return self.stream.sorted_by(
            path, found.indices, descending=descending, most_reads=MOST_READS
        )

    def sample(self, idx: int) -> Sample:
        """A sample as it is on disk, its items in order.

        Raises:
            IndexError: If there is none.
        """
        return self._taken(idx).in_order()

    def item(self, idx: int, key: str, now: SamplesSequence | None = None) -> Item[Any]:
        """An item of a sample.

        Args:
            idx: The sample's index.
            key: The item's key.
            now: The samples, as they were taken for several questions; see `now`.

        Raises:
            IndexError: If there is no such sample.
            MissingItemError: If it has no such item.
        """
        return self._taken(idx, now)[key]

    def _taken(self, idx: int, now: SamplesSequence | None = None) -> Sample:
        if idx < 0:  # which would count from the end
            raise IndexError(f"sample {idx}: there is none.")
        return self.stream[idx] if now is None else now[idx]

    def thumbnail(self, idx: int, key: str, side: int) -> Thumbnail | None:
        """A small picture of an item; see `Thumbnails`."""
        return self.thumbnails.of(self.item(idx, key), side, is_fresh=True)

    def versions(self, indices: Iterable[int]) -> dict[int, str]:
        """What samples are like now; see `DataStream.versions`."""
        return self.stream.versions(indices)

    def stream_of(self, person: str) -> DataStream:
        """The stream by which a person writes: what was written since the server's start is a run.

        The run is begun by this, in the person's name; anew, where it was undone meanwhile.

        Args:
            person: The name that the person told.

        Raises:
            SampleError: If that can be no name.
            DatasetWriteError: If the dataset cannot be written.
        """
        name = name_of(person)
        with self._lock:
            if name not in self._streams:
                self._streams[name] = self.stream.with_run(run_key_of(name, self.started))
            stream = self._streams[name]
            stream.begin_run(user=name)
        return stream

    def let_go(self, run_key: str) -> None:
        """Ends a person's stream, so that its run is not one that is being written: see undo."""
        with self._lock:
            self._streams = {n: s for n, s in self._streams.items() if s.run_key != run_key}

    def undo(self, run_key: str, commit_id: str, person: str) -> UndoReport:
        """Takes one save of a person back, or the undo of one; see `undo_commit`."""
        facts = {"user": name_of(person)}
        return undo_commit(self.folder, run_key, commit_id, facts=facts)
