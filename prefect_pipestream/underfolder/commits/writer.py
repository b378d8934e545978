"""Writing a dataset folder: every write is a commit, alone or in a batch."""

import copy
import itertools
import json
import os
import queue
import secrets
import socket
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from prefect_pipestream.errors import DatasetError, DatasetExistsError, DatasetWriteError
from prefect_pipestream.items import Item, SerializationMode
from prefect_pipestream.storage.address import Place
from prefect_pipestream.storage.asking import is_folder, is_there
from prefect_pipestream.storage.lock import Liveness
from prefect_pipestream.storage.new_dataset import left_by_creators, new_sibling
from prefect_pipestream.storage.removing import remove
from prefect_pipestream.storage.untrusted import read_json
from prefect_pipestream.underfolder.commits.apply import commit_lock, sweep
from prefect_pipestream.underfolder.commits.attempts import begin_attempt, note_first_attempt
from prefect_pipestream.underfolder.commits.batch import (
    BATCH_COUNT,
    BATCH_SECONDS,
    Batch,
    Prepared,
    as_given,
)
from prefect_pipestream.underfolder.commits.commit import Commit, OnConflict, Rules
from prefect_pipestream.underfolder.commits.prospect import Check
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.commits.staging import StagedSample, Staging
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.format.names import check_index
from prefect_pipestream.underfolder.format.origin import SampleOrigin
from prefect_pipestream.underfolder.format.run_key import new_run_key
from prefect_pipestream.underfolder.ledger.records import check_write_id
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.ledger.run_names import key_meant


