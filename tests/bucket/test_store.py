"""What is expected of a store's verbs, whichever store it is."""

import os
import pickle
import secrets
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.storage import store as stores
from prefect_pipestream.storage.address import Address
from prefect_pipestream.storage.store import (
    ObjectExistsError,
    Stat,
    Store,
    StoreError,
    at_once,
    open_store,
)

ODD_NAMES = [
    "a b.json",
    " x ",
    "größe_日本語.json",
    "100%.json",
    "a%20b.json",
    "plus+and&=.json",
    "what?.json",
    "#1.json",
    "semi;colon,'quoted\".json",
    "~(tilde)*!.json",
    "[1]{2}|^`<3>.json",
    "back\\slash.json",
    "a:b@c$d.json",
]


def keys(found: "list[Stat]") -> list[str]:
    return [stat.key for stat in found]


class StoreTests:
    """The tests; a subclass gives the store.

    Attributes:
        refused: The names that it keeps otherwise.
    """

    refused: tuple[str, ...] = ()

    @pytest.fixture
    def root(self) -> Address:
        raise NotImplementedError

    @pytest.fixture
    def store(self, root: Address) -> Store:
        return open_store(root)

    def test_what_was_put_is_read_with_the_etag_that_all_verbs_tell(self, store: Store) -> None:
        etag = store.put("data/a.json", b"content")

        assert etag
        assert store.read("data/a.json") == (b"content", etag)
        assert store.stat("data/a.json") == Stat("data/a.json", 7, etag)
        assert list(store.objects_in("data")) == [Stat("data/a.json", 7, etag)]
        assert store.files_in("data") == [Stat("data/a.json", 7, etag)]

    def test_what_is_put_over_it_has_another_etag(self, store: Store) -> None:
        first = store.put("a", b"one")
        second = store.put("a", b"other")

        assert first != second
        assert store.read("a") == (b"other", second)

    def test_an_object_that_is_not_there(self, store: Store) -> None:
        store.put("data/a", b"1")

        for key in ("b", "data", "data/a/b", "dat"):
            with pytest.raises(FileNotFoundError):
                store.read(key)
            assert store.stat(key) is None

    def test_an_object_is_created_once(self, store: Store) -> None:
        etag = store.create("log/1", b"first")

        with pytest.raises(ObjectExistsError, match="log/1"):
            store.create("log/1", b"second")

        assert store.read("log/1") == (b"first", etag)
        store.delete("log/1")
        store.create("log/1", b"third")

    def test_of_many_who_create_an_object_one_does(self, store: Store) -> None:
        def create(content: bytes) -> bytes | None:
            try:
                store.create("log/1", content)
            except ObjectExistsError:
                return None
            return content

        found = at_once(create, [b"%d" % number for number in range(stores.AT_ONCE)])

        (winner,) = filter(None, found)
        assert store.read("log/1").data == winner

    def test_a_copy_goes_over_what_is_there(self, store: Store) -> None:
        store.put("objects/new", b"new")
        store.put("data/a", b"what was there")

        store.copy("objects/new", "data/a", 3)
        store.copy("objects/new", "data/b", 3)

        assert [store.read(f"data/{name}").data for name in "ab"] == [b"new", b"new"]
        assert store.read("objects/new").data == b"new"

    def test_what_is_not_there_is_not_copied(self, store: Store) -> None:
        store.put("data/a", b"what was there")

        with pytest.raises(FileNotFoundError):
            store.copy("objects/none", "data/a", 1)

        assert store.read("data/a").data == b"what was there"

    def test_what_is_not_there_is_removed_without_an_error(self, store: Store) -> None:
        store.put("data/a", b"1")

        store.delete("data/a")
        store.delete("data/a")
        store.delete("none/at/all")

        assert store.stat("data/a") is None
        assert list(store.objects_in("data")) == []

    def test_objects_are_listed_by_ascending_key_below_the_very_folder(self, store: Store) -> None:
        names = ["000_b.png", "000_a.png", "10_a.png", "1_a.png", "Z", "a", "~"]
        for key in (*(f"data/{name}" for name in names), "data2/x", "data.json", "dat/x", "x"):
            store.put(key, b"1")

        found = keys(list(store.objects_in("data")))

        assert found == [f"data/{name}" for name in sorted(names)]
        assert list(store.objects_in("none")) == []

    def test_objects_are_listed_from_below_folders_of_folders(self, store: Store) -> None:
        for key in ("data/a/1", "data/a/b/2", "data/c"):
            store.put(key, b"1")

        assert keys(list(store.objects_in("data"))) == ["data/a/1", "data/a/b/2", "data/c"]

    def test_objects_are_listed_after_a_key_that_is_there_or_not(self, store: Store) -> None:
        for number in (1, 2, 4, 5):
            store.put(f"log/{number:03d}.json", b"1")

        def after(number: int) -> list[str]:
            return keys(list(store.objects_in("log", f"log/{number:03d}.json")))

        assert after(0) == [f"log/{number:03d}.json" for number in (1, 2, 4, 5)]
        assert after(2) == after(3) == ["log/004.json", "log/005.json"]
        assert after(5) == after(6) == []

    def test_more_objects_are_listed_than_an_answer_has(self, store: Store) -> None:
        wanted = [f"log/{number:04d}" for number in range(1100)]
        at_once(lambda key: store.put(key, b"1"), wanted)

        assert keys(list(store.objects_in("log"))) == wanted
        assert keys(store.files_in("log")) == wanted
        assert keys(list(store.objects_in("log", wanted[50]))) == wanted[51:]

    def test_the_files_of_a_folder_are_those_directly_in_it(self, store: Store) -> None:
        for key in ("camera.yaml", "data/a", "data/b/c", "data2/d"):
            store.put(key, b"1")

        assert keys(store.files_in()) == ["camera.yaml"]
        assert keys(store.files_in("data")) == ["data/a"]
        assert store.files_in("none") == []

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_any_name_is_kept_as_it_is(self, store: Store, name: str) -> None:
        if name in self.refused:
            pytest.skip("known not to be kept by this store")
        etag = store.put(f"data/{name}", b"1")
        stat = Stat(f"data/{name}", 1, etag)

        assert store.read(f"data/{name}").data == b"1"
        assert store.stat(f"data/{name}") == stat
        assert list(store.objects_in("data")) == [stat]
        assert store.files_in("data") == [stat]
        with pytest.raises(ObjectExistsError):
            store.create(f"data/{name}", b"2")
        store.copy(f"data/{name}", f"copies/{name}", 1)
        store.copy(f"copies/{name}", f"data/other {name}", 1)
        assert store.read(f"data/other {name}").data == b"1"
        store.delete(f"data/{name}")
        assert keys(list(store.objects_in("data"))) == [f"data/other {name}"]

    def test_an_empty_object(self, store: Store) -> None:
        etag = store.put("data/empty", b"")
        store.copy("data/empty", "data/copied", 0)

        assert store.read("data/empty") == (b"", etag)
        assert store.read("data/copied").data == b""
        assert store.stat("data/empty") == Stat("data/empty", 0, etag)
        with pytest.raises(ObjectExistsError):
            store.create("data/empty", b"1")

    def test_a_big_object(self, store: Store) -> None:
        content = secrets.token_bytes(20_000_000)
        etag = store.create("objects/big", content)
        store.copy("objects/big", "data/big", len(content))

        assert store.read("objects/big") == (content, etag)
        assert store.read("data/big").data == content
        there = store.stat("data/big")
        assert there is not None
        assert (there.key, there.size) == ("data/big", len(content))

    def test_a_large_file_goes_in_parts(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for limit in ("_IN_PARTS", "_LARGEST_COPY"):
            monkeypatch.setattr(stores, limit, 1000)
        monkeypatch.setattr(stores, "_PART", 5 << 20)  # as small as S3 lets a part be
        content = secrets.token_bytes(12_000_000)
        (tmp_path / "large").write_bytes(content)
        store.put("objects/large", b"what was there")

        etag = store.put_file("objects/large", str(tmp_path / "large"))
        store.copy("objects/large", "data/large", len(content))

        assert store.read("objects/large") == (content, etag)
        assert store.stat("objects/large") == Stat("objects/large", len(content), etag)
        assert store.read("data/large").data == content
        with pytest.raises(FileNotFoundError):
            store.copy("objects/none", "data/large", len(content))
        assert store.read("data/large").data == content

    def test_a_file_goes_over_what_is_there(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"content")
        (tmp_path / "empty").write_bytes(b"")
        store.put("a", b"what was there")

        etag = store.put_file("a", str(tmp_path / "file"))
        store.put_file("b", str(tmp_path / "empty"))

        assert store.read("a") == (b"content", etag)
        assert store.read("b").data == b""

    def test_a_store_is_tried_once_and_nothing_is_left_of_it(self, store: Store) -> None:
        store.require_create("private")
        store.require_create("private")

        assert list(store.objects_in("private")) == []

    def test_a_pickled_store_is_the_one_at_its_address(self, store: Store) -> None:
        store.put("a", b"1")

        other = pickle.loads(pickle.dumps(store))

        assert other.root == store.root
        assert other.read("a").data == b"1"


class TestMemory(StoreTests):
    """A process' memory."""

    @pytest.fixture
    def root(self) -> Address:
        return Address.of(f"memory://{secrets.token_hex(8)}/parts")


class RemoteTests(StoreTests):
    """What is asked of a server, too."""

    @pytest.mark.parametrize(
        "name", ["my parts", "größe", "100%", "a%20b", "a+b", "semi;colon", "space at its end "]
    )
    def test_a_store_is_at_the_very_address(self, root: Address, name: str) -> None:
        open_store(root / name).put("data/a", b"1")

        bucket = open_store(Address.of(root.bucket))
        assert keys(list(bucket.objects_in(root.key))) == [f"{root.key}/{name}/data/a"]

    def test_a_bucket_that_is_not_there(self, root: Address) -> None:
        store = open_store(Address.of(f"{root.partition(':')[0]}://no-such-bucket/parts"))

        assert store.stat("a") is None
        with pytest.raises((StoreError, FileNotFoundError), match="no-such-bucket"):
            list(store.objects_in("data"))
        with pytest.raises((DatasetError, FileNotFoundError), match="no-such-bucket"):
            SamplesSequence.from_underfolder(store.root)


class TestWeed(RemoteTests):
    """SeaweedFS, which makes slashes of backslashes."""

    refused = ("back\\slash.json",)

    @pytest.fixture
    def root(self, in_weed: Address) -> Address:
        return in_weed


class TestMoto(RemoteTests):
    """Moto."""

    @pytest.fixture
    def root(self, in_moto: Address) -> Address:
        return in_moto


class TestAzurite(RemoteTests):
    """Azurite, which speaks as Azure does, and makes slashes of backslashes."""

    refused = ("back\\slash.json",)

    @pytest.fixture
    def root(self, in_azurite: Address) -> Address:
        return in_azurite


class CarelessStore(Store):
    """A store that ignores conditions."""

    def create(self, key: str, data: bytes) -> str:
        return self.put(key, data)


def test_a_store_that_ignores_conditions_is_read_and_not_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = Address.of("memory://careless/parts")
    store = CarelessStore(root)
    store._connected = MemoryStore()
    monkeypatch.setitem(stores._open, (os.getpid(), root), store)
    store.put("data/0_label.json", b"5")
    stream = DataStream.read_write_underfolder(root)
    assert stream[0]["label"]() == 5

    with pytest.raises(DatasetError, match="If-None-Match"):
        stream.set_output(0, stream[0].set_value("label", 6))
    with pytest.raises(StoreError, match="created twice"):
        store.require_create(".pipestream")
    with pytest.raises(DatasetError, match="If-None-Match"):
        DataStream.create_output_stream(root).set_output(1, Sample())

    assert SamplesSequence.from_underfolder(root)[0]["label"]() == 5
    assert keys(list(store.objects_in(""))) == ["data/0_label.json"]
