"""Object stores: a few verbs on the objects of a bucket, with exact meanings.

Through obstore, which talks to S3 and what is like it, Google Cloud Storage and Azure. Where no
credentials are given (`credentials.py`), it looks for them where each provider's own tools do: in
the environment (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ``GOOGLE_APPLICATION_CREDENTIALS``,
``AZURE_STORAGE_ACCOUNT_NAME``, …) and in the machine's role; and tries again what fails for a
moment (429, 5xx, a broken connection), for half a minute, or as many seconds as
``PIPESTREAM_STORE_PATIENCE`` says.
"""

import math
import os
import re
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar
from urllib.parse import quote

from prefect_pipestream.errors import DatasetError, DatasetWriteError, MissingExtraError
from prefect_pipestream.storage.address import Address
from prefect_pipestream.storage.credentials import (
    StoreOptions,
    connection,
    likely_cause,
    options_for,
    to_be_pickled,
    use_options,
)

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = "PIPESTREAM_STORE_PATIENCE"
"""The variable for how many seconds a request is tried again, where a store is away."""
_PATIENCE_S = 30.0
_LONGEST_PATIENCE_S = 1_000_000
_PANIC = "PanicException"  # of Rust, in what obstore is made of; it is no `Exception`
_PLAIN = re.compile(r"[\w./=+,@-]*", re.ASCII)
_OF_SYSTEM = re.compile(r'(?:message|error): "([^"<]+)"')  # deep in what obstore says
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
AT_ONCE = 16
"""How many requests are under way at once, at most, where there are many to make."""
_IN_PARTS = 64 << 20  # bytes: larger files are sent in parts, of which there may be 10,000
_PART = 16 << 20
_LARGEST_COPY = 5 << 30  # bytes: what S3 and its like copy in one request


class StoreError(DatasetError):
    """An object store cannot be asked, or does not answer as it has to."""

    @classmethod
    @contextmanager
    def explaining_writes(cls, what: str) -> Iterator[None]:
        """Raises `DatasetWriteError` in place of one inside.

        Args:
            what: What cannot be done, and to which dataset.
        """
        try:
            yield
        except cls as error:
            raise DatasetWriteError(None, f"{what} ({error})") from error


class ObjectExistsError(StoreError, FileExistsError):
    """An object was to be created, and there is one already."""


@dataclass(frozen=True, slots=True)
class Stat:
    """What a store tells of an object.

    Attributes:
        key: Its path below the root.
        size: Bytes.
        etag: What tells its content from others, as the store has it: not by the content alone, nor
            another one for each write.
        at: When it was written, in seconds since the epoch, by the store's clock; some stores tell
            it less exactly in one answer than in another, and two are the same whatever it says.
    """

    key: str
    size: int
    etag: str
    at: float = field(default=0.0, compare=False)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.key.rpartition("/")[2]


class Content(NamedTuple):
    """An object's content, and what the store calls it."""

    data: bytes
    etag: str


