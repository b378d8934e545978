"""Puts one sample back to what it was before, or after, a run."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prefect_pipestream.errors import DatasetError, RunNotFoundError, UndoRefusedError
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
        events = sample_history(layout.root, check_index(idx))
        later = _since(layout, events, run_key, commit_id, idx, state)
        dataset = Underfolder(layout.root, watch=True)
        changed = _items_of(later)
        _refuse_unchanged(layout, idx, changed, keys, f"{state} run {run_key!r}")
        chosen = {k: pair for k, pair in changed.items() if keys is None or k in keys}
        todo = _Todo.of(layout, dataset, idx, chosen)
        if todo.changed and not force:
            raise UndoRefusedError(
                f"{layout.root}: sample {idx} is not restored, for files of it were changed since, "
                f"by no run: {', '.join(todo.changed)}. Use `--force` (`force=True`), which keeps "
                "what is there now for an undo.",
                [idx],
                list(todo.changed),
            )
        if not todo.files and not todo.removes:
            return RestoreReport(idx, None)
        run = Run.of(layout, free_key(layout, RESTORE_KEY + run_key))
        run.note({**(facts or {}), "restores": run_key})
        writer = restoring_writer(dataset, run.key, force)
        with writer.staging() as staging:
            found = None if force else todo.found
            staging.restore(idx, todo.files, todo.removes, found=found)
            publish_restored(writer, staging)
        end_restoring(run)
        return RestoreReport(idx, run.key, tuple(todo.files), todo.removes, todo.changed)


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


_Pair = tuple[KeptFile | None, KeptFile | None]


def _items_of(events: Sequence[SampleEvent]) -> dict[str, _Pair]:
    """By key: the file before all of the events, and after them."""
    found: dict[str, _Pair] = {}
    for event in events:
        for change in event.items:
            before = found[change.key][0] if change.key in found else change.before
            found[change.key] = before, change.after
    return found


def _refuse_unchanged(
    layout: Layout,
    idx: int,
    changed: Mapping[str, _Pair],
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
class _Todo:
    """The paths of files to put in place, by name; what to remove; and what is there now."""

    files: Mapping[str, str]
    removes: tuple[str, ...]
    found: Mapping[str, str | None]
    changed: tuple[str, ...]

    @classmethod
    def of(
        cls, layout: Layout, dataset: Underfolder, idx: int, chosen: Mapping[str, _Pair]
    ) -> "_Todo":
        files: dict[str, str] = {}
        removes: list[str] = []
        found: dict[str, str | None] = {}
        changed: list[str] = []
        kinds = dataset.kinds_of(idx)
        width = max((kind.width for kind in kinds), default=None)
        for key, (before, last) in chosen.items():
            there = {
                kind.name_of(idx): mark_at(layout.final(kind.name_of(idx)))
                for kind in kinds
                if kind.key == key
            }
            wanted = None if before is None else _name_at(before.name, idx, width)
            if before is not None and before.path is None:
                raise DatasetError(
                    f"{layout.root}: sample {idx} cannot be restored: its file {before.name} of "
                    "then is not kept any more, as where the run that replaced it was pruned."
                )
            if wanted is not None and before is not None and before.path is not None:
                if there == {wanted: mark_at(before.path)}:
                    continue  # it is as it was
                files[wanted] = before.path
            expected = {} if last is None else {_name_at(last.name, idx, width): last.mark}
            if there != expected:
                changed += [name for name in {**expected, **there} if name not in changed]
            if wanted is None:
                removes += there
            found.update(there)
            if wanted is not None:
                found.setdefault(wanted, None)
        return cls(files, tuple(removes), found, tuple(changed))


def _name_at(name: str, idx: int, width: int | None) -> str:
    """The name of an item's file at an index: compactions moved it, maybe."""
    parsed = parse_item_name(name)
    if parsed is None or parsed[0] == idx:
        return name
    kind = parsed[1]
    return (kind if width is None else kind._replace(width=width)).name_of(idx)
