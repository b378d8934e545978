"""One commit: the staged files of some samples are all put in place, or none of them."""

import os
import time
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from prefect_pipestream.errors import ConflictError, DatasetError, DatasetWriteError
from prefect_pipestream.items import FileSource
from prefect_pipestream.storage.asking import is_folder, is_there
from prefect_pipestream.storage.making import link_or_copy, sync_folder
from prefect_pipestream.storage.version import Version, signature_of
from prefect_pipestream.underfolder.commits.apply import (
    RECORD,
    UNDO,
    commit_lock,
    done_path,
    place,
    revert,
)
from prefect_pipestream.underfolder.commits.attempts import (
    end_other_attempts,
    refuse_if_taken_over,
    refuse_if_undoing,
)
from prefect_pipestream.underfolder.commits.conflicts import (
    is_another_now,
    is_stale,
    wait_out_the_tick,
)
from prefect_pipestream.underfolder.commits.staging import StagedSample, Staging
from prefect_pipestream.underfolder.format.layout import staged_name
from prefect_pipestream.underfolder.format.names import is_shared
from prefect_pipestream.underfolder.ledger.records import (
    CommitRecord,
    SampleRecord,
    new_commit_id,
)
from prefect_pipestream.underfolder.ledger.run import Run

OnConflict = Literal["raise", "overwrite"]


@dataclass(frozen=True)
class Rules:
    """How a commit is made.

    Attributes:
        durable: Whether it survives a loss of power once it is published.
        on_conflict: Whether another writer's change to a sample since it was read is an error.
        signed: Whether the records say what the samples' files are like after it.
        attempt: The attempt at the run that it is part of, if that has the run to itself.
        moves: Whether it moves samples: then all of them or none, and other runs end.
        by: Who makes it, and on which host, where that is to be noted of it.
    """

    durable: bool = False
    on_conflict: OnConflict = "raise"
    signed: bool = False
    attempt: str | None = None
    moves: bool = False
    by: tuple[str, str] | None = None