class Store:
    """The objects below one address. Safe in threads; a pickled copy connects anew.

    Args:
        root: The address.
        options: How it is reached; by default as the environment says.

    Attributes:
        root: The address.
        options: How it is reached.
    """

    def __init__(self, root: Address, options: StoreOptions | None = None) -> None:
        self.root = root
        self.options = options
        self._connected: Any = None
        self._keeps_to_create = False
        self._guard = threading.Lock()

    def __reduce__(self) -> tuple[Callable[..., "Store"], tuple[Address, StoreOptions | None]]:
        return _opened_again, (self.root, to_be_pickled(self.options))

    @property
    def _store(self) -> Any:
        with self._guard:
            if self._connected is None:
                self._connected = _connect(self.root, self.options)
        return self._connected

    @contextmanager
    def _explained(self, verb: str, key: str) -> Iterator[None]:
        """Raises the errors of this module in place of obstore's.

        Raises:
            FileNotFoundError: If there is no such object.
            ObjectExistsError: If there is one, and was not to be.
            StoreError: If anything else is wrong.
        """
        exceptions = _obstore().exceptions
        try:
            yield
        except (FileNotFoundError, exceptions.NotFoundError) as error:
            raise FileNotFoundError(2, "there is no such object", self.root / key) from error
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
            raise ObjectExistsError(f"{self.root / key}: there is one already.") from error
        except BaseException as error:
            is_known = isinstance(error, exceptions.BaseError | OSError | ValueError)
            if not is_known and type(error).__name__ != _PANIC:
                raise
            raise StoreError(
                f"{self.root / key}: could not be {verb} ({_reason_of(error)}). "
                f"{_remedy_of(error)}; nothing is changed upon a guess."
            ) from (None if "<Token" in str(error) else error)  # S3 sends a refused token back

    def read(self, key: str, most: int | None = None) -> Content:
        """The content of an object.

        Args:
            key: The object.
            most: How many bytes it may have, if it comes from anybody; None: any number.

        Raises:
            FileNotFoundError: If there is no such object.
            ValueError: If it has more than `most` bytes.
            StoreError: If it cannot be read.
        """
        obstore = _obstore()
        with self._explained("read", key):
            found = obstore.get(self._store, key)
            size = found.meta["size"]
            if most is None or size <= most:
                return Content(bytes(found.bytes()), _etag_of(found.meta))
        raise ValueError(f"it has {size} bytes; at most {most} are read")

    def stat(self, key: str) -> Stat | None:
        """What the store tells of an object; None where there is none.

        Raises:
            StoreError: If that cannot be asked.
        """
        obstore = _obstore()
        try:
            with self._explained("asked for", key):
                found = obstore.head(self._store, key)
        except FileNotFoundError:
            return None
        return _stat_of(found, key)

    def objects_in(self, prefix: str, after: str = "") -> Iterator[Stat]:
        """The objects below a folder, by ascending key.

        Args:
            prefix: The folder's path, without a slash at its end.
            after: A key of it: those that do not come after it are left out.

        Raises:
            StoreError: If they cannot be listed.
        """
        obstore = _obstore()
        with self._explained("listed", prefix):
            found = obstore.list(self._store, prefix, offset=after or None)
            for some in found:  # not every server knows of an offset, or leaves its key out
                yield from (stat for stat in map(_stat_of, some) if stat.key > after)

    def files_in(self, folder: str = "") -> list[Stat]:
        """The objects directly in a folder, and none below other folders of it.

        Raises:
            StoreError: If they cannot be listed.
        """
        obstore = _obstore()
        with self._explained("listed", folder):
            found = obstore.list_with_delimiter(self._store, folder or None)["objects"]
            return list(map(_stat_of, found))

    def names_in(self, folder: str) -> list[str]:
        """The names of the objects directly in a folder, and of the folders there.

        Raises:
            StoreError: If they cannot be listed.
        """
        obstore = _obstore()
        with self._explained("listed", folder):
            found = obstore.list_with_delimiter(self._store, folder)
        keys = [*(meta["path"] for meta in found["objects"]), *found["common_prefixes"]]
        return sorted({key.rstrip("/").rpartition("/")[2] for key in keys})

    def create(self, key: str, data: bytes) -> str:
        """Creates an object, whole or not at all; of several who do it at once, one does.

        Returns:
            Its etag.

        Raises:
            ObjectExistsError: If there is one. It may be this one: a store that made it may have
                been asked again as its answer was lost.
            StoreError: If it cannot be written, or that is not known.
        """
        obstore = _obstore()
        with self._explained("created", key):
            return _etag_of(obstore.put(self._store, key, data, mode="create", use_multipart=False))

    def put(self, key: str, data: bytes) -> str:
        """Writes an object, whole or not at all, over what is there; returns its etag.

        Raises:
            StoreError: If it cannot be written, or that is not known.
        """
        obstore = _obstore()
        with self._explained("written", key):
            return _etag_of(obstore.put(self._store, key, data, use_multipart=False))

    def put_file(self, key: str, path: str) -> str:
        """Writes a file as an object, over what is there; returns its etag.

        A large one is sent in parts, and never in memory as a whole. It is there whole or not at
        all.

        Raises:
            StoreError: If it cannot be written, or that is not known.
        """
        obstore = _obstore()
        with self._explained("written", key):
            in_parts = os.path.getsize(path) > _IN_PARTS
            sent = obstore.put(
                self._store, key, Path(path), use_multipart=in_parts, chunk_size=_PART
            )
            return _etag_of(sent)

    def copy(self, source: str, target: str, size: int) -> None:
        """Copies an object within the store, over what is there.

        Args:
            source: Its key.
            target: The key of the copy.
            size: Its bytes. One that is too large for the store to copy goes through a file here.

        Raises:
            FileNotFoundError: If there is no such object.
            StoreError: If it cannot be copied, or that is not known.
        """
        obstore = _obstore()
        if size > _LARGEST_COPY:
            with tempfile.NamedTemporaryFile(prefix="pipestream-") as file:
                self.fetch(source, file)
                self.put_file(target, file.name)
            return
        with self._explained("copied", source):
            obstore.copy(self._store, source, target)

    def fetch(self, key: str, file: IO[bytes]) -> None:
        """Writes an object into a file, a part after the other.

        Raises:
            FileNotFoundError: If there is no such object.
            StoreError: If it cannot be read.
        """
        obstore = _obstore()
        with self._explained("read", key):
            for part in obstore.get(self._store, key).stream(min_chunk_size=_PART):
                file.write(part)
            file.flush()

    def copies_from(self, source: "Store") -> bool:
        """Whether the store can itself copy objects of another one: they are in one bucket."""
        if source.root == self.root:
            return True
        if self.root.startswith("memory:") or source.options != self.options:
            return False
        # Others may be written otherwise in the keys of a bucket than in an address.
        are_plain = all(_PLAIN.fullmatch(one.root.key) for one in (source, self))
        return are_plain and source.root.bucket == self.root.bucket

    def copy_from(self, source: "Store", key: str, target: str, size: int) -> None:
        """Copies an object of another store in the same bucket, over what is there.

        Args:
            source: The other store; see `copies_from`.
            key: The object there.
            target: The object here.
            size: Its bytes.

        Raises:
            FileNotFoundError: If there is no such object.
            StoreError: If it cannot be copied, or that is not known.
        """
        if source.root == self.root:
            self.copy(key, target, size)
            return
        there, here = (f"{one.root.key}/{name}" for one, name in ((source, key), (self, target)))
        self._bucket.copy(there.lstrip("/"), here.lstrip("/"), size)

    @cached_property
    def _bucket(self) -> "Store":
        return Store(Address(self.root.bucket), self.options)

    def delete(self, key: str) -> None:
        """Removes an object; one that is not there is no error.

        Raises:
            StoreError: If it cannot be removed, or that is not known.
        """
        obstore = _obstore()
        try:
            with self._explained("removed", key):
                obstore.delete(self._store, key)
        except FileNotFoundError:
            pass

    def require_create(self, folder: str) -> None:
        """Tries once whether the store keeps to `create`, on which all promises rest.

        Args:
            folder: Where the object that is tried with is made, and removed.

        Raises:
            StoreError: If a second `create` of one key is let through: it is not to be written;
                or if objects cannot be created, or removed.
        """
        if self._keeps_to_create:
            return
        with self.trying(folder) as key:
            try:
                self.create(key, b"first")  # refused where it was asked for again, its answer lost
                self.create(key, b"second")
            except ObjectExistsError:
                self._keeps_to_create = True
        if not self._keeps_to_create:
            raise StoreError(
                f"{self.root}: this store lets an object be created twice (it does not heed "
                "`If-None-Match: *`), so that two writers would overwrite each other's commits. It "
                "can be read, but not written. Ask whoever runs it for a version that heeds "
                "conditions."
            )

    @contextmanager
    def trying(self, folder: str) -> Iterator[str]:
        """The key of an object to try something with, which is removed at the end of the block.

        Raises:
            StoreError: If it cannot be removed, and nothing was wrong before.
        """
        key = f"{folder}/probe-{secrets.token_hex(8)}"
        try:
            yield key
        except StoreError:
            with suppress(StoreError):  # who may not write may not remove; the first is told
                self.delete(key)
            raise
        self.delete(key)

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"


