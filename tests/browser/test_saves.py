"""A save that is sent once more, as its answer was lost, is made once."""

import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefect_pipestream import DatasetError, DataStream, sample_history
from prefect_pipestream.sequences import SamplesSequence
from tests.browser.served import Answer, Served

TURN = {"do": "stage", "name": "rotate-flip", "arguments": {"rotate": 90, "images": ["image"]}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("saves") / "toy"
    SamplesSequence.toy_dataset(12, image_size=16).to_underfolder(folder).run()
    with Served(folder) as server:
        yield server


def read(server: Served, idx: int) -> Any:
    return DataStream.read_write_underfolder(server.dataset)[idx]


def asked(server: Served, idx: int, *edits: Any) -> dict[str, Any]:
    return {
        "version": read(server, idx).version,
        "edits": list(edits or [TURN]),
        "save_id": secrets.token_hex(16),
    }


def save(server: Served, idx: int, body: Any, person: str = "Ada") -> Answer:
    return server.ask(f"/api/samples/{idx}/save", body, x_person=person)


def test_a_save_that_is_sent_twice_is_made_once(server: Served) -> None:
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


def test_a_save_that_was_taken_back_is_no_save(server: Served) -> None:
    body = asked(server, 4)
    done = save(server, 4, body).json()
    undo = {name: done[name] for name in ("run_key", "commit_id")}
    assert server.ask("/api/undo", undo).status == 200
    assert server.ask(f"/api/samples/4/saves/{body['save_id']}").json() is None


def test_a_save_is_known_to_a_server_that_was_started_since(server: Served) -> None:
    body = asked(server, 5)
    done = save(server, 5, body).json()
    with Served(server.dataset) as other:
        assert save(other, 5, body).json()["commit_id"] == done["commit_id"]


def test_of_saves_at_the_same_time_with_one_id_one_is_made(server: Served) -> None:
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
def test_what_can_be_no_id_is_refused(server: Served, save_id: Any) -> None:
    before = read(server, 7).version
    assert save(server, 7, {**asked(server, 7), "save_id": save_id}).status == 422
    assert read(server, 7).version == before


def test_a_write_can_be_found_by_its_id(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    SamplesSequence.toy_dataset(2, image_size=8).to_underfolder(folder).run()
    stream = DataStream.read_write_underfolder(folder)
    (done,) = stream.set_output(1, stream[1].deep_set("metadata.label", 7), write_id="mine1")
    (found,) = [event for event in sample_history(folder, 1) if event.write_id == "mine1"]
    assert found.commit_id == done.commit_id
    with pytest.raises(DatasetError, match="up to 64 letters and digits"):
        stream.set_output(1, stream[1].deep_set("metadata.label", 8), write_id="../x")
    assert stream[1]["metadata"]()["label"] == 7