class Commit:
    """One commit of all that is staged somewhere.

    Args:
        staging: Where it is staged. It is empty afterwards.
        rules: How the commit is made.
    """

    def __init__(self, staging: Staging, rules: Rules) -> None:
        self._staging = staging
        self._layout = staging.layout
        self._rules = rules
        self._written: set[str] = set()

    def publish(
        self,
        run_key: str,
        tag: str,
        drops: Iterable[str] = (),
        stage: Callable[[], None] | None = None,
        write_id: str | None = None,
    ) -> list[StagedSample]:
        """Puts all files in place and notes the outcomes in the run's ledger.

        Args:
            run_key: The run.
            tag: The part of the run.
            drops: Commits that this one takes back; see `CommitRecord`.
            stage: Stages it under the commit lock, if nothing is staged yet.
            write_id: What the commit's id is to end with; None: anything.

        Returns:
            The samples as committed, each file's source now in its place.

        Raises:
            ConflictError: If another writer changed samples since they were read; the others
                are committed, unless this commit takes others back. ``error.indices`` are to
                be read and transformed anew.
            RunTakenOverError: If a later attempt at the run has it, or it is being undone; nothing
                is written.
            DatasetWriteError: If it could not be written; the dataset is as it was.
        """
        staging, rules = self._staging, self._rules
        if stage is None and not staging.samples and not staging.shared:
            return []
        if rules.signed:
            wait_out_the_tick(staging.samples.values())
        try:
            with commit_lock(self._layout):
                run = Run.of(self._layout, run_key)
                refuse_if_undoing(run)
                if rules.attempt is not None:
                    refuse_if_taken_over(run, rules.attempt)
                if stage is not None:
                    stage()
                staging.look()
                staging.refuse_changed_shared()
                conflicts = self._drop_conflicting()
                if conflicts and (drops or rules.moves):
                    staging.discard()  # what takes a commit back takes all of it back
                if rules.moves and staging.samples:
                    end_other_attempts(run)
                committed = list(staging.samples.values())
                if committed or staging.shared:
                    record = self._prepare(run_key, tag, tuple(drops), write_id)
                    self._log_and_place(record)
                    for staged in committed:
                        staged.commit_id = record.id
                self._take_over(committed)  # before another thread sets one of them again
        except OSError as error:
            if isinstance(error, DatasetWriteError):
                raise
            staging.discard()
            what = f"{self._layout.root}: the commit could not be written"
            raise DatasetWriteError.of(error, what) from error
        staging.clear()
        if conflicts:
            raise self._conflict(conflicts)
        return committed

    def _drop_conflicting(self) -> list[int]:
        samples, dataset = self._staging.samples, self._staging.dataset
        leaving = self._staging.leaving
        is_checked = self._rules.on_conflict == "raise"
        conflicts = [
            idx
            for idx, staged in samples.items()
            if is_another_now(staged, dataset)
            or (is_checked and is_stale(staged, self._layout, leaving))
        ]
        for idx in conflicts:
            self._staging.drop_files(samples.pop(idx))
        return conflicts

    def refuse_conflicts(self) -> None:
        """Checks what has no file to put in place as a commit of it would be, and makes none.

        Raises:
            ConflictError: If another writer changed a sample; see `publish`.
            DatasetWriteError: If the dataset cannot be locked.
        """
        what = f"{self._layout.root}: the samples could not be held against what is there"
        with DatasetWriteError.explaining(what), commit_lock(self._layout):
            self._staging.look()
            conflicts = self._drop_conflicting()
        if conflicts:
            raise self._conflict(conflicts)

    def _conflict(self, conflicts: list[int]) -> ConflictError:
        return ConflictError(
            f"{self._layout.root}: another writer changed sample"
            f"{'s' if len(conflicts) > 1 else ''} {_some(conflicts)} after they were read: "
            "read and transform them anew.",
            conflicts,
        )

    def _prepare(
        self, run_key: str, tag: str, drops: tuple[str, ...], write_id: str | None
    ) -> CommitRecord:
        """Keeps the old files and writes the record: nothing that others see is changed by it."""
        in_order = self._staging.in_order()
        self._written = {file.name for staged in in_order for file in staged.files}
        samples = tuple(map(self._final_record, in_order))
        record = CommitRecord(
            id=new_commit_id(write_id),
            run_key=run_key,
            tag=tag,
            staged=os.path.relpath(self._staging.folder, self._layout.private),
            at=time.time(),
            samples=samples,
            shared={n: _mark(f.source) for n, f in self._staging.shared.items()},
            drops=drops,
            by=self._rules.by,
        )
        self._keep_old(samples)
        with open(os.path.join(self._staging.folder, RECORD), "wb") as file:
            file.write(record.to_bytes())
            if self._rules.durable:
                self._sync_staged()
                file.flush()
                os.fsync(file.fileno())
        return record

    def _reach_commit_point(self, record: CommitRecord) -> None:
        """Logs the commit: from here on it happens."""
        self._staging.hold()
        os.rename(os.path.join(self._staging.folder, RECORD), self._layout.pending(record.id))
        if self._rules.durable:
            sync_folder(self._layout.log)

    def _final_record(self, staged: StagedSample) -> SampleRecord:
        """Says what is to be done for a sample, given the files that are there."""
        record = staged.record
        changed: dict[str, Any] = {}
        if staged.changes_files:
            names = dict.fromkeys([*staged.removes, *staged.superseded])
            # What one sample leaves another may take: that name is written, and not removed.
            removes = tuple(n for n in names if n not in self._written and self._exists(n))
            changed["removes"] = removes
            if staged.is_removal:
                changed["outcome"] = "removed" if removes else "skipped"
            else:
                changed["outcome"] = "written"
                changed["writes"] = {file.name: _mark(file.source) for file in staged.files}
                found = self._found_unchanged(staged)
                writes = changed["writes"]
                changed["replaces"] = tuple(n for n in writes if n in found or self._exists(n))
        if self._rules.signed:
            changed["signature"] = self._signature(staged, changed.get("removes", ()))
        staged.record = replace(record, **changed)
        return staged.record

    def _found_unchanged(self, staged: StagedSample) -> Container[str]:
        """The names of files that are there, of those that a sample has own files for.

        What it is to replace was just asked for, where that is to be as it was read.
        """
        is_asked = self._rules.on_conflict == "raise" and staged.found is None
        if staged.origin is None or not is_asked or not staged.is_in_place(self._layout):
            return ()
        return {name for name in staged.origin.sources if not is_shared(name)}

    def _exists(self, name: str) -> bool:
        return is_there(self._layout.final(name))

    def _signature(self, staged: StagedSample, removes: Iterable[str]) -> str | None:
        """The signature of the source's files, as they are after this commit."""
        origin = staged.origin
        if origin is None or (staged.is_removal and staged.is_in_place(self._layout)):
            return None
        files = {name: source.version for name, source in origin.sources.items()}
        if staged.is_in_place(self._layout):
            files.update((file.name, file.source.version) for file in staged.files)
            for name in removes:
                files.pop(name, None)
        known = {name: version for name, version in files.items() if version is not None}
        return signature_of(known.items()) if len(known) == len(files) else None

    def _keep_old(self, samples: tuple[SampleRecord, ...]) -> None:
        undo = os.path.join(self._staging.folder, UNDO)
        made = False
        for sample in samples:
            for name in (*sample.replaces, *sample.removes):
                if not made:
                    os.mkdir(undo)
                    made = True
                link_or_copy(self._layout.final(name), f"{undo}/{staged_name(name)}")

    def _sync_staged(self) -> None:
        for folder in (os.path.join(self._staging.folder, UNDO), self._staging.folder):
            if is_folder(folder):
                for entry in os.scandir(folder):
                    if entry.is_file(follow_symlinks=False):
                        handle = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC)
                        try:
                            os.fsync(handle)
                        finally:
                            os.close(handle)
                sync_folder(folder)

    def _log_and_place(self, record: CommitRecord) -> None:
        """Makes the commit happen, or takes it back where it cannot be applied."""
        is_done = False
        try:
            self._reach_commit_point(record)
            place(self._layout, record, durable=self._rules.durable)
            self._staging.release()
        except (OSError, DatasetError) as error:
            try:  # what is reported as failed may have been done, on a network file system
                if is_there(self._layout.pending(record.id)):
                    revert(self._layout, record)
                else:
                    is_done = is_there(done_path(self._layout, record))
                self._staging.release()
            except (OSError, DatasetError) as second:
                raise DatasetWriteError(
                    getattr(error, "errno", None),
                    f"{self._layout.root}: commit {record.id} is logged but could be neither "
                    f"applied ({error}) nor taken back ({second}). The next writer applies it",
                ) from error
            if not is_done:
                raise
            if self._rules.durable:
                raise DatasetWriteError(
                    getattr(error, "errno", None),
                    f"{self._layout.root}: commit {record.id} is made, and it is not known "
                    f"whether it would survive a loss of power ({error})",
                ) from error

    def _take_over(self, committed: list[StagedSample]) -> None:
        """Lets the samples and their items know of the files that hold them now.

        Samples that others took meanwhile stay as they are: to them it is a change.
        """
        for staged in committed:
            origin = staged.origin if staged.is_in_place(self._layout) else None
            for file in staged.files:
                file.source.path = self._layout.final(file.name)
                file.lead_to(file.source)
                if origin is not None:
                    origin.lead_to(file.key, file.source)
            if origin is not None:
                origin.forget(staged.removed_keys)
            if origin is not None and staged.is_removal:
                origin.forget_own()
        for name, file in self._staging.shared.items():
            # Another writer's may have been there first: then this one is not current.
            file.source.path = self._layout.final(name)
            file.lead_to(file.source)


def _mark(source: FileSource) -> str:
    if source.version is None:
        source.version = Version.of(os.stat(source.path))
    return source.version.mark


def _some(indices: list[int]) -> str:
    shown = ", ".join(map(str, indices[:5]))
    return f"{shown} and {len(indices) - 5} more" if len(indices) > 5 else shown