def _stat_of(meta: Any, key: str | None = None) -> Stat:
    path = meta["path"] if key is None else key
    return Stat(path, meta["size"], _etag_of(meta), meta["last_modified"].timestamp())


def _etag_of(meta: Any) -> str:
    etag = meta.get("e_tag")
    return "" if etag is None else str(etag).strip('"')


def _obstore() -> Any:
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise MissingExtraError(
            "Datasets in object stores need obstore. Install it by "
            "`pip install 'prefect-pipestream[objects]'`."
        ) from error
    return obstore


def _connect(root: Address, options: StoreOptions | None) -> Any:
    opening = _obstore().store
    if root.startswith("memory:"):
        return opening.MemoryStore()
    waits = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2}
    retries = {"max_retries": 1000, "retry_timeout": _patience(), "backoff": waits}
    how = connection(root, options)
    try:
        return opening.from_url(_url_of(root), retry_config=retries, **how)
    except Exception as error:  # of many kinds, as where credentials cannot be understood
        said = str(error).partition("\n")[0]
        raise StoreError(f"{root}: this store cannot be opened ({said}).") from error


def _patience() -> timedelta:
    """For how long what fails is tried again.

    Raises:
        StoreError: If the variable says no number of seconds.
    """
    given = os.environ.get(PATIENCE) or str(_PATIENCE_S)
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _LONGEST_PATIENCE_S:
        raise StoreError(
            f"The variable {PATIENCE} is {given!r}: expected a number of seconds from 0 to "
            f"{_LONGEST_PATIENCE_S:,}."
        )
    return timedelta(seconds=seconds)


