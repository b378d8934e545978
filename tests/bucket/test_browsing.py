"""The browser on a dataset in a bucket: what its questions cost, and what others do meanwhile."""

import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from obstore.store import MemoryStore

from prefect_pipestream.browser.dataset import ShownDataset
from prefect_pipestream.browser.many import FlowRunAsked
from prefect_pipestream.errors import ConflictError
from prefect_pipestream.items import JsonMetadataItem
from prefect_pipestream.sequences import DataStream, SamplesSequence
from prefect_pipestream.storage.address import Address
from prefect_pipestream.storage.store import PATIENCE
from prefect_pipestream.underfolder import list_runs, undo_run
from tests.browser.screen import Screen
from tests.browser.served import Asked, Served, ServedHere
from tests.bucket.server import Server, new_root
from tests.bucket.stores import ROOT, HostStore, process
from tests.dataset_files import Files

SAMPLES = 30


def toy(root: Address, samples: int = SAMPLES) -> DataStream:
    SamplesSequence.toy_dataset(samples, image_size=16).to_underfolder(root).run()
    return DataStream.read_write_underfolder(root)


@pytest.fixture
def store() -> Iterator[HostStore]:
    """A store that counts requests, with a dataset."""
    with process(MemoryStore(), md5=True) as store:
        toy(ROOT)
        yield store


def asked(server: Asked, path: str, **query: Any) -> Any:
    answer = server.ask(f"{path}?{urlencode(query, doseq=True)}" if query else path)
    assert answer.status == 200, answer
    return answer.json()


def set_label(server: Asked, idx: int, label: int, person: str = "Ada") -> Any:
    """What is answered to a save of a sample as it is shown now."""
    edit = {"do": "set-value", "path": "metadata.label", "value": label}
    body = {
        "version": asked(server, f"/api/samples/{idx}")["version"],
        "edits": [edit],
        "save_id": secrets.token_hex(16),
    }
    return server.ask(f"/api/samples/{idx}/save", body, x_person=person)


# -- what it costs -------------------------------------------------------------------------


