"""Puts one sample back to what it was before, or after, a run."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prefect_pipestream.errors import DatasetError, RunNotFoundError, UndoRefusedError
from prefect_pipestream.items import FileSource
from prefect_pipestream.storage.version import mark_at
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.format.layout import Folder, Layout
from prefect_pipestream.underfolder.format.names import check_index, parse_item_name
from prefect_pipestream.underfolder.format.run_key import RESTORE_KEY, check_run_key
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.ledger.run_names import key_meant
from prefect_pipestream.underfolder.runs.history import SampleEvent, sample_history
from prefect_pipestream.underfolder.runs.interleaved import free_key
from prefect_pipestream.underfolder.runs.kept_files import KeptFile
from prefect_pipestream.underfolder.runs.restoring import (
    end_restoring,
    opened,
    publish_restored,
    restoring_writer,
)

State = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What became of a sample that was restored.

    Attributes:
        idx: The sample.
        run_key: The run that it is, to be undone in its turn; None where nothing was to be done.
        written: The names of files that were put back.
        removed: The names of files that were removed.
        overwritten: Of these, those that someone changed since, and that were restored by force.
    """

    idx: int
    run_key: str | None
    written: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    overwritten: tuple[str, ...] = ()


@DatasetError.explaining_questions()
def restore_sample(
    folder: Folder,
    idx: int,
    run_key: str,
    keys: Collection[str] | None = None,
    *,
    state: State = "before",
    commit_id: str | None = None,
    force: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> RestoreReport:
    """Puts a sample, or some items of it, back to what it was before a run, or right after.

    What later runs did to it goes, too. That is a run of its own, ``restore:<run key>``, which
    can be undone; the ledgers of the others stay as they are, so that none of them does the sample
    again. Shared items stay. See `undo_run` to take the sample out of a run.

    Args:
        folder: The dataset's root.
        idx: The sample's index now.
        run_key: A run that touched it, as `sample_history` lists them, or the name that it was
            given. Of several of this key, the one that stands; else those that were undone.
        keys: The keys of the items to restore; None is all.
        state: Whether to restore what was before the run, or what was after it.
        commit_id: Before or after this commit of the run, as `sample_history` has it, such as one
            save of several; None is the whole run.
        force: Whether to restore also items that someone changed by hand since (kept in this
            run's own undo files).
        facts: What the ledger is to say of the restore, beside what it restored.

    Returns:
        What was done.

    Raises:
        DatasetNotFoundError: If there is no such folder.
        ItemNameError: If that cannot be a sample's index.
        RunKeyError: If that cannot be a run's key.
        RunNotFoundError: If the run, or that commit of it, did nothing to the sample.
        UndoRefusedError: If someone changed the items by hand since; or if items are asked for
            that no run changed since. Nothing was changed.
        DatasetError: If files that are needed are not kept any more. Nothing was changed.
        DatasetWriteError: If the dataset cannot be written; it is as it was.
    """
    check_run_key(run_key)
    with opened(folder, [run_key]) as layout:
        run_key = key_meant(layout, run_key)
        chosen = items_since(layout, idx, run_key, keys, state, commit_id)
        dataset = Underfolder(layout.root, watch=True)
        todo = Todo.of(dataset, idx, chosen, lambda name: mark_at(layout.final(name)))
        if not force:
            todo.refuse_changed()
        if todo.is_empty:
            return RestoreReport(idx, None)
        run = Run.of(layout, free_key(layout, RESTORE_KEY + run_key))
        run.note({**(facts or {}), "restores": run_key})
        writer = restoring_writer(dataset, run.key, force)
        with writer.staging() as staging:
            found = None if force else todo.found
            paths = {name: source.path for name, source in todo.files.items()}
            staging.restore(idx, paths, todo.removes, found=found)
            publish_restored(writer, staging)
        end_restoring(run)
        return todo.report(run.key)


Pair = tuple[KeptFile | None, KeptFile | None]


def items_since(
    layout: Layout,
    idx: int,
    run_key: str,
    keys: Collection[str] | None,
    state: State,
    commit_id: str | None,
) -> dict[str, Pair]:
    """The items of a sample that runs changed since a state: each file of then, and of last.

    Args:
        layout: The dataset's ledgers.
        idx: The sample.
        run_key: The run before or after which that state was.
        keys: Of these items alone; None is all.
        state: Whether it was before the run, or after it.
        commit_id: The commit of the run that is meant; None is the whole run.

    Raises:
        RunNotFoundError: If the run, or that commit of it, did nothing to the sample.
        UndoRefusedError: If items are asked for that no run changed since.
    """
    events = sample_history(layout, check_index(idx))
    changed = _items_of(_since(layout, events, run_key, commit_id, idx, state))
    _refuse_unchanged(layout, idx, changed, keys, f"{state} run {run_key!r}")
    return {key: pair for key, pair in changed.items() if keys is None or key in keys}


def _since(
    layout: Layout,
    events: Sequence[SampleEvent],
    run_key: str,
    commit_id: str | None,
    idx: int,
    state: State,
) -> Sequence[SampleEvent]:
    """What happened to the sample since the state that is asked for."""
    ours = [
        number
        for number, event in enumerate(events)
        if event.run_key == run_key and commit_id in (None, event.commit_id)
    ]
    standing = [number for number in ours if events[number].counts]
    if not ours:
        known = ", ".join(dict.fromkeys(repr(event.run_key) for event in events))
        commit = "" if commit_id is None else f" with a commit {commit_id!r}"
        raise RunNotFoundError(
            f"{layout.root}: no run {run_key!r}{commit} is known that did anything to sample {idx}."
            f" Those that did: {known or 'none'}."
        )
    chosen = standing or ours
    return events[chosen[0] :] if state == "before" else events[chosen[-1] + 1 :]


def _items_of(events: Sequence[SampleEvent]) -> dict[str, Pair]:
    """By key: the file before all of the events, and after them."""
    found: dict[str, Pair] = {}
    for event in events:
        for change in event.items:
            before = found[change.key][0] if change.key in found else change.before
            found[change.key] = before, change.after
    return found


def _refuse_unchanged(
    layout: Layout,
    idx: int,
    changed: Mapping[str, Pair],
    keys: Collection[str] | None,
    when: str,
) -> None:
    unchanged = [key for key in keys or () if key not in changed]
    if unchanged:
        raise UndoRefusedError(
            f"{layout.root}: sample {idx} has no item {unchanged[0]!r} that a run changed since "
            f"{when}. Those that were: {', '.join(map(repr, changed)) or 'none'}.",
            [idx],
        )


@dataclass(frozen=True)
class Todo:
    """What is to be done to put a sample back.

    Attributes:
        root: The dataset.
        idx: The sample.
        files: The files to put in place, by the names that they get.
        removes: The names of files to remove, besides those that these supersede.
        found: The marks of what is there now, by name; None where nothing is.
        changed: The names of files that somebody changed since, by no run.
    """

    root: str
    idx: int
    files: Mapping[str, FileSource]
    removes: tuple[str, ...]
    found: Mapping[str, str | None]
    changed: tuple[str, ...]

    @classmethod
    def of(
        cls,
        dataset: Underfolder,
        idx: int,
        chosen: Mapping[str, Pair],
        mark_of: Callable[[str], str | None],
    ) -> "Todo":
        """What is to be done, given what there is.

        Args:
            dataset: The dataset.
            idx: The sample.
            chosen: The items to put back, by key; see `items_since`.
            mark_of: Tells the mark of a file in its place, by name; None where there is none.

        Raises:
            DatasetError: If a file that is needed is not kept any more.
        """
        root = str(dataset.folder)
        files: dict[str, FileSource] = {}
        removes: list[str] = []
        found: dict[str, str | None] = {}
        changed: list[str] = []
        kinds = dataset.kinds_of(idx)
        width = max((kind.width for kind in kinds), default=None)
        for key, (before, last) in chosen.items():
            names = (kind.name_of(idx) for kind in kinds if kind.key == key)
            there = {name: mark_of(name) for name in names}
            if before is None:
                removes += there
            else:
                source, wanted = _source_of(before, root, idx), _name_at(before.name, idx, width)
                if there == {wanted: before.mark}:
                    continue  # it is as it was
                files[wanted] = source
                found[wanted] = None
            expected = {} if last is None else {_name_at(last.name, idx, width): last.mark}
            if there != expected:
                changed += [name for name in {**expected, **there} if name not in changed]
            found.update(there)
        return cls(root, idx, files, tuple(removes), found, tuple(changed))

    @property
    def is_empty(self) -> bool:
        """Whether the sample is as it is to be."""
        return not self.files and not self.removes

    def refuse_changed(self) -> None:
        """Raises `UndoRefusedError` if somebody changed files since, by no run."""
        if self.changed:
            raise UndoRefusedError(
                f"{self.root}: sample {self.idx} is not restored, for files of it were changed "
                f"since, by no run: {', '.join(self.changed)}. Use `--force` (`force=True`), which "
                "keeps what is there now for an undo.",
                [self.idx],
                list(self.changed),
            )

    def report(self, run_key: str) -> RestoreReport:
        """What was done by it, as a run."""
        return RestoreReport(self.idx, run_key, tuple(self.files), self.removes, self.changed)


def _source_of(file: KeptFile, root: str, idx: int) -> FileSource:
    if file.source is None:
        raise DatasetError(
            f"{root}: sample {idx} cannot be restored: its file {file.name} of then is not kept "
            "any more, as where the run that replaced it was pruned."
        )
    return file.source


def _name_at(name: str, idx: int, width: int | None) -> str:
    """The name of an item's file at an index: compactions moved it, maybe."""
    parsed = parse_item_name(name)
    if parsed is None or parsed[0] == idx:
        return name
    kind = parsed[1]
    return (kind if width is None else kind._replace(width=width)).name_of(idx)