def _url_of(root: Address) -> str:
    """The URL that has just the key of an address as its path: an address is none."""
    return f"{root.bucket}/{quote(root.key)}" if root.key else root.bucket


def _reason_of(error: BaseException) -> str:
    """What a store says of an error, in one line: its own code, where it gives one as XML."""
    text = str(error)
    if (cause := likely_cause(text)) is not None:
        return cause
    code, message = (re.search(f"<{tag}>([^<]+)</{tag}>", text) for tag in ("Code", "Message"))
    if not code:
        said, of_system = text.partition("\n")[0], _OF_SYSTEM.findall(text)
        said = _CONTROL.sub(lambda match: ascii(match[0])[1:-1], said)  # of a name by anybody
        return f"{said}: {of_system[-1]}" if of_system else said
    return f"{code[1]}: {message[1]}" if message else code[1]


def _remedy_of(error: BaseException) -> str:
    """What is to be done about an error."""
    if "object with invalid path" in str(error):
        return "Rename or remove this object with the store's own tools"
    return "Check the address, the credentials and the network"


_open: dict[tuple[int, Address], Store] = {}
_opening = threading.Lock()


def open_store(root: Address) -> Store:
    """The store at an address: one in each process, as connections are not to be forked.

    It is reached as noted for the address; where that is noted otherwise later, it is another one.
    """
    options = options_for(root)
    with _opening:
        found = _open.get((os.getpid(), root))
        if found is None or found.options != options:
            found = _open[os.getpid(), root] = Store(root, options)
        return found


def _opened_again(root: Address, options: StoreOptions | None) -> Store:
    """The store that was pickled; how it is reached is known in this process from now on."""
    if options is not None:
        use_options(root, options)
    return open_store(root)


_pools: dict[int, ThreadPoolExecutor] = {}


def _pool() -> ThreadPoolExecutor:
    """The threads of this process that wait for answers of stores."""
    with _opening:
        pid = os.getpid()
        if pid not in _pools:
            _pools[pid] = ThreadPoolExecutor(AT_ONCE, "pipestream-store")
        return _pools[pid]


def in_background(work: Callable[[T], R], thing: T) -> "Future[R]":
    """Does some work, which makes requests, while the caller goes on."""
    return _pool().submit(work, thing)


def at_once(work: Callable[[T], R], things: Iterable[T]) -> list[R]:
    """The results of some work on each of many things, some of it at the same time.

    The work makes requests, and calls neither this nor `in_background`. The first error is raised
    once what is under way has ended; what was not begun is left.
    """
    chosen = list(things)
    if len(chosen) < 2:
        return [work(one) for one in chosen]
    pool = _pool()
    futures = [pool.submit(work, one) for one in chosen]
    try:
        return [future.result() for future in futures]
    finally:
        begun = [future for future in futures if not future.cancel()]
        wait(begun)
