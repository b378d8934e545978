"""A run of a dataset: where its files are, what is known of it, and what became of its samples."""

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.asking import is_folder, is_there, names_in
from prefect_pipestream.storage.file_source import FileSource
from prefect_pipestream.storage.untrusted import inside, is_name, read_json
from prefect_pipestream.underfolder.format.layout import (
    Folder,
    Layout,
    folder_of,
    run_key_of,
)
from prefect_pipestream.underfolder.format.run_key import is_run_key, is_run_name
from prefect_pipestream.underfolder.ledger.packed import PackedLedger
from prefect_pipestream.underfolder.ledger.provenance import Provenance, beginning
from prefect_pipestream.underfolder.ledger.records import (
    CommitRecord,
    Outcome,
    SampleRecord,
    is_time,
)
from prefect_pipestream.underfolder.ledger.rows import (
    CHANGED,
    FAILED,
    Moves,
    Rows,
    moves_in,
    rows_of,
)
from prefect_pipestream.underfolder.ledger.taken_back import (
    PARTS,
    PartNote,
    TakenBack,
    part_notes,
    taken_back,
)

T = TypeVar("T")

_PACKED = re.compile(r"compact-\d+")
_TRIES = 5
_KEYS = {"run_key", "fingerprint"}
_TEXTS = {
    "undoes",
    "undoes_samples",
    "rolls_back",
    "restores",
    "failed_in",
    "plan",
    "rules",
    "user",
    "host",
}
_NAMES = {"undoes_folders", "undone_as", PARTS}
_TIMES = {"started", "finished", "undone", "pruned"}
_FLAGS = {"compacts", "whole", "kept"}