def test_what_a_page_asks_again_and_again_costs_a_request_or_two(
    store: HostStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefect_pipestream.underfolder.bucket.dataset._LIST_AFTER_S", 3600.0)
    with ServedHere(ROOT) as server:
        some = list(range(SAMPLES))
        questions: list[tuple[str, dict[str, Any], int]] = [
            ("/api/versions", {"indices": some}, 1),
            ("/api/found", {}, 1),
            ("/api/found", {"where": "metadata.label == 3"}, 2),
            ("/api/pictures", {"indices": some[:24], "keys": ["image", "mask"]}, 2),
            ("/api/keys", {}, 2),
            ("/api/runs", {}, 4),
            ("/api/reviews", {}, 1),
            ("/api/jobs", {}, 0),
        ]
        for path, query, _ in questions:
            asked(server, path, **query)
        for path, query, most in questions:
            before = len(store.requests)
            asked(server, path, **query)
            made = store.requests[before:]
            assert len(made) <= most, (path, made)


def test_a_save_lists_no_files(store: HostStore) -> None:
    with ServedHere(ROOT) as server:
        set_label(server, 1, 41)
        before = len(store.requests)
        assert set_label(server, 2, 42).status == 200
    listed = [one for one in store.requests[before:] if one.startswith("listed data")]
    assert len(listed) <= 1  # as two seconds may be over


def test_an_entry_is_read_whole_while_others_are_added() -> None:
    root = Address.of(f"memory://{secrets.token_hex(4)}/parts")
    stream = toy(root, 3)
    dataset, stop, wrong = ShownDataset(root), threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                dataset.kept.history(1)
                [one.run_key for one in list_runs(root)]
            except Exception as error:  # noqa: BLE001
                wrong.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for label in range(40):
        stream.set_output(1, stream[1].deep_set("metadata.label", label))
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []


# -- what others do meanwhile --------------------------------------------------------------


def test_a_version_that_is_no_more_is_seen_before_the_bucket_is_listed_again() -> None:
    root = Address.of(f"memory://{secrets.token_hex(4)}/parts")
    stream = toy(root, 3)
    shown = stream.versions([1])[1]
    files = Files(root)
    (name,) = (f"data/{one}" for one in files.of_sample(1) if "metadata" in one)
    changed = stream[1].set_value("image", stream[1]["image"]() * 0)
    files[name] += b"by: hand\n"
    with pytest.raises(ConflictError):
        stream.set_output(1, changed, if_version=shown)


@pytest.mark.usefixtures("listed_at_once")
def test_two_files_of_one_item_are_a_message_at_that_sample_alone() -> None:
    root = Address.of(f"memory://{secrets.token_hex(4)}/parts")
    toy(root, 4)
    Files(root)["data/1_image.bmp"] = b"another"
    with ServedHere(root) as server:
        assert len(asked(server, "/api/versions", indices=[0, 1, 2])) == 3
        pictures = asked(server, "/api/pictures", indices=[0, 1], keys=["image"])
        assert pictures["0"]["problems"] == [None]
        assert "two files" in pictures["1"]["problems"][0]


def test_what_another_stream_writes_is_seen_by_the_next_question() -> None:
    root = Address.of(f"memory://{secrets.token_hex(4)}/parts")
    stream = toy(root, 4)
    with ServedHere(root) as server:
        before = asked(server, "/api/versions", indices=[0, 1])
        stream.set_output(1, stream[1].deep_set("metadata.label", 77))
        stream.set_output(4, stream[0].set_item("more", JsonMetadataItem(1)))
        stream.remove(2)
        now = asked(server, "/api/versions", indices=[0, 1, 2])
        assert (now["0"], now["1"] != before["1"], now["2"]) == (before["0"], True, "absent")
        assert asked(server, "/api/found")["ranges"] == [[0, 2], [3, 2]]
        assert asked(server, "/api/found", where="metadata.label == 77")["ranges"] == [[1, 1]]


def test_a_flow_run_is_told_the_address() -> None:
    root = Address.of(f"memory://{secrets.token_hex(4)}/parts")
    toy(root, 4)
    edit = {"do": "set-value", "path": "metadata.label", "value": 9}
    change = FlowRunAsked.model_validate(
        {"ranges": [[1, 2]], "edits": [edit], "deployment": "0" * 32}
    )
    parameters = change.parameters(ShownDataset(root))
    assert (parameters["dataset"], parameters["indices"]) == (str(root), [1, 2])
    assert type(parameters["dataset"]) is str


# -- a server of its own, on a real store --------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_server_on_a_real_store_shows_saves_restores_and_undoes(in_weed: Address) -> None:
    stream = toy(in_weed)
    with Served(in_weed) as server:
        about = asked(server, "/api/dataset")
        assert (about["name"], about["folder"]) == (in_weed.name, in_weed)
        label = stream[3]["metadata"]()["label"]
        first = set_label(server, 3, 41).json()
        second = set_label(server, 3, 42, "Bob").json()
        assert stream[3]["metadata"]()["label"] == 42
        events = asked(server, "/api/samples/3/history")["events"]
        assert [one["who"].partition("@")[0] for one in events[:2]] == ["Bob", "Ada"]
        undo = {name: second[name] for name in ("run_key", "commit_id")}
        assert server.ask("/api/undo", undo).status == 200
        assert stream[3]["metadata"]()["label"] == 41
        version = asked(server, "/api/versions", indices=3)["3"]
        back = {name: first[name] for name in ("run_key", "commit_id")}
        done = server.ask("/api/samples/3/restore", {**back, "version": version})
        assert done.status == 200, done
        assert stream[3]["metadata"]()["label"] == label

        server.kill()  # who is in the middle of nothing leaves nothing
        server.start()
        runs = asked(server, "/api/runs", sizes=True)
        assert runs["undo_bytes"] > 0
        key = first["run_key"]
        assert asked(server, "/api/runs/one", key=key)["run"]["who"].startswith("Ada@")
        stream.set_output(3, stream[3].deep_set("metadata.label", 50))
        assert asked(server, "/api/samples/3")["items"]
        refused = server.ask("/api/runs/undo", {"run_key": key})
        assert (refused.status, refused.json()["kind"]) == (409, "UndoRefusedError")
    undo_run(in_weed, stream.run_key)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_store_that_is_away_is_told_of_and_what_was_done_is_there_when_it_is_back(
    weed_of_its_own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATIENCE, "1")
    root = new_root(weed_of_its_own)
    stream = toy(root, 4)
    with Served(root) as server:
        assert set_label(server, 1, 41).status == 200
        weed_of_its_own.kill()
        away = server.ask("/api/versions?indices=1")
        assert (away.status, away.json()["kind"]) == (502, "StoreError")
        weed_of_its_own.start()
        assert asked(server, "/api/versions", indices=1)["1"] == stream.versions([1])[1]
        assert set_label(server, 1, 42).status == 200
    assert stream[1]["metadata"]()["label"] == 42


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pages_on_a_real_store_show_what_another_process_writes(
    in_weed: Address, chrome: object, tmp_path: Path
) -> None:
    stream = toy(in_weed)
    with Served(in_weed) as served, Screen.of(chrome, served, tmp_path) as screen:
        page = screen.page
        page.get_by_label("Your name").fill("Ada")
        before = page.locator('.cell[data-idx="3"] img').get_attribute("src")
        stream.set_output(3, stream[3].set_value("image", 255 - stream[3]["image"]()))
        picture = page.locator('.cell[data-idx="3"] img')
        screen.wait(lambda: picture.get_attribute("src") != before)

        screen.open("/sample/3")
        page.get_by_label("metadata: label").fill("66")
        page.get_by_label("metadata: label").press("Enter")
        page.locator("#edits li").wait_for()
        stream.set_output(3, stream[3].deep_set("metadata.label", 55))
        page.get_by_role("alert").wait_for()
        page.get_by_text("Look at both").click()
        page.get_by_role("region", name="Theirs, on disk").wait_for()
        screen.button("Take theirs").click()
        page.locator("#edits li").wait_for(state="detached")
        page.get_by_label("metadata: label").fill("66")
        page.get_by_label("metadata: label").press("Enter")
        page.locator("#edits li").wait_for()
        screen.button("Save").click()
        screen.told("Saved: metadata.")
        page.locator("main").focus()
        screen.press("u")
        screen.told("The save was taken back.")
    assert stream[3]["metadata"]()["label"] == 55
