"""Contents on their way into a bucket: they lie where nobody looks until an entry names them."""

import logging
import os
from collections.abc import Iterable
from dataclasses import replace

from prefect_pipestream.storage.file_source import digest_at, new_digest
from prefect_pipestream.storage.store import Store, StoreError, at_once
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.entry import Entry, Ref
from prefect_pipestream.underfolder.bucket.keys import object_of, view_of
from prefect_pipestream.underfolder.bucket.log import BucketLog
from prefect_pipestream.underfolder.bucket.source import BucketSource
from prefect_pipestream.underfolder.bucket.state import State
from prefect_pipestream.underfolder.commits.staging import StagedFile
from prefect_pipestream.underfolder.format.layout import staged_name

_log = logging.getLogger(__name__)

LEFT_AFTER_S = 86_400.0
"""How old contents are at least that no entry has and that may be removed, in seconds."""


def sent(store: Store, folder: str, file: StagedFile) -> Ref:
    """Sends a staged file to where nobody looks.

    Args:
        store: The store, below the dataset's address.
        folder: The folder of objects that it gets into.
        file: The file.

    Raises:
        StoreError: If it cannot be sent.
    """
    source, key = file.source, object_for(folder, file)
    if isinstance(source, BucketSource):
        return _read_and_sent(store, key, source)
    digest = source.digest or digest_at(source.path)
    ref = Ref(key, os.path.getsize(source.path), digest.hex(), "")
    return replace(ref, etag=store.put_file(object_of(ref), source.path))


def _read_and_sent(store: Store, key: str, source: BucketSource) -> Ref:
    """Sends what is read of another bucket, or of another place in this one."""
    try:
        data = source.read()
    except FileNotFoundError as error:
        raise StoreError(f"{source.path}: what is to be written is gone") from error
    assert source.digest is not None
    ref = Ref(key, len(data), source.digest.hex(), "")
    return replace(ref, etag=store.put(object_of(ref), data))


def object_for(folder: str, file: StagedFile) -> str:
    """The key of a staged file among the contents, in a folder of them."""
    return f"objects/{folder}/{staged_name(file.name)}"


def forget_unused(log: BucketLog, sent: Iterable[Ref], entry: Entry | None) -> None:
    """Removes contents that were sent for an entry and are not in it.

    Args:
        log: The log.
        sent: The contents.
        entry: The entry; None: none was made.
    """
    used = set() if entry is None else set(entry.refs)
    try:
        at_once(log.store.delete, [object_of(ref) for ref in sent if ref not in used])
    except StoreError as error:
        _log.info("%s: contents that nothing needs are left: %s", log.root, error)


def kept_aside(
    dataset: Bucket,
    state: State,
    names: Iterable[str],
    commit_id: str,
    kept: dict[tuple[str, str], Ref] | None = None,
) -> dict[str, Ref]:
    """The contents of files as they are now; what the log does not have of them is copied aside.

    Args:
        dataset: The dataset.
        state: What the log says of it.
        names: The files; those that are not there are left out.
        commit_id: The commit before which they are kept.
        kept: What was copied before, by name and etag; it is added to.
    """
    kept = {} if kept is None else kept
    store, contents = dataset.log.store, dataset.contents

    def copied(name: str) -> Ref | None:
        try:
            there = store.read(view_of(name))
        except FileNotFoundError:
            return state.refs.get(name)
        digest = new_digest(there.data).hexdigest()
        ref = state.refs.get(name)
        if ref is not None and (digest == ref.digest or state.was_before(name, digest)):
            return ref
        if (name, there.etag) not in kept:
            key = f"objects/{commit_id}/before-{len(kept)}.{staged_name(name)}"
            new = Ref(key, len(there.data), digest, there.etag)
            store.put(object_of(new), there.data)
            kept[name, there.etag] = new
        return kept[name, there.etag]

    found: dict[str, Ref] = {}
    unknown = []
    for name in names:
        ref, now = state.refs.get(name), contents.version_now(name)
        if now is None:
            continue
        if ref is not None and ref.version().may_be(now):
            found[name] = ref
        elif (same := kept.get((name, contents.etag_now(name)))) is not None:
            found[name] = same
        else:
            unknown.append(name)
    copies = zip(unknown, at_once(copied, unknown), strict=True)
    return found | {name: ref for name, ref in copies if ref is not None}