class Run:
    """One run of one dataset; there may be nothing of it on disk yet.

    Its ledger is read anew by each question. Paths are looked at as those of `Layout` are: none
    leads out of the dataset. To undo or prune runs see `undo_run` and `prune_runs`.

    Args:
        layout: The dataset's paths.
        name: The name of the run's folder; `Run.of` makes it of the run key.
        key: The run key, where it is known; else it is looked up.

    Attributes:
        folder: The run's folder.
    """

    __slots__ = ("_key", "folder", "layout", "name")

    def __init__(self, layout: Layout, name: str, key: str | None = None) -> None:
        self.layout = layout
        self.name = name
        self.folder = layout.at("runs", name)
        self._key = key

    @classmethod
    @DatasetError.explaining_questions()
    def of(cls, dataset: Folder | Layout, run_key: str) -> "Run":
        """The run of this key.

        Args:
            dataset: The dataset's root, or its paths.
            run_key: The run's key.

        Raises:
            RunKeyError: If that cannot be a run's key.
            DatasetError: If a link is in the way.
        """
        return cls(Layout.of(dataset), folder_of(run_key), run_key)

    def __repr__(self) -> str:
        return f"Run({self.layout.root!r}, {self.name!r})"

    # -- where its files are -----------------------------------------------------------

    def at(self, *parts: str) -> str:
        """The path of a file or folder of the run; see `Layout.at`."""
        return inside(self.folder, *parts)

    @property
    def done(self) -> str:
        """The folder of its done commits, by their tags."""
        return self.at("done")

    @property
    def undo(self) -> str:
        """The folder of the files that its commits replaced or removed."""
        return self.at("undo")

    def undo_of(self, commit_id: str) -> str:
        """The folder of the files that a commit replaced or removed."""
        return self.at("undo", commit_id)

    def kept_source(self, commit_id: str, name: str) -> FileSource | None:
        """Where the content is that a commit replaced or removed; see `Layout.kept_source`."""
        return self.layout.kept_source(self.folder, commit_id, name)

    def written_source(self, commit_id: str, name: str) -> FileSource | None:
        """Where a commit put the content of a file; see `Layout.written_source`."""
        return self.layout.written_source(self.folder, commit_id, name)

    @property
    def dropped(self) -> str:
        """The folder of the ids of commits that were taken back."""
        return self.at("dropped")

    def taken_back(self) -> TakenBack:
        """What of it was taken back, and counts no more."""
        return taken_back(self.layout, self.name, names_in(self.dropped))

    def part_notes(self) -> list[PartNote]:
        """The notes of samples that were, or are being, taken back of it."""
        return part_notes(self.layout, self.name)

    @property
    def undoing(self) -> str:
        """The note that an undo of the run is under way."""
        return self.at("undoing.json")

    @property
    def attempt(self) -> str:
        """The note of the attempt that may write, where one has the run to itself."""
        return self.at("attempt.json")

    @property
    def failures_table(self) -> str:
        """The list of its failed samples, for a spreadsheet."""
        return self.at("failures.csv")

    # -- what is known of it -----------------------------------------------------------

    def exists(self) -> bool:
        """Whether there is anything of it on disk."""
        return is_folder(self.folder)

    def facts(self) -> dict[str, Any]:
        """What ``run.json`` says of it; at least its key. What cannot be meant is left out."""
        noted = read_json(self.at("run.json"))
        facts = {name: fact for name, fact in noted.items() if _is_fact(name, fact)}
        facts.setdefault("run_key", run_key_of(self.name))
        return facts

    @property
    def key(self) -> str:
        """Its run key, which is looked up once."""
        if self._key is None:
            self._key = str(self.facts()["run_key"])
        return self._key

    def note(self, facts: Mapping[str, Any]) -> None:
        """Notes its key, start, user, host and versions, and `facts`, unless that was done before.

        A run of a transform has its ``fingerprint`` among the facts: `signatures` looks for it.
        """
        noted = self.facts()
        if "started" in noted:
            return
        for folder in (self.done, self.layout.staged):
            os.makedirs(folder, exist_ok=True)
        known = {**noted, "run_key": self.key, **beginning(), **facts}
        self.layout.write_json(self.at("run.json"), known)

    def provenance(self) -> Provenance | None:
        """Where it came from, as its beginning noted it; None where it did not."""
        return Provenance.of(self.facts())

    def update(self, **facts: Any) -> None:
        """Adds facts to what is noted; those that are None are taken away."""
        known = {**self.facts(), "run_key": self.key, **facts}
        left = {name: fact for name, fact in known.items() if fact is not None}
        self.layout.write_json(self.at("run.json"), left)

    def is_undone(self) -> bool:
        """Whether it was undone: then its folder is named otherwise than its key."""
        return self.name != folder_of(self.key)

    def is_pruned(self) -> bool:
        """Whether it was pruned, and is kept as it says where samples were moved."""
        return "pruned" in self.facts()

    def is_kept(self) -> bool:
        """Whether pruning is to leave it; see `keep_run`."""
        return bool(self.facts().get("kept"))

    def given_name(self) -> str | None:
        """The name that it was given, and can be asked for by; see `keep_run`."""
        return given_name_in(self.facts())

    def is_half_undone(self) -> bool:
        """Whether an undo of it, or of a part of it, is under way, or was interrupted."""
        return is_there(self.undoing)

    def half_given_back_by(self) -> str | None:
        """The undo of a part of it which is itself half undone: its key."""
        for note in self.part_notes():
            if note.undo is not None and note.holds():
                undo = Run(self.layout, note.undo)
                if undo.is_half_undone():
                    return undo.key
        return None

    @property
    def is_compaction(self) -> bool:
        """Whether it moved samples to close gaps."""
        return bool(self.facts().get("compacts"))

    @DatasetError.explaining_questions()
    def has_ended(self) -> bool:
        """Whether it noted its end, and has packed all that it did; see `end_run`."""
        return "finished" in self.facts() and not self.loose_records()

    # -- its commits -------------------------------------------------------------------

    def commits(
        self,
        tag: str | None = None,
        idx: int | Collection[int] | None = None,
        *,
        with_taken_back: bool = False,
    ) -> Iterator[CommitRecord]:
        """The done commits of the run, in the order of their making.

        Args:
            tag: Those of one part of the run; None is all.
            idx: Leaves out packed ones without a sample that was read, or written, under this
                index, or one of these.
            with_taken_back: Whether they still have the samples that were taken back alone.

        Raises:
            DatasetError: If a record cannot be read.
            FileNotFoundError: If the ledger was packed meanwhile: read it again.
        """
        loose, gone, packed = self._open(tag)
        if with_taken_back:
            gone = TakenBack(gone.commits)
        if packed is not None:
            for commit in packed.commits([idx] if isinstance(idx, int) else idx):
                if commit.id not in gone.commits and tag in (None, commit.tag):
                    yield gone.rest_of(commit)
        yield from (gone.rest_of(_read_record(path)) for path in loose)

    def commit(self, commit_id: str) -> CommitRecord | None:
        """One done commit, of all commits' records reading just its own; None: it has none such.

        Raises:
            DatasetError: If the record cannot be read.
            FileNotFoundError: If the ledger was packed meanwhile: read it again.
        """
        loose, gone, packed = self._open(None)
        if commit_id in gone.commits:
            return None
        paths = [path for path in loose if os.path.basename(path) == f"{commit_id}.json"]
        if paths:
            return gone.rest_of(_read_record(paths[0]))
        if packed is None or commit_id not in packed.ids():
            return None
        return next(gone.rest_of(one) for one in packed.commits() if one.id == commit_id)

    def commit_ids(self) -> set[str]:
        """The ids of all commits in its ledger, and of those that were taken back.

        Raises:
            DatasetError: If the packed ledger cannot be read.
        """
        found = {commit_id for commit_id, _ in self.loose_records()}
        _, gone, packed = self._open(None)
        return found.union(gone.commits, () if packed is None else packed.ids())

    def some_commits(self, most: int) -> list[CommitRecord]:
        """Some commits, spread over the run's course, at a cost that does not grow with it.

        Of commits that are packed already, the first ones.

        Raises:
            DatasetError: If a record cannot be read.
        """
        return reread_if_moved(lambda: self._some_commits(most))

    def _some_commits(self, most: int) -> list[CommitRecord]:
        loose, gone, packed = self._open(None)
        step = max(1, len(loose) / most)
        chosen = [loose[int(number * step)] for number in range(min(most, len(loose)))]
        found = [] if packed is None else islice(packed.commits(), most - len(chosen))
        standing = [commit for commit in found if commit.id not in gone.commits]
        return list(map(gone.rest_of, standing + list(map(_read_record, chosen))))

    def rows(self, tag: str | None = None) -> Rows:
        """What became of the samples (or of those of one part), in the order of commits.

        Raises:
            DatasetError: If a record cannot be read.
        """
        return reread_if_moved(lambda: self._rows(tag))

    def _rows(self, tag: str | None) -> Rows:
        loose, gone, packed = self._open(tag)
        rows = rows_of(gone.rest_of(_read_record(path)) for path in loose)
        if packed is None:
            return rows
        return Rows.joined([packed.rows(gone, tag), rows])

    def moves(self) -> Moves:
        """The samples that it moved to other indices, in the order of moving.

        Raises:
            DatasetError: If a record cannot be read.
        """
        return reread_if_moved(self._moves)

    def _moves(self) -> Moves:
        loose, gone, packed = self._open(None)
        moves = moves_in(map(_read_record, loose))
        if packed is None:
            return moves
        return Moves.joined([packed.moves(lambda commit_id: commit_id not in gone.commits), moves])

    def _open(self, tag: str | None) -> tuple[list[str], TakenBack, PackedLedger | None]:
        """The records that are not packed, what was taken back, and what is packed.

        They are looked up in the order in which packing moves them, so that none is missed; what
        is found twice counts once.
        """
        found = self.loose_records(tag)
        gone = self.taken_back()
        newest = self.packed_folders()[-1:]
        packed = PackedLedger(newest[0], self.key) if newest else None
        known = gone.commits.union(packed.ids()) if packed and found else gone.commits
        return [path for commit_id, path in found if commit_id not in known], gone, packed

    def loose_records(self, tag: str | None = None) -> list[tuple[str, str]]:
        """The id and path of each record that stands alone, in the order of their making."""
        parts = [self.at("done", part) for part in ([tag] if tag else names_in(self.done))]
        found = [
            (name.removesuffix(".json"), f"{part}/{name}")
            for part in parts
            for name in names_in(part)
            if name.endswith(".json")
        ]
        return sorted(found, key=lambda record: (self.layout.order_of(record[0]), record[1]))

    def packed_folders(self) -> list[str]:
        """The folders of packed records; there is more than one only while the run is packed."""
        found = filter(_PACKED.fullmatch, names_in(self.folder))
        names = sorted(found, key=lambda name: int(name.removeprefix("compact-")))
        return [self.at(name) for name in names]

    # -- what became of its samples ----------------------------------------------------

    @DatasetError.explaining_questions()
    def outcomes(self, tag: str | None = None) -> dict[int, SampleRecord]:
        """What became of each sample: its last record, by index; empty for no such run.

        Args:
            tag: The part of the run (a chunk) to look at; None is all.

        Raises:
            DatasetError: If a record cannot be read.
        """
        return reread_if_moved(
            lambda: {
                record.idx: record for commit in self.commits(tag) for record in commit.samples
            }
        )

    def done_indices(self, tag: str | None = None) -> set[int]:
        """The indices that the run need not do again: all of its ledger but the failed ones.

        Of a large run, `outcome_rows` tells it in a tenth of the memory.

        Raises:
            DatasetError: If a record cannot be read, or the run is half undone.
        """
        return set(self.outcome_rows(tag).done().tolist())

    @DatasetError.explaining_questions()
    def outcome_rows(self, tag: str | None = None) -> Rows:
        """What became of each sample, by ascending index, of a run that can be gone on with.

        Of one that was killed all records are read for it: some seconds for a million samples.

        Raises:
            DatasetError: If a record cannot be read, or the run is half undone.
        """
        undone = self.key if self.is_half_undone() else self.half_given_back_by()
        if undone is not None:
            raise DatasetError(
                f"{self.layout.root}: run {undone!r} is being undone, or its undo was "
                "interrupted. Finish it by calling `undo_run` again (`pipestream undo`), then run "
                f"{'it' if undone == self.key else repr(self.key)} anew."
            )
        return self.rows(tag).last_of_each()

    @DatasetError.explaining_questions()
    def counts(self, tag: str | None = None) -> dict[Outcome, int]:
        """How many samples (or of one part of the run) had each outcome."""
        return self.rows(tag).counts()

    @DatasetError.explaining_questions()
    def failures(self, tag: str | None = None) -> list[SampleRecord]:
        """The records of the samples that failed and were not done since, by index."""
        failed = set(self.failed_indices(tag))
        found: dict[int, SampleRecord] = {}
        if failed:
            for record in reread_if_moved(lambda: list(self._failure_records(tag))):
                if record.idx in failed:
                    found[record.idx] = record
        return [found.get(idx) or SampleRecord(idx, "failed") for idx in sorted(failed)]

    @DatasetError.explaining_questions()
    def failed_indices(self, tag: str | None = None) -> list[int]:
        """The indices of the samples that failed and were not done since, ascending."""
        rows = self.rows(tag).last_of_each()
        failed: list[int] = rows.idx[rows.outcome == FAILED].tolist()
        return failed

    @DatasetError.explaining_questions()
    def changed_indices(self) -> npt.NDArray[np.int64]:
        """The indices of the samples that it wrote or removed, as they were written: ascending.

        Raises:
            DatasetError: If a record cannot be read.
        """
        rows, moves = self.rows().last_of_each(), self.moves()
        changed = rows.idx[np.isin(rows.outcome, CHANGED)]
        order = np.argsort(moves.old, kind="stable")
        at = np.searchsorted(moves.old[order], changed, "right") - 1
        is_moved = (at >= 0) & np.isin(changed, moves.old)
        changed[is_moved] = moves.new[order][at[is_moved]]
        return np.unique(changed)

    def _failure_records(self, tag: str | None) -> Iterator[SampleRecord]:
        loose, gone, packed = self._open(tag)
        if packed is not None:
            if tag is None and not gone:
                yield from packed.failures()
            else:
                for commit in packed.commits():
                    if commit.id not in gone.commits and tag in (None, commit.tag):
                        rest = gone.rest_of(commit)
                        yield from (s for s in rest.samples if s.failure is not None)
        for path in loose:
            rest = gone.rest_of(_read_record(path))
            yield from (s for s in rest.samples if s.failure is not None)

    @DatasetError.explaining_questions()
    def history(self, idx: int) -> list[tuple[float, SampleRecord]]:
        """What the run did to one sample, with the time of each commit, the first one first.

        Args:
            idx: The index under which the sample was read.

        Raises:
            DatasetError: If a record cannot be read.
        """
        return reread_if_moved(
            lambda: [
                (commit.at, record)
                for commit in self.commits(idx=idx)
                for record in commit.samples
                if record.idx == idx
            ]
        )


