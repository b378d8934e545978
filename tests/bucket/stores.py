"""Stores whose requests are counted, and whose processes die or are held up at one of them."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock
from typing import Any

import pytest
from obstore.store import MemoryStore

from prefect_pipestream.storage import store as stores
from prefect_pipestream.storage.address import Address
from prefect_pipestream.storage.store import Content, Stat, Store

ROOT = Address.of("memory://bucket/parts")
_OF_A_CONTENT = pytest.param(True, marks=pytest.mark.slow, id="etag of a content")
md5 = pytest.mark.parametrize("md5", [pytest.param(False, id="etag of a write"), _OF_A_CONTENT])
"""A test of stores whose etags are those of a write, and of such as have those of contents."""


class KilledError(BaseException):
    """The process is dead: no code of it can do anything about that."""


class Dead:
    """Kills the process at a request, before or after it is carried out.

    From then on, none of its requests gets through, in whichever thread.
    """

    def __init__(self, *, after: bool) -> None:
        self._after = after
        self.is_dead = False

    def __call__(self, is_after: bool) -> None:
        if is_after == self._after:
            self.is_dead = True
            raise KilledError


class Meanwhile:
    """Holds the process up before a request, while another one does some work.

    Args:
        objects: The objects of both.
        work: What is done meanwhile.
        md5: As for `HostStore`.

    Attributes:
        did: What the work returned, each time that it was done.
    """

    def __init__(self, objects: MemoryStore, work: Callable[[], Any], *, md5: bool = False) -> None:
        self._objects = objects
        self._work = work
        self._md5 = md5
        self.did: list[Any] = []

    def __call__(self, is_after: bool) -> None:
        if not is_after:
            with process(self._objects, md5=self._md5):
                self.did.append(self._work())


class HostStore(Store):
    """The store as one process sees it, over objects that all of them share.

    Args:
        objects: The objects.
        root: The dataset's address.
        md5: Whether etags are of the content alone, as those of S3.
        at: The request at which something happens, counted from 1; 0: none.
        happens: What happens: before the request, and after it if it returns True.
    """

    def __init__(
        self,
        objects: MemoryStore,
        *,
        root: Address = ROOT,
        md5: bool = False,
        at: int = 0,
        happens: Callable[[bool], None] = lambda _: None,
    ) -> None:
        super().__init__(root)
        self._connected = objects
        self._md5 = md5
        self._at = at
        self._happens = happens
        self.requests: list[str] = []
        self._counting = Lock()

    @contextmanager
    def _explained(self, verb: str, key: str) -> Iterator[None]:
        if isinstance(self._happens, Dead) and self._happens.is_dead:
            raise KilledError
        with self._counting:  # of several threads
            self.requests.append(f"{verb} {key}")
            is_now = len(self.requests) == self._at
        if is_now:
            self._happens(False)
        with super()._explained(verb, key):
            yield
        if is_now:
            self._happens(True)

    def _named(self, key: str, etag: str) -> str:
        if not self._md5:
            return etag
        import obstore

        return hashlib.md5(bytes(obstore.get(self._connected, key).bytes())).hexdigest()

    def read(self, key: str, most: int | None = None) -> Content:
        found = super().read(key, most)
        return found if not self._md5 else Content(found.data, hashlib.md5(found.data).hexdigest())

    def stat(self, key: str) -> Stat | None:
        found = super().stat(key)
        return found and replace(found, etag=self._named(key, found.etag))

    def objects_in(self, prefix: str, after: str = "") -> Iterator[Stat]:
        for stat in super().objects_in(prefix, after):
            yield replace(stat, etag=self._named(stat.key, stat.etag))

    def files_in(self, folder: str = "") -> list[Stat]:
        return [replace(s, etag=self._named(s.key, s.etag)) for s in super().files_in(folder)]

    def create(self, key: str, data: bytes) -> str:
        return self._named(key, super().create(key, data))

    def put(self, key: str, data: bytes) -> str:
        return self._named(key, super().put(key, data))

    def put_file(self, key: str, path: str) -> str:
        return self._named(key, super().put_file(key, path))


@contextmanager
def process(objects: MemoryStore, *, root: Address = ROOT, **options: Any) -> Iterator[HostStore]:
    """What is opened inside belongs to one process, whose store this is."""
    key = (os.getpid(), root)
    before = stores._open.pop(key, None)
    store = stores._open[key] = HostStore(objects, root=root, **options)
    try:
        yield store
    finally:
        if before is None:
            del stores._open[key]
        else:
            stores._open[key] = before
