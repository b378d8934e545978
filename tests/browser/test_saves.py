"""A save that is sent once more, as its answer was lost, is made once."""

import base64
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from prefect_pipestream import (
    ConflictError,
    DatasetError,
    DataStream,
    InvalidSampleError,
    check,
    sample_history,
)
from prefect_pipestream.errors import ItemError
from prefect_pipestream.sequences import SamplesSequence
from prefect_pipestream.storage.address import Place, is_address
from tests.browser.served import Answer, Asked, served_at
from tests.dataset_files import KINDS, Files, content_of, temporary_place

TURN = {"do": "stage", "name": "rotate-flip", "arguments": {"rotate": 90, "images": ["image"]}}


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Asked]:
    with temporary_place(request.param) as place:
        SamplesSequence.toy_dataset(12, image_size=16).to_underfolder(place).run()
        with served_at(place) as server:
            yield server


def read(server: Asked, idx: int) -> Any:
    return DataStream.read_write_underfolder(server.dataset)[idx]


def asked(server: Asked, idx: int, *edits: Any) -> dict[str, Any]:
    return {
        "version": read(server, idx).version,
        "edits": list(edits or [TURN]),
        "save_id": secrets.token_hex(16),
    }


def save(server: Asked, idx: int, body: Any, person: str = "Ada") -> Answer:
    return server.ask(f"/api/samples/{idx}/save", body, x_person=person)


def test_a_save_that_is_sent_twice_is_made_once(server: Asked) -> None:
    image = read(server, 3)["image"]()
    body = asked(server, 3)
    first, second = save(server, 3, body), save(server, 3, body, "Eve")
    assert (first.status, second.status) == (200, 200)
    for name in ("commit_id", "run_key", "keys"):
        assert first.json()[name] == second.json()[name]
    assert np.array_equal(read(server, 3)["image"](), np.rot90(image))
    path = f"/api/samples/3/saves/{body['save_id']}"
    assert server.ask(path).json()["commit_id"] == first.json()["commit_id"]

    # Whoever changed it since: it was saved, and what is there now is shown.
    stream = DataStream.read_write_underfolder(server.dataset)
    stream.set_output(3, stream[3].deep_set("metadata.label", 99))
    again = save(server, 3, body).json()
    assert again["commit_id"] == first.json()["commit_id"]
    assert again["sample"]["version"] == read(server, 3).version

    other = save(server, 3, {**body, "save_id": secrets.token_hex(16)})
    assert (other.status, other.json()["kind"]) == (409, "ConflictError")
    assert save(server, 3, {**body, "save_id": None}).status == 409


def test_a_save_that_was_taken_back_is_no_save(server: Asked) -> None:
    body = asked(server, 4)
    done = save(server, 4, body).json()
    undo = {name: done[name] for name in ("run_key", "commit_id")}
    assert server.ask("/api/undo", undo).status == 200
    assert server.ask(f"/api/samples/4/saves/{body['save_id']}").json() is None


def test_a_save_is_known_to_a_server_that_was_started_since(server: Asked) -> None:
    body = asked(server, 5)
    done = save(server, 5, body).json()
    with served_at(server.dataset) as other:
        assert save(other, 5, body).json()["commit_id"] == done["commit_id"]


def test_of_saves_at_the_same_time_with_one_id_one_is_made(server: Asked) -> None:
    image = read(server, 6)["image"]()
    body = asked(server, 6)
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda: answers.append(save(server, 6, body))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer.json()["commit_id"] for answer in answers}) == 1
    assert np.array_equal(read(server, 6)["image"](), np.rot90(image))


@pytest.mark.parametrize("save_id", ["", "short", "../../../../etc/passwd", "a" * 65, "ä" * 20, 1])
def test_what_can_be_no_id_is_refused(server: Asked, save_id: Any) -> None:
    before = read(server, 7).version
    assert save(server, 7, {**asked(server, 7), "save_id": save_id}).status == 422
    assert read(server, 7).version == before