def runs_of(dataset: Folder | Layout) -> list[Run]:
    """All runs of a dataset, those that were undone among them.

    Raises:
        DatasetError: If the folder of one is a symbolic link.
        OSError: If they cannot be listed.
    """
    layout = Layout.of(dataset)
    runs = layout.runs
    return [Run(layout, name) for name in sorted(names_in(runs)) if is_folder(f"{runs}/{name}")]


def given_name_in(facts: Mapping[str, Any]) -> str | None:
    """The name that a run was given, by its facts: it has one only as long as it is kept."""
    return facts.get("name") if facts.get("kept") else None


def _is_fact(name: str, fact: Any) -> bool:
    if name in _KEYS:
        return is_run_key(fact)
    if name == "name":
        return is_run_name(fact)
    if name in _TEXTS:
        return isinstance(fact, str)
    if name in _NAMES:
        return isinstance(fact, list) and all(isinstance(one, str) and is_name(one) for one in fact)
    if name in _FLAGS:
        return isinstance(fact, bool)
    return name not in _TIMES or is_time(fact)


def _read_record(path: str) -> CommitRecord:
    try:
        return CommitRecord.read(path)
    except ValueError as error:
        raise DatasetError(
            f"{path}: this record of a commit cannot be read ({error}). `pipestream check "
            "--fix` puts it aside."
        ) from error


def reread_if_moved(read: Callable[[], T]) -> T:
    """Reads a ledger again if it was packed, or its run undone, meanwhile.

    Raises:
        DatasetError: If a file of it is missing for good.
    """
    for _ in range(_TRIES):
        try:
            return read()
        except FileNotFoundError:
            continue
    try:
        return read()
    except FileNotFoundError as error:
        raise DatasetError(
            f"{error.filename}: this file of a ledger is missing. `pipestream check --fix` puts "
            "aside what is left of it."
        ) from error