class UnderfolderWriter:
    """Writes samples into a dataset folder, each commit entirely or not at all.

    Nothing on disk is touched before the first write (or `claim`). Pickled copies are part of
    the same run, so that they may go on with a folder that one of them created.

    Args:
        folder: The dataset's root.
        zfill: The digits to which the names written are padded. None: a file that exists keeps
            its name; a new one gets the digits of the last index, or wider ones found on disk.
        exists_ok: Whether the folder may exist.
        length: Tells how many samples the source has, for the padding; None: the dataset itself.
        key_serialization_mode: How items are written, by key, where it is not the item's own.
        run_key: The run that the commits belong to, by its key or the name that it was given; by
            default one of this writer's own.
        dataset: The folder as opened for reading, to share its index.
        durable: Whether a commit survives a loss of power (several `fsync` each).
        on_conflict: ``"raise"`` a `ConflictError` if another writer changed a sample since it
            was read, or ``"overwrite"`` what it wrote.
        replace_shared: The keys of shared items that are replaced where a sample has another
            value; of other keys, what is there stays.
        by: Who makes its commits, and on which host, where each of them is to note that; None: the
            facts of the run say who.

    Raises:
        DatasetExistsError: If the folder exists, may not, and was not created by this run.
    """

    batch_seconds = BATCH_SECONDS

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        zfill: int | None = None,
        exists_ok: bool = False,
        length: Callable[[], int] | None = None,
        key_serialization_mode: Mapping[str, SerializationMode | str] | None = None,
        run_key: str | None = None,
        dataset: Underfolder | None = None,
        durable: bool = False,
        on_conflict: OnConflict = "raise",
        replace_shared: Collection[str] = (),
        by: tuple[str, str] | None = None,
    ) -> None:
        if dataset is None:  # an empty one is false
            dataset = Underfolder(folder, must_exist=False, watch=True)
        self.dataset = dataset
        self._layout = Layout(str(self.dataset.folder))
        self.run_key = (
            new_run_key("stream") if run_key is None else key_meant(self.ledgers, run_key)
        )
        self._zfill = zfill
        self._exists_ok = exists_ok
        self._length = length
        self._modes = {
            key: mode if isinstance(mode, SerializationMode) else SerializationMode[mode.upper()]
            for key, mode in (key_serialization_mode or {}).items()
        }
        self._replace_shared = frozenset(replace_shared)
        self.durable = durable
        self.on_conflict = on_conflict
        self.by = by
        self.attempt: str | None = None
        self.check: Check | None = None
        self._reset()
        if not exists_ok:
            self._refuse_others()

    def _reset(self) -> None:
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._alive: Liveness | None = None
        self._folders: queue.SimpleQueue[str] = queue.SimpleQueue()  # free to stage files in
        self._numbers = itertools.count(1)
        self._entering = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        hidden = ("_name", "_alive", "_folders", "_numbers", "_entering")
        return {name: value for name, value in self.__dict__.items() if name not in hidden}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    @property
    def ledgers(self) -> Layout:
        """Where the ledgers of the dataset's runs are, as of now, to be read."""
        return self.dataset.ledgers

    @property
    def run(self) -> Run:
        """The ledger of the run: what became of its samples so far."""
        return Run.of(self.ledgers, self.run_key)

    def begin_run(self, facts: Mapping[str, Any]) -> None:
        """Creates the dataset where it does not exist, and notes facts on the run, for its list.

        Raises:
            DatasetExistsError: If the folder exists, may not, and was not created by this run.
            RunTakenOverError: If this was to have the run to itself, and another has it by now.
            DatasetWriteError: If the dataset cannot be written.
        """
        self.claim()
        what = f"{self.folder}: run {self.run_key!r} cannot be noted"
        with DatasetWriteError.explaining(what):
            self.run.note(facts)
        if self.attempt is not None:
            note_first_attempt(self.run, self.attempt)

    def for_run(self, run_key: str) -> "UnderfolderWriter":
        """Returns a writer of the same folder as part of another run.

        Raises:
            DatasetExistsError: If it exists, may not, and was not created by that run.
        """
        other = copy.copy(self)
        other.run_key = key_meant(self.ledgers, run_key)
        if not other._exists_ok:
            other._refuse_others()
        return other

    def for_attempt(self) -> "UnderfolderWriter":
        """Returns a writer of the same run that has the run to itself, with its copies.

        Writers of earlier attempts at the run are refused from now on: what its ledger lacks
        after this call is done by nobody else.

        Raises:
            DatasetWriteError: If that cannot be noted.
        """
        other = copy.copy(self)
        other.attempt = begin_attempt(self.run)
        return other

    def for_part(
        self, indices: Iterable[int], dataset: Underfolder | None = None
    ) -> "UnderfolderWriter":
        """Returns a writer of the same run that knows just these samples; small to pickle.

        Args:
            indices: The samples.
            dataset: The part of the dataset as opened for reading, to share its index.
        """
        other = copy.copy(self)
        length = len(self.dataset) if self._length is None else self._length()
        other._length = partial(int, length)
        other.dataset = self.dataset.restricted_to(indices) if dataset is None else dataset
        return other

    def checking(self, check: Check | None) -> "UnderfolderWriter":
        """Returns a writer of the same run that writes only samples with which nothing is wrong.

        Args:
            check: Says what is wrong with a sample, given its items as they would be on disk;
                None: it is not asked.
        """
        other = copy.copy(self)
        other.check = check
        return other

    def sharing(self, dataset: Underfolder) -> "UnderfolderWriter":
        """Returns a writer of the same run that shares the index of the folder's reader."""
        other = copy.copy(self)
        other.dataset = dataset
        return other

    @property
    def folder(self) -> Place:
        """The dataset's root, absolute."""
        return self.dataset.folder

    # -- opening -----------------------------------------------------------------------

    def claim(self) -> None:
        """Creates the dataset folder, as this run's own where it may not exist yet.

        Raises:
            DatasetExistsError: If it exists, may not, and was not created by this run.
            DatasetWriteError: If it cannot be created.
            DatasetError: If it holds symbolic links by which writes would leave it.
        """
        with self._explained():
            self._layout.refuse_linked_data()
            if self._exists_ok or is_folder(self._layout.at()):
                os.makedirs(self._layout.root, exist_ok=True)
            else:
                self._create()
            if not self._exists_ok:
                self._check_claim()
            self._layout.make()

    def _explained(self) -> AbstractContextManager[None]:
        return DatasetWriteError.explaining(f"{self._layout.root} cannot be opened for writing")

    def _create(self) -> None:
        """Makes the folder together with its claim: of two runs, one gets it."""
        root = self._layout.root
        os.makedirs(os.path.dirname(root), exist_ok=True)
        for left in left_by_creators(root):
            with suppress(OSError):  # as what another user left
                remove(left)
        fresh = new_sibling(root)
        layout = Layout(fresh)
        try:
            layout.make()
            Path(layout.claim).write_text(json.dumps({"run_key": self.run_key}), encoding="utf-8")
            os.rename(fresh, root)
        except OSError:
            with suppress(OSError):  # the error that led here is the one to report
                remove(fresh)
            if not is_folder(root):
                raise

    @DatasetError.explaining_questions()
    def _refuse_others(self) -> None:
        """Raises `DatasetExistsError` if there is a dataset that another run created."""
        if is_there(self._layout.root):
            self._check_claim()

    def _check_claim(self) -> None:
        claim = read_json(self._layout.claim)
        if claim.get("run_key") == self.run_key:
            return
        raise dataset_exists(self._layout.root, claim.get("run_key"), "folder")

    def _prepare(self) -> None:
        with self._entering:
            if self._alive is None:
                self.claim()
                with self._explained():
                    self._enter()

    def _enter(self) -> None:
        """Takes a place below ``staged``, after ending what dead writers left."""
        layout = self._layout
        if os.stat(layout.at()).st_dev != os.stat(layout.data).st_dev:
            raise DatasetError(
                f"{layout.private} and {layout.data} are on different file systems: files cannot "
                "be renamed from one to the other. Put both on one."
            )
        folder = layout.at("staged", self._name)
        with commit_lock(layout):
            sweep(layout)
            alive = Liveness(folder + ".alive", json.dumps(self._owner()))
        try:
            os.makedirs(folder, exist_ok=True)
            Run.of(layout, self.run_key).note({})
        except OSError:
            _leave(folder, alive)
            raise
        weakref.finalize(self, _leave, folder, alive)
        self._alive = alive

    def _owner(self) -> dict[str, Any]:
        return {"run_key": self.run_key, "host": socket.gethostname(), "pid": os.getpid()}

    @contextmanager
    def staging(self) -> Iterator[Staging]:
        """Gives an empty staging; what is not published inside is discarded."""
        self._prepare()
        with self._explained():
            folder = self._free_folder()
        staging = self.staging_in(folder)
        try:
            yield staging
        finally:
            if staging.discard():
                self._folders.put(folder)

    def staging_in(self, folder: str) -> Staging:
        """Gives a staging in an empty folder of the caller's, whose files outlive this process.

        `Staging.restore` takes them over into another one.
        """
        return Staging(self.dataset, folder, **self._names())

    def publish(
        self,
        staging: Staging,
        tag: str = "main",
        *,
        signed: bool = False,
        drops: Iterable[str] = (),
        moves: bool = False,
        stage: Callable[[], None] | None = None,
        write_id: str | None = None,
    ) -> list[StagedSample]:
        """Commits what is staged, as part of the run; see `Commit.publish`.

        Args:
            staging: What is staged.
            tag: The part of the run.
            signed: Whether the ledger notes what each sample's files are like.
            drops: Commits that this one takes back.
            moves: Whether it moves samples: then all of them or none, and other runs end.
            stage: Stages it, if nothing is staged yet: while no other writer can commit.
            write_id: What the commit's id is to end with; None: anything.
        """
        commit = self._commit(staging, signed, moves)
        return commit.publish(self.run_key, tag, drops, stage, write_id)

    def _commit(self, staging: Staging, signed: bool = False, moves: bool = False) -> Commit:
        rules = Rules(self.durable, self.on_conflict, signed, self.attempt, moves, self.by)
        return Commit(staging, rules)

    def _names(self) -> dict[str, Any]:
        return {
            "zfill": self._zfill,
            "default_zfill": self._digits,
            "modes": self._modes,
            "replace_shared": self._replace_shared,
            "check": self.check,
        }

    def _digits(self) -> int:
        return self.dataset.best_zfill(None if self._length is None else self._length())

    def _free_folder(self) -> str:
        try:
            return self._folders.get_nowait()
        except queue.Empty:
            folder = self._layout.at("staged", self._name, str(next(self._numbers)))
            os.mkdir(folder)
            return folder

    # -- writing -----------------------------------------------------------------------

    def write(
        self,
        idx: int,
        items: Mapping[str, Item[Any]],
        keys: Collection[str] | None = None,
        origin: SampleOrigin | None = None,
        if_version: str | None = None,
        write_id: str | None = None,
        removes: Collection[str] = (),
    ) -> list[StagedSample]:
        """Writes one sample, as a commit of its own.

        Args:
            idx: The sample's index.
            items: Its items by key. Items on disk under other keys are left alone.
            keys: The keys to write; None is all.
            origin: The files it was read from, for the conflict check.
            if_version: The version that the sample there is to have; None: any.
            write_id: What the commit's id is to end with; None: anything.
            removes: The keys of own items that are removed.

        Returns:
            What was committed; nothing if all items were there, and none that is to be removed.

        Raises:
            ConflictError: If another writer changed the sample since it was read; or it has another
                version than `if_version`.
            InvalidSampleError: If the check finds something wrong with it.
            ItemError: If a key, an index or a value cannot be written.
            DatasetWriteError: If the disk cannot take it; the dataset is as it was.
        """
        check_write_id(write_id)
        with self.staging() as staging:
            staging.add(
                idx, items, keys=keys, origin=origin, if_version=if_version, removes=removes
            )
            if not staging.is_empty():
                return self.publish(staging, write_id=write_id)
            if if_version is not None:
                self._commit(staging).refuse_conflicts()
            return []

    def remove(
        self, idx: int, origin: SampleOrigin | None = None, if_version: str | None = None
    ) -> list[StagedSample]:
        """Removes one sample with all its own files, as a commit of its own.

        Args:
            idx: The sample's index.
            origin: The files it was read from, for the conflict check; None removes what is there.
            if_version: The version that the sample there is to have; None: any.

        Returns:
            What was committed; nothing if the sample has no files of its own.

        Raises:
            ConflictError: If another writer changed the sample since it was read; or it has another
                version than `if_version`.
            ItemNameError: If that can be no index.
            DatasetWriteError: If the disk cannot take it; the dataset is as it was.
        """
        known = self.dataset.all_kinds_of(check_index(idx))
        if not known and origin is None and if_version is None:
            return []
        with self.staging() as staging:
            staging.remove(idx, origin=origin, if_version=if_version)
            done = self.publish(staging)
        return [one for one in done if one.record.outcome == "removed"]

    @contextmanager
    def batch(
        self,
        *,
        tag: str = "main",
        signed: bool = False,
        count: int = BATCH_COUNT,
        seconds: float | None = None,
        prepare: Callable[[int, Any], Prepared] = as_given,
    ) -> Iterator[Batch]:
        """Collects what is set in the batch into commits of up to `count` samples or `seconds`.

        What is complete is committed on leaving, also after an exception; a process that is
        killed loses the samples that were not committed yet, and nothing else.

        Args:
            tag: The part of the run.
            signed: Whether the ledger notes what each sample's files are like.
            count: The samples after which what was set is committed.
            seconds: The time after which it is; None: a second, of a bucket five.
            prepare: Takes a sample, and the index to write it at, through operations before it
                is staged.

        Raises:
            DatasetError: If `tag` cannot be the name of a folder.
        """
        if tag in ("", ".", "..") or "/" in tag or not tag.isprintable():
            raise DatasetError(f"tag {tag!r}: expected what can be a folder's name.")
        publish = partial(self.publish, tag=tag, signed=signed)
        seconds = self.batch_seconds if seconds is None else seconds
        batch = Batch(self.staging, publish, count, seconds, prepare)
        try:
            yield batch
        finally:
            batch.flush()


def _leave(folder: str, alive: Liveness) -> None:
    """Removes a writer's folder of stagings; a logged commit still to be applied keeps it."""
    with suppress(OSError):  # not empty, or not there: the next sweep removes the rest
        for name in os.listdir(folder):
            os.rmdir(os.path.join(folder, name))
        os.rmdir(folder)
        os.unlink(folder + ".alive")
    alive.close()


def dataset_exists(place: str, claimed_by: str | None, kind: str) -> DatasetExistsError:
    """The error of a writer that may not write into a dataset that exists.

    Args:
        place: The dataset.
        claimed_by: The run that created it, if that is known.
        kind: What may be given in its place.
    """
    whose = "" if claimed_by is None else f" (created by run {claimed_by!r})"
    return DatasetExistsError(
        f"Dataset {place} exists{whose} and is not to be overwritten. Give another {kind}, or the "
        "run key of the run that created it, to go on with that run. From Python, what writes into "
        "a dataset that exists is `to_underfolder` with `exists_ok`, `create_output_stream` or the "
        "block `OutputUnderfolder`."
    )
