"""One commit to a bucket: an entry of the log, created if nobody was faster."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from prefect_pipestream.errors import DatasetError, DatasetWriteError, RunTakenOverError
from prefect_pipestream.storage.address import Place
from prefect_pipestream.storage.file_source import FileSource
from prefect_pipestream.storage.store import StoreError, at_once
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.entry import Entry, Ref
from prefect_pipestream.underfolder.bucket.keys import object_of, view_of
from prefect_pipestream.underfolder.bucket.log import BucketLog
from prefect_pipestream.underfolder.bucket.sending import (
    LEFT_AFTER_S,
    forget_unused,
    kept_aside,
    object_for,
    sent,
)
from prefect_pipestream.underfolder.bucket.source import BucketSource
from prefect_pipestream.underfolder.bucket.state import State
from prefect_pipestream.underfolder.commits.attempts import moved_since, undone_while_on
from prefect_pipestream.underfolder.commits.commit import Commit, Rules
from prefect_pipestream.underfolder.commits.conflicts import is_stale
from prefect_pipestream.underfolder.commits.staging import StagedFile, StagedSample, Staging
from prefect_pipestream.underfolder.format.layout import staged_name
from prefect_pipestream.underfolder.format.names import key_of
from prefect_pipestream.underfolder.format.origin import SampleOrigin
from prefect_pipestream.underfolder.ledger.records import CommitRecord, new_commit_id

_log = logging.getLogger(__name__)


class BucketCommit(Commit):
    """One commit of all that is staged somewhere, to a bucket.

    Args:
        staging: Where it is staged. It is empty afterwards.
        rules: How the commit is made.
        dataset: The dataset.
    """

    def __init__(self, staging: Staging, rules: Rules, dataset: Bucket) -> None:
        super().__init__(staging, rules)
        self._dataset = dataset
        self._contents = dataset.contents
        self._log: BucketLog = dataset.log
        self._id = ""
        self._sent_at = math.inf  # where nobody would take it for left over
        self._refs: dict[str, Ref] = {}
        self._kept: dict[tuple[str, str], Ref] = {}
        self._conflicts: list[int] = []

    def publish(
        self,
        run_key: str,
        tag: str,
        drops: Iterable[str] = (),
        stage: Callable[[], None] | None = None,
        write_id: str | None = None,
    ) -> list[StagedSample]:
        """Adds all of it to the log, as part of the run, and puts the files in place.

        Args, Returns, Raises: As for a folder; see `Commit.publish`.
        """
        staging = self._staging
        if stage is not None:
            raise DatasetError(f"{self._dataset.address}: this cannot be done in a bucket yet.")
        if not staging.samples and not staging.shared:
            return []
        self._id = new_commit_id(write_id)
        what = f"{self._layout.root}: the commit could not be written"
        try:
            self._sent_at = time.time()
            self._send()
            with self._contents.asked_at_once(self._names_asked()):
                added = self._log.append(
                    lambda state: self._entry(state, run_key, tag, tuple(drops))
                )
        except StoreError as error:
            staging.discard()
            raise DatasetWriteError(None, f"{what} ({error})") from error
        committed = list(staging.samples.values())
        self._forget_unused(None if added is None else added[1])
        if added is not None:
            number, entry = added
            for staged in committed:
                staged.commit_id = entry.id
            self._take_over(committed)
            self._log.placing.put(number, entry)
        staging.discard()
        if self._conflicts:
            raise self._conflict(self._conflicts)
        return committed

    def refuse_conflicts(self) -> None:
        """Checks what has no file to put in place as a commit of it would be, and makes none."""
        self._log.refresh()
        self._staging.look()
        conflicts = self._drop_conflicting()
        if conflicts:
            raise self._conflict(conflicts)

    # -- contents ----------------------------------------------------------------------

    def _send(self) -> None:
        """Sends the new contents, and keeps old ones, where nobody looks before the entry is."""
        work: list[Callable[[], None]] = []
        for staged in self._staging.samples.values():
            in_place = staged.origin is not None and staged.is_in_place(self._layout)
            known = staged.origin.sources if in_place and staged.origin is not None else {}
            for file in staged.files:
                work.append(partial(self._upload, file))
                old = known.get(file.name)
                if isinstance(old, BucketSource) and old.is_plain and old.digest is not None:
                    work.append(partial(self._keep, old, old.digest))
        work += [partial(self._upload, file) for file in self._staging.shared.values()]
        at_once(lambda one: one(), work)
        for file in [file for file in self._files() if file.name not in self._refs]:
            # Here, and in no thread: what is read may be on its way to them already.
            self._note(file, sent(self._log.store, self._id, file))

    def _files(self) -> Iterator[StagedFile]:
        for staged in self._staging.samples.values():
            yield from staged.files
        yield from self._staging.shared.values()

    def _upload(self, file: StagedFile) -> None:
        if not isinstance(file.source, BucketSource):
            self._note(file, sent(self._log.store, self._id, file))
        elif (ref := self._copied(file, file.source)) is not None:
            self._note(file, ref)

    def _note(self, file: StagedFile, ref: Ref) -> None:
        self._refs[file.name] = ref
        source = BucketSource(self._contents, file.name, ref)
        source.version = ref.version(is_read=True)
        file.source = source

    def _copied(self, file: StagedFile, source: BucketSource) -> Ref | None:
        """Lets the store copy a content that is kept; None where it cannot."""
        if (kept := source.kept) is None:
            return None
        store, ref = self._log.store, replace(kept, object=object_for(self._id, file))
        try:
            store.copy_from(source.store, object_of(kept), object_of(ref), ref.size)
            there = store.stat(object_of(ref))
        except (StoreError, FileNotFoundError) as error:
            _log.info(
                "%s: it is read and sent, as the store does not copy it: %s", source.path, error
            )
            return None
        if there is None or there.size != ref.size:
            return None
        return replace(ref, etag=there.etag)

    def _keep(self, old: BucketSource, digest: bytes) -> None:
        """Copies what is replaced aside: if the store calls it as it did afterwards, it is that."""
        key = f"objects/{self._id}/before.{staged_name(old.name)}"
        ref = Ref(key, old.size(), digest.hex(), old.etag)
        try:
            self._log.store.copy(view_of(old.name), object_of(ref), ref.size)
        except FileNotFoundError:
            return  # a conflict
        self._kept[old.name, old.etag] = ref

    def _forget_unused(self, entry: Entry | None) -> None:
        """Removes contents that were sent and are in no entry: those of samples in conflict."""
        forget_unused(self._log, [*self._refs.values(), *self._kept.values()], entry)

    # -- the entry ---------------------------------------------------------------------

    def _entry(self, state: State, run_key: str, tag: str, drops: tuple[str, ...]) -> Entry | None:
        """The entry to be added to what is so; None where all of it is in conflict."""
        staging = self._staging
        self._refuse_if_late()
        self._refuse_if_taken_over(state, run_key)
        self._dataset.refreshed_index()
        staging.look()
        staging.refuse_changed_shared()
        self._conflicts += self._drop_conflicting()
        if self._conflicts and drops:
            staging.clear()
        if not staging.samples and not staging.shared:
            return None
        in_order = staging.in_order()
        self._written = {file.name for staged in in_order for file in staged.files}
        samples = tuple(map(self._final_record, in_order))
        shared = {name: file for name, file in staging.shared.items() if not self._exists(name)}
        placed = {name: self._refs[name] for name in (*self._written, *shared)}
        removed = [name for sample in samples for name in sample.removes]
        changed = dict.fromkeys([*placed, *removed])
        before = kept_aside(self._dataset, state, changed, self._id, self._kept)
        record = CommitRecord(
            id=self._id,
            run_key=run_key,
            tag=tag,
            staged=f"staged/bucket/{self._id}",
            at=time.time(),
            samples=samples,
            shared={name: _mark(file.source) for name, file in shared.items()},
            drops=drops,
            by=self._rules.by,
        )
        return Entry(self._id, run_key, placed, before, commit=record)

    def _refuse_if_taken_over(self, state: State, run_key: str) -> None:
        attempt = self._rules.attempt
        if attempt is None or state.attempts.get(run_key) == attempt:
            return
        raise taken_over(self._dataset.address, state, run_key)

    def _refuse_if_late(self) -> None:
        """Checks that nobody takes the contents that were sent for left over, and removes them.

        Raises:
            DatasetWriteError: If they were sent too long ago.
        """
        if time.time() - self._sent_at > LEFT_AFTER_S / 2:
            raise DatasetWriteError(
                None,
                f"{self._dataset.address}: the commit was held up for so long that what it sent "
                "may be gone. Nothing was changed: write it again",
            )

    def _names_asked(self) -> set[str]:
        """The files that it is to be known of what they are now."""
        names = set(self._staging.shared)
        if wanted := self._of_version():
            names |= self._dataset.names_of(wanted)
        for staged in self._staging.samples.values():
            names.update(one.name for one in staged.beside if isinstance(one, BucketSource))
            if staged.is_in_place(self._layout) and staged.origin is not None:
                names.update(_looked_at(staged, staged.origin))
            names.update(file.name for file in staged.files)
            names.update(staged.superseded if staged.changes_files else ())
        return names

    def _drop_conflicting(self) -> list[int]:
        samples = self._staging.samples
        versions: Mapping[int, str] = {}
        if wanted := self._of_version():
            versions = self._dataset.versions_now(wanted)
        is_checked = self._rules.on_conflict == "raise"
        conflicts = [
            idx
            for idx, staged in samples.items()
            if (staged.if_version is not None and versions[staged.target] != staged.if_version)
            or (is_checked and is_stale(staged, self._layout))
        ]
        for idx in conflicts:
            samples.pop(idx)
        return conflicts

    def _of_version(self) -> list[int]:
        """The samples that are to have a version that their writer told."""
        return [s.target for s in self._staging.samples.values() if s.if_version is not None]

    def _exists(self, name: str) -> bool:
        return self._contents.version_now(name) is not None


def taken_over(address: Place, state: State, run_key: str) -> RunTakenOverError:
    """The error of an attempt at a run that another one has, or that ended without it."""
    if run_key in state.moved_by:
        return moved_since(str(address), run_key, state.moved_by[run_key])
    if not state.attempts.get(run_key):
        return undone_while_on(str(address), run_key)
    return RunTakenOverError(
        f"{address}: another attempt at run {run_key!r} goes on with it. This one stops; what it "
        "has committed stays. To do the same work once more, give another run key."
    )


def _mark(source: FileSource) -> str:
    assert source.version is not None
    return source.version.mark


def _looked_at(staged: StagedSample, origin: SampleOrigin) -> Iterator[str]:
    """The files that a sample was made from, or replaces: those that `is_stale` looks at."""
    replaced = staged.replaced_keys
    for name, source in origin.sources.items():
        if staged.is_removal or source.digest is not None or key_of(name) in replaced:
            yield name