def test_a_write_can_be_found_by_its_id(new_place: Place) -> None:
    folder = new_place
    SamplesSequence.toy_dataset(2, image_size=8).to_underfolder(folder).run()
    stream = DataStream.read_write_underfolder(folder)
    (done,) = stream.set_output(1, stream[1].deep_set("metadata.label", 7), write_id="mine1")
    (found,) = [event for event in sample_history(folder, 1) if event.write_id == "mine1"]
    assert found.commit_id == done.commit_id
    with pytest.raises(DatasetError, match="up to 64 letters and digits"):
        stream.set_output(1, stream[1].deep_set("metadata.label", 8), write_id="../x")
    assert stream[1]["metadata"]()["label"] == 7


# -- items that are removed ----------------------------------------------------------------


def remove(key: str) -> dict[str, str]:
    return {"do": "remove-item", "key": key}


def test_a_save_removes_an_item_and_its_undo_brings_it_back(server: Asked) -> None:
    before = read(server, 8)
    mask = before["mask"]()
    body = asked(server, 8, remove("mask"), TURN)
    shown = server.ask("/api/samples/8/preview", body).json()
    assert (shown["removed"], shown["left"]) == (["mask"], [])
    assert "mask" not in {item["key"] for item in shown["items"]}
    assert "mask" in read(server, 8)

    done = save(server, 8, body).json()
    assert done["keys"] == ["image", "mask"]
    assert "mask" not in read(server, 8)
    assert not [name for name in Files(server.dataset).of_sample(8) if "mask" in name]
    event = server.ask("/api/samples/8/history").json()["events"][0]
    assert {item["key"]: item["kind"] for item in event["items"]} == {
        "image": "changed",
        "mask": "removed",
    }
    undo = {name: done[name] for name in ("run_key", "commit_id")}
    assert server.ask("/api/undo", undo).status == 200
    assert read(server, 8).version == before.version
    assert np.array_equal(read(server, 8)["mask"](), mask)


def test_an_item_that_comes_back_or_that_a_stage_drops_is_not_removed(server: Asked) -> None:
    keep = {"do": "stage", "name": "filter-keys", "arguments": {"key_list": ["image", "metadata"]}}
    content = content_of(read(server, 9)["mask"])
    upload = {"do": "upload", "key": "mask", "file_name": "a.png"}
    upload["content"] = base64.b64encode(content).decode()
    body = asked(server, 9, remove("mask"), upload, keep)
    del body["save_id"]
    shown = server.ask("/api/samples/9/preview", body).json()
    assert (shown["removed"], "mask" in shown["left"]) == ([], True)
    body["edits"] = [remove("mask"), upload]
    shown = server.ask("/api/samples/9/preview", body).json()
    assert (shown["removed"], shown["left"]) == ([], [])
    body["edits"] = [keep]
    shown = server.ask("/api/samples/9/preview", body).json()
    assert (shown["removed"], "mask" in shown["left"]) == ([], True)
    keys = sorted(read(server, 9))
    assert save(server, 9, body).json()["commit_id"] is None
    assert sorted(read(server, 9)) == keys


def test_what_others_share_or_wrote_is_not_removed(server: Asked) -> None:
    shared = [key for key, item in read(server, 10).items() if item.is_shared]
    own = [key for key in read(server, 10) if key not in shared]
    for key in (*shared, "none", "../../image"):
        refused = save(server, 10, asked(server, 10, remove(key)))
        assert refused.status == 400
        assert "cannot be removed" in refused.json()["error"]
    refused = save(server, 10, asked(server, 10, *map(remove, own)))
    assert "the sample has no other" in refused.json()["error"]
    assert sorted(read(server, 10)) == sorted([*own, *shared])

    body = asked(server, 10, remove("mask"))
    stream = DataStream.read_write_underfolder(server.dataset)
    stream.set_output(10, stream[10].set_value("mask", stream[10]["mask"]() * 0))
    assert save(server, 10, body).status == 409
    assert "mask" in read(server, 10)


