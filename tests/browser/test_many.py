"""One change to many samples is one run, which is undone as a whole."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from prefect_pipestream import DataStream, list_runs, undo_run
from prefect_pipestream.sequences import SamplesSequence
from tests.browser.served import Asked, served_at
from tests.dataset_files import KINDS, Files, temporary_place


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Asked]:
    with temporary_place(request.param) as place:
        SamplesSequence.toy_dataset(300, image_size=16).to_underfolder(place).run()
        with served_at(place) as server:
            yield server


def ended(server: Asked, job: dict[str, Any]) -> dict[str, Any]:
    while job["state"] == "running":
        time.sleep(0.05)
        job = server.ask(f"/api/jobs/{job['job']}").json()
    return job


def labels(server: Asked) -> list[int]:
    stream = DataStream.read_write_underfolder(server.dataset)
    return [stream[idx]["metadata"]()["label"] for idx in stream.indices().tolist()]


SET = {"do": "set-value", "path": "metadata.label", "value": 42}


def test_a_change_is_one_run_and_its_undo_takes_all_of_it_back(server: Asked) -> None:
    before = labels(server)
    asked = {"ranges": [[0, 200], [250, 1000]], "edits": [SET]}
    shown = server.ask("/api/many/preview", asked).json()
    assert len(shown) == 6
    assert '"label": 42' not in str(shown[0]["before"])
    assert "label: 42" in str(shown[0]["after"])
    assert labels(server) == before

    job = ended(server, server.ask("/api/many", asked, x_person="Ada").json())
    assert job["state"] == "finished"
    assert (job["done"], job["of"]) == (250, 250)
    assert sum(job["counts"].values()) == 250
    assert [label == 42 for label in labels(server)][:200] == [True] * 200
    assert labels(server)[200:250] == before[200:250]
    (run,) = [run for run in list_runs(server.dataset) if run.run_key == job["run_key"]]
    assert (run.state, run.user) == ("finished", "Ada")
    assert run.provenance is not None
    assert "set-meta" in str(run.provenance.transform)
    undo_run(server.dataset, [job["run_key"]])
    assert labels(server) == before


def test_samples_are_removed_and_come_back(server: Asked) -> None:
    asked = {"ranges": [[10, 5]], "removes": True}
    assert [one["after"] for one in server.ask("/api/many/preview", asked).json()] == [None] * 5
    job = ended(server, server.ask("/api/many", asked).json())
    assert job["counts"]["removed"] == 5
    assert server.ask("/api/found").json()["ranges"] == [[0, 10], [15, 285]]
    undo_run(server.dataset, [job["run_key"]])
    assert server.ask("/api/found").json()["ranges"] == [[0, 300]]


def test_a_sample_that_fails_is_told_and_the_others_are_changed(server: Asked) -> None:
    files = Files(server.dataset)
    (name,) = (name for name in files.of_sample(7) if name.endswith("_image.png"))
    content = files[f"data/{name}"]
    files[f"data/{name}"] = b"broken"
    try:
        invert = {"do": "stage", "name": "invert", "arguments": {"images": ["image"]}}
        asked = {"ranges": [[0, 20]], "edits": [invert]}
        job = ended(server, server.ask("/api/many", asked).json())
        assert (job["counts"]["written"], job["counts"]["failed"]) == (19, 1)
        (failed,) = job["failed"]
        assert name in failed["reason"]
        undo_run(server.dataset, [job["run_key"]])
    finally:
        files[f"data/{name}"] = content


def test_who_did_not_ask_for_a_change_sees_how_far_it_is_and_stops_it(server: Asked) -> None:
    large = {"size": [1500, 1500], "images": ["image"]}
    slow = {"do": "stage", "name": "resize-images", "arguments": large}
    job = server.ask("/api/many", {"ranges": [[0, 300]], "edits": [slow]}, x_person="Ada").json()
    (seen,) = server.ask("/api/jobs").json()
    assert (seen["job"], seen["run_key"], seen["of"]) == (job["job"], job["run_key"], 300)
    assert "Ada in the browser" in seen["run_key"]
    stopped = server.ask(f"/api/jobs/{seen['job']}/stop", {}, x_person="Bob").json()
    assert stopped["state"] == "stopped"
    assert stopped["done"] < 300
    assert server.ask("/api/jobs").json() == []
    if stopped["done"]:
        undo_run(server.dataset, [job["run_key"]])


def test_a_change_that_is_stopped_keeps_what_was_done(server: Asked) -> None:
    before = labels(server)
    job = server.ask("/api/many", {"ranges": [[0, 300]], "edits": [SET]}).json()
    stopped = server.ask(f"/api/jobs/{job['job']}/stop", {}).json()
    assert stopped["state"] in ("stopped", "finished")
    assert labels(server).count(42) >= stopped["done"] - before.count(42)
    runs = server.ask("/api/runs").json()["runs"]
    assert {one["run_key"]: one["state"] for one in runs}[job["run_key"]] == stopped["state"]
    undo_run(server.dataset, [job["run_key"]])
    assert labels(server) == before


@pytest.mark.parametrize(
    "asked",
    [
        {"ranges": [[0, 3]]},
        {"ranges": [[0, 3]], "edits": [SET], "removes": True},
        {"ranges": [[-1, 3]], "removes": True},
        {"ranges": [[0, 0]], "removes": True},
        {"ranges": [[0, 3]], "edits": [{"do": "stage", "name": "os:system", "arguments": {}}]},
        {"ranges": [[0, 3]], "edits": [{"do": "stage", "name": "compose", "arguments": {}}]},
        {"ranges": [[0, 3]], "edits": [{"do": "stage", "name": "invert", "arguments": {"no": 1}}]},
        {
            "ranges": [[0, 3]],
            "edits": [{"do": "upload", "key": "a", "file_name": "a", "content": ""}],
        },
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is(server: Asked, asked: Any) -> None:
    before = len(list_runs(server.dataset))
    for path in ("/api/many", "/api/many/preview"):
        answer = server.ask(path, asked)
        assert answer.status in (400, 422), answer
        assert answer.json()["error"]
    assert len(list_runs(server.dataset)) == before
    assert server.ask("/api/jobs/none").status == 404


def test_a_stage_that_removes_or_leaves_samples_says_so(server: Asked) -> None:
    stream = DataStream.read_write_underfolder(server.dataset)
    stream.set_output(3, stream[3].set_value("image", stream[3]["image"]() * 0))
    version = server.ask("/api/versions?indices=3").json()["3"]
    drop = {"do": "stage", "name": "drop-blank-images", "arguments": {"images": ["image"]}}
    one = server.ask("/api/samples/3/preview", {"version": version, "edits": [drop]})
    assert one.status == 400
    assert "Change many" in one.json()["error"]
    (shown,) = server.ask("/api/many/preview", {"ranges": [[3, 1]], "edits": [drop]}).json()
    assert (shown["after"], shown["failure"]) == (None, None)
    verify = {"do": "stage", "name": "verify-items"}
    (shown,) = server.ask("/api/many/preview", {"ranges": [[3, 1]], "edits": [verify]}).json()
    assert shown["differences"] == {}


def test_no_code_is_imported_by_a_name(server: Asked) -> None:
    version = server.ask("/api/versions?indices=1").json()["1"]
    for name, arguments in (
        ("reencode", {"item_class": "antigravity:X"}),
        ("albumentations", {"transform": {"__class_fullname__": "os.system"}}),
        ("timer", {"stage": "antigravity:X"}),
        ("antigravity:X", {}),
        ("entity", {"entity_action": "antigravity:X"}),
    ):
        edit = {"do": "stage", "name": name, "arguments": arguments}
        for path, asked in (
            ("/api/samples/1/preview", {"version": version, "edits": [edit]}),
            ("/api/many/preview", {"ranges": [[1, 1]], "edits": [edit]}),
        ):
            answer = server.ask(path, asked)
            assert answer.status == 400, answer
            assert "here" in answer.json()["error"]
    kept = {"do": "stage", "name": "reencode", "arguments": {"item_class": "JpegImageItem"}}
    asked = {"version": version, "edits": [kept]}
    assert server.ask("/api/samples/1/preview", asked).status == 200


def test_one_request_does_not_take_all_memory(server: Asked) -> None:
    version = server.ask("/api/versions?indices=1").json()["1"]
    for name, arguments in (
        ("resize-images", {"size": [200_000, 200_000]}),
        ("crop-and-pad-images", {"width": 200_000, "height": 200_000}),
    ):
        edit = {"do": "stage", "name": name, "arguments": {**arguments, "images": ["image"]}}
        answer = server.ask("/api/samples/1/preview", {"version": version, "edits": [edit]})
        assert answer.status == 400
        assert "over the limit" in answer.json()["error"]
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n"
        for old, new in zip("abcdef", "bcdefg", strict=True)
    )
    edit = {"do": "set-text", "key": "metadata", "text": bomb}
    answer = server.ask("/api/samples/1/preview", {"version": version, "edits": [edit]})
    assert len(answer.content) < 1_000_000
    itself = {"do": "set-text", "key": "metadata", "text": "a: &a [*a, !!binary /w==, .nan]"}
    shown = server.ask("/api/samples/1/preview", {"version": version, "edits": [itself]}).json()
    (found,) = (item for item in shown["items"] if item["key"] == "metadata")
    assert found["value"] is None
    assert found["text"] or found["problem"]


def test_a_change_that_runs_is_stopped_by_its_undo(server: Asked) -> None:
    before = labels(server)
    job = server.ask("/api/many", {"ranges": [[0, 10**400]], "edits": [SET]}).json()
    undone = server.ask("/api/runs/undo", {"run_key": job["run_key"]})
    assert undone.status in (200, 404), undone  # or nothing was written yet
    assert ended(server, job)["state"] in ("stopped", "finished")
    assert labels(server) == before
