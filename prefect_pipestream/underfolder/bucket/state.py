"""What the entries of a log say of a dataset, all in all."""

from collections.abc import Iterable

from prefect_pipestream.underfolder.bucket.entry import Entry, Ref
from prefect_pipestream.underfolder.format.layout import folder_of
from prefect_pipestream.underfolder.format.names import index_in, is_shared


class State:
    """The dataset as of one entry, as far as the log tells: other files are as they are listed.

    Attributes:
        position: The number of that entry; 0 before the first.
        refs: The content of each file that the log has put in place, by name; None: it is removed.
        attempts: The attempt that has a run to itself, by run key.
        claimed_by: The run that created the dataset, if one did.
        runs: The keys of the runs that have begun, and were not undone.
        shared: The names of the shared items among `refs`: they are asked for with each sample.
        moved: The last entry by which samples got other indices: its number, and its run; 0, and
            none, where there is none.
        moved_by: The run that ended the attempt at another one so, by the key of that.
    """

    def __init__(self) -> None:
        self.position = 0
        self.refs: dict[str, Ref | None] = {}
        self._aside: dict[str, dict[str, Ref]] = {}
        self.attempts: dict[str, str] = {}
        self.claimed_by: str | None = None
        self.runs: set[str] = set()
        self.shared: set[str] = set()
        self.moved = (0, "")
        self.moved_by: dict[str, str] = {}
        self._older: dict[str, set[str]] = {}

    def add(self, entry: Entry) -> None:
        """Goes on by one entry."""
        self.position += 1
        for name, ref in entry.before.items():
            self._older.setdefault(name, set()).add(ref.digest)
            if ref != self.refs.get(name):
                self._aside.setdefault(name, {})[ref.etag] = ref
            self.refs[name] = None
        self.refs.update(entry.placed)
        self.shared.update(filter(is_shared, (*entry.before, *entry.placed)))
        if entry.attempt is not None:
            self.attempts[entry.run_key] = entry.attempt
            self.moved_by.pop(entry.run_key, None)
        if entry.moves:
            self._end_attempts(entry.run_key)
        if entry.facts or entry.commit is not None:
            self.runs.add(entry.run_key)
        gone = {*entry.undone, *entry.pruned}
        if gone:
            self.runs = {key for key in self.runs if folder_of(key) not in gone}
            ended = [key for key in self.attempts if folder_of(key) in gone]
            self.attempts.update(dict.fromkeys(ended, ""))
        if entry.claims:
            self.claimed_by = entry.run_key

    def _end_attempts(self, by: str) -> None:
        """Ends the attempts at other runs: the indices that they know are other ones."""
        self.moved = self.position, by
        for key, attempt in self.attempts.items():
            if attempt and key != by:
                self.attempts[key], self.moved_by[key] = "", by

    def was_before(self, name: str, digest: str) -> bool:
        """Whether a file had this content before the one that it has by the log."""
        return digest in self._older.get(name, ())

    def aside(self, name: str, etag: str) -> Ref | None:
        """What others had put in a file, and the store called so, before the log changed it."""
        return self._aside.get(name, {}).get(etag)

    def restricted_to(self, indices: Iterable[int]) -> "State":
        """What is known of just these samples, and of shared items: small to pickle."""
        wanted = set(indices)
        return self.of_names(n for n in self.refs if is_shared(n) or index_in(n) in wanted)

    def of_names(self, names: Iterable[str]) -> "State":
        """What is known of just these files: small to pickle."""
        part = State()
        part.position = self.position
        for name in names:
            if name in self.refs:
                part.refs[name] = self.refs[name]
                part.shared.update(filter(is_shared, [name]))
                part._aside[name] = self._aside.get(name, {})
                part._older[name] = self._older.get(name, set())
        part.attempts = dict(self.attempts)
        part.moved, part.moved_by = self.moved, dict(self.moved_by)
        part.claimed_by = self.claimed_by
        part.runs = set(self.runs)
        return part