def test_a_write_that_removes_is_a_conflict_where_others_changed_the_item(new_place: Place) -> None:
    folder = new_place
    SamplesSequence.toy_dataset(3, image_size=8).to_underfolder(folder).run()
    stream, other = (DataStream.read_write_underfolder(folder) for _ in range(2))
    old = stream[1]
    other.set_output(1, other[1].set_value("mask", other[1]["mask"]() * 0))
    with pytest.raises(ConflictError):
        stream.set_output(1, old, removes=["mask"])
    (done,) = stream.set_output(1, stream[1], removes=["mask", "none"])
    assert (done.record.outcome, dict(done.record.writes or {})) == ("written", {})
    assert "mask" not in other[1]
    assert stream.set_output(1, stream[1], removes=["mask"]) == []
    stream.undo(done.commit_id)
    assert not other[1]["mask"]().any()
    with pytest.raises(TypeError, match="expected a collection"):
        stream.set_output(1, stream[1], removes="mask")
    with pytest.raises(DatasetError, match="letters and digits"):  # always
        stream.set_output(1, stream[1], write_id="a/b")

    # What its holder removed is not taken for there when the same sample is set again.
    again = stream[1]
    stream.set_output(1, again, removes=["mask"])
    if is_address(folder):  # there a sample stays as it was taken
        stream.set_output(1, again)
        assert "mask" in other[1]
    else:
        with pytest.raises(ItemError, match="no such file"):
            stream.set_output(1, again)

    # The sample that was written knows that it has the item no more.
    sample = stream[2].set_value("image", stream[2]["image"]() // 2)
    stream.set_output(2, sample, removes=["mask"])
    assert sample.version == stream[2].version
    assert check(folder).ok


def test_a_sample_is_judged_as_it_is_without_what_is_removed(new_place: Place) -> None:
    folder = new_place
    SamplesSequence.toy_dataset(2, image_size=8).to_underfolder(folder).run()
    stream = DataStream.read_write_underfolder(folder)
    strict = stream.checking(lambda items: [] if "mask" in items else ["there is no mask"])
    with pytest.raises(InvalidSampleError, match="there is no mask"):
        strict.set_output(1, strict[1], removes=["mask"])
    assert "mask" in stream[1]


def test_what_samples_share_is_not_edited_by_one_of_them(new_place: Place) -> None:
    folder = new_place
    SamplesSequence.toy_dataset(3, image_size=8).to_underfolder(folder).run()
    Files(folder)["camera.yaml"] = b"f: 50\n"
    content = base64.b64encode(b"f: 60").decode()
    with served_at(folder) as server:
        for edit in (
            {"do": "set-value", "path": "camera.f", "value": 60},
            {"do": "set-text", "key": "camera", "text": "f: 60"},
            {"do": "upload", "key": "camera", "file_name": "c.yaml", "content": content},
        ):
            answer = save(server, 1, asked(server, 1, edit))
            assert answer.status == 400
            assert "shared by all samples" in answer.json()["error"]
        edits = [{"do": "set-value", "path": "camera.f", "value": 60}]
        many = {"ranges": [[0, 3]], "edits": edits}
        for path in ("/api/many", "/api/many/preview"):
            assert "shared by all samples" in server.ask(path, many).json()["error"]
    assert Files(folder)["camera.yaml"] == b"f: 50\n"
    assert read(server, 1)["camera"]() == {"f": 50}


def test_a_sample_that_was_removed_is_not_made_anew_of_an_edit(server: Asked) -> None:
    stream = DataStream.read_write_underfolder(server.dataset)
    body = asked(server, 8)
    stream.remove(8)
    assert save(server, 8, body).status == 409
    assert save(server, 8, {**body, "version": "absent"}).status == 404
    assert 8 not in stream.indices()


@pytest.mark.parametrize("content", [b"{", b"[" * 5_000, b'{"version": ' + b"1" * 5_000 + b"}"])
def test_what_is_no_json_is_refused_in_words(server: Asked, content: bytes) -> None:
    answer = server.ask("/api/samples/1/save", content)
    assert answer.status in (400, 422)
    assert answer.json()["error"]
