"""What the server answers of the past of samples, of runs, and of their undo."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import numpy as np
import pytest

from prefect_pipestream import DataStream, list_runs, undo_run
from prefect_pipestream.sequences import SamplesSequence
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.underfolder import Run, SampleFailure, compact
from tests.browser.served import Asked, Served, served_at
from tests.dataset_files import KINDS, Files, made_at, temporary_place

HOSTILE = "<script>alert(1)</script>/../../etc & 'a' \"b\"?#%2e%2e\\"
SECRET = "not to be seen"


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Asked]:
    """A dataset with a run of a hostile key: sample 1 written, 2 failed, 3 removed."""
    with temporary_place(request.param) as place:
        made_at(place, made, 12)
        if not is_address(place):
            (Path(place).parent / "secret.txt").write_text(SECRET)
        write_hostile_run(place)
        with served_at(place) as server:
            yield server


def write_hostile_run(place: Place) -> None:
    stream = DataStream.read_write_underfolder(place, run_key=HOSTILE)
    stream.set_output(1, flipped(stream, 1))
    with stream.commit_group() as group:
        group.record(2, "failed", failure=SampleFailure("ValueError", "<b>bad</b>", "at line 1"))
        group.remove(3)


def made(folder: Path, samples: int) -> None:
    """A dataset without a past."""
    SamplesSequence.toy_dataset(samples, image_size=16).to_underfolder(folder).run()
    shutil.rmtree(folder / ".pipestream")


def flipped(stream: DataStream, idx: int) -> Any:
    sample = stream[idx].deep_set("metadata.label", 70 + idx)
    return sample.set_value("image", sample["image"]()[:, ::-1])


def stream_of(server: Asked, run_key: str | None = None) -> DataStream:
    return DataStream.read_write_underfolder(server.dataset, run_key=run_key)


def relabelled(server: Asked, run_key: str, idx: int, label: int) -> None:
    """Saves a label, by a stream that is not there any more afterwards."""
    stream = stream_of(server, run_key)
    stream.set_output(idx, stream[idx].deep_set("metadata.label", label))


def asked(server: Asked, path: str, **query: Any) -> Any:
    answer = server.ask(f"{path}?{urlencode(query)}" if query else path)
    assert answer.status == 200, answer
    return answer.json()


def version(server: Asked, idx: int) -> str:
    return str(asked(server, "/api/versions", indices=idx)[str(idx)])


def restore(server: Asked, idx: int, event: Any, **more: Any) -> Any:
    body = {name: event[name] for name in ("run_key", "commit_id")}
    body |= {"version": version(server, idx), **more}
    return server.ask(f"/api/samples/{idx}/restore", body, x_person=quote("Ada Löv"))


def events_of(server: Asked, idx: int) -> list[Any]:
    return list(asked(server, f"/api/samples/{idx}/history")["events"])


# -- history -------------------------------------------------------------------------------


def test_history_tells_what_was_done_with_pictures_of_before_and_after(server: Asked) -> None:
    (event,) = events_of(server, 1)
    assert (event["run_key"], event["told"], event["counts"]) == (HOSTILE, "written", True)
    assert (event["undo"], event["samples"]) == ("commit", 1)
    changes = {change["key"]: change for change in event["items"]}
    assert set(changes) == {"image", "metadata"}
    (difference,) = changes["metadata"]["differences"]
    assert re.fullmatch(r"metadata\.label: \d → 71", difference)
    assert changes["metadata"]["before"]["picture"] is None
    first = stream_of(server)  # a single number has no picture
    first.set_output(0, first[0].set_value("label", first[0]["label"]() + 1))
    (label,) = events_of(server, 0)[0]["items"]
    assert label["before"]["picture"] is None
    assert re.fullmatch(r"label: \d → \d+", label["differences"][0])
    pictures = {}
    for state in ("before", "after"):
        address = changes["image"][state]["picture"]
        assert str(server.dataset) not in address
        answer = server.ask(address)
        assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
        assert server.ask(f"{address}&whole=true").status == 200
        pictures[state] = answer.content
    assert pictures["before"] != pictures["after"]
    (removed,) = events_of(server, 3)
    assert {change["kind"] for change in removed["items"]} == {"removed"}
    assert removed["samples"] == 2
    (failed,) = events_of(server, 2)
    assert (failed["failure"], failed["undo"]) == ("ValueError: <b>bad</b>", None)
    assert events_of(server, 5) == []


def test_pictures_of_then_are_found_after_a_restart_and_after_later_saves(server: Asked) -> None:
    stream = stream_of(server, "later")
    stream.set_output(4, flipped(stream, 4))
    (event,) = events_of(server, 4)
    image = next(change for change in event["items"] if change["key"] == "image")
    before, after = (server.ask(image[state]["picture"]).content for state in ("before", "after"))
    stream_of(server, "last").set_output(4, flipped(stream, 4))  # what was after is moved
    assert server.ask(image["after"]["picture"]).content == after
    with served_at(server.dataset) as other:
        assert other.ask(image["before"]["picture"]).content == before
        assert other.ask(image["after"]["picture"]).content == after


def test_a_save_is_undone_and_a_sample_restored_from_its_history(server: Asked) -> None:
    stream = stream_of(server, "anna")
    before = stream[6]["metadata"]()["label"]
    for label in (10, 20, 30):
        stream.set_output(6, stream[6].deep_set("metadata.label", label))
    third, second, _ = events_of(server, 6)
    what = {name: third[name] for name in ("run_key", "commit_id")}
    earlier = {name: second[name] for name in ("run_key", "commit_id")}
    refused = server.ask("/api/undo", earlier)
    assert (refused.status, refused.json()["kind"]) == (409, "UndoRefusedError")
    assert server.ask("/api/undo", what).status == 200
    assert stream[6]["metadata"]()["label"] == 20
    assert server.ask("/api/undo", what).status == 409

    done = restore(server, 6, second)
    assert done.status == 200, done
    assert stream[6]["metadata"]()["label"] == 10
    event = events_of(server, 6)[0]
    assert (event["undo"], event["told"]) == ("run", "put back to what run 'anna' found or left")
    assert event["who"].startswith("Ada Löv@")
    undone = server.ask("/api/runs/undo", {"run_key": event["run_key"]})
    assert undone.status == 200
    assert stream[6]["metadata"]()["label"] == 20
    assert restore(server, 6, second, version="old").status == 409
    files = Files(server.dataset)
    (name,) = (f"data/{one}" for one in files.of_sample(6) if "metadata" in one)
    files[name] += b"\n"
    by_hand = restore(server, 6, second)
    assert (by_hand.status, by_hand.json()["kind"]) == (409, "UndoRefusedError")
    assert restore(server, 6, second, force=True).status == 200
    assert stream[6]["metadata"]()["label"] == 10 != before


def test_a_removed_sample_is_restored_and_taken_away_again(server: Asked) -> None:
    stream = stream_of(server, "removal")
    stream.remove(7)
    (event,) = events_of(server, 7)
    assert asked(server, "/api/samples/7")["items"] == []
    assert restore(server, 7, event, version="absent").json()["sample"]["idx"] == 7
    again = restore(server, 7, event, state="after").json()
    assert (again["sample"], again["files"] > 0) == (None, True)
    assert restore(server, 7, event, version="absent").status == 200


# -- runs ----------------------------------------------------------------------------------


def test_runs_are_listed_and_one_is_told_of(server: Asked) -> None:
    found = asked(server, "/api/runs")
    assert found["runs"][-1]["run_key"] == HOSTILE
    assert found["undo_bytes"] is None
    sized = asked(server, "/api/runs", sizes=True)
    assert sized["undo_bytes"] >= sized["runs"][-1]["undo_bytes"] > 0
    page = asked(server, "/api/runs/one", key=HOSTILE)
    assert page["run"]["counts"] == {
        "written": 1, "unchanged": 0, "skipped": 0, "failed": 1, "removed": 1,
    }  # fmt: skip
    assert page["changed"] == 2
    assert dict(page["facts"])["version"].startswith("prefect-pipestream")
    for outcome, indices in (("written", [[1, 1]]), ("failed", [[2, 1]])):
        where = f"{page['where']} == '{outcome}'"
        assert asked(server, "/api/found", where=where)["ranges"] == indices


def test_what_a_run_changed_is_shown_page_by_page(server: Asked) -> None:
    found = asked(server, "/api/runs/changes", key=HOSTILE, most=1)
    assert (found["count"], [one["idx"] for one in found["samples"]]) == (2, [1])
    image = next(one for one in found["samples"][0]["items"] if one["key"] == "image")
    before = server.ask(image["before"]["picture"])
    assert before.status == 200
    assert before.headers["cache-control"] == "no-store"
    with served_at(server.dataset) as other:
        assert other.ask(image["before"]["picture"]).content == before.content
    second = asked(server, "/api/runs/changes", key=HOSTILE, first=1, most=1)
    assert [(one["idx"], one["outcome"]) for one in second["samples"]] == [(3, "removed")]
    assert asked(server, "/api/runs/changes", key=HOSTILE, first=10)["samples"] == []


def test_failed_samples_have_their_reasons(server: Asked) -> None:
    (failed,) = asked(server, "/api/runs/failures", key=HOSTILE)["samples"]
    assert failed["idx"] == 2
    assert failed["error"] == "ValueError: <b>bad</b>"
    assert failed["traceback"] == "at line 1"


def test_an_undo_is_planned_refused_forced_and_undone(server: Asked) -> None:
    key = "night <b>run</b>/.."
    stream = stream_of(server)
    label = stream[9]["metadata"]()["label"]
    for idx in (8, 9):
        relabelled(server, key, idx, 50)
    relabelled(server, "other", 9, 60)
    for _ in range(2):  # a plan does nothing
        plan = server.ask("/api/runs/plan-undo", {"run_key": key}).json()
        assert (plan["samples"], plan["files"], plan["changed_count"]) == (2, 2, 1)
        assert list(plan["changed"]) == ["9"]
        assert "changed since" in plan["refusal"]
    refused = server.ask("/api/runs/undo", {"run_key": key})
    assert (refused.status, refused.json()["kind"]) == (409, "UndoRefusedError")
    assert stream[8]["metadata"]()["label"] == 50
    forced = {"run_key": key, "force": True}
    assert server.ask("/api/runs/plan-undo", forced).json()["refusal"] is None
    done = server.ask("/api/runs/undo", forced, x_person="Ada").json()
    assert (done["samples"], done["overwritten"]) == (2, 1)
    assert stream[9]["metadata"]()["label"] == label

    page = asked(server, "/api/runs/one", key=key)
    assert (page["run"]["state"], page["where"]) == ("undone", None)
    assert [one["run_key"] for one in page["taken_back_by"]] == [done["undo_run_key"]]
    undo = asked(server, "/api/runs/one", key=done["undo_run_key"])
    assert [one["folder"] for one in undo["took_back"]] == [done["folder"]]
    assert undo["run"]["who"].startswith("Ada@")
    assert server.ask("/api/runs/undo", {"run_key": key}).status == 404
    assert server.ask("/api/runs/undo", {"run_key": done["undo_run_key"]}).status == 200
    assert stream[9]["metadata"]()["label"] == 60
    assert asked(server, "/api/runs/one", key=key)["run"]["state"] == "edited"


def test_what_an_undone_run_did_leads_to_it_and_not_to_a_later_one_of_its_key(
    server: Asked,
) -> None:
    relabelled(server, "twice", 9, 61)
    undo_run(server.dataset, ["twice"])
    relabelled(server, "twice", 9, 62)
    events = [one for one in events_of(server, 9) if one["run_key"] == "twice"]
    assert [one["counts"] for one in events] == [True, False]
    states = [
        asked(server, "/api/runs/one", key="twice", folder=one["folder"])["run"]["state"]
        for one in events
    ]
    assert states == ["edited", "undone"]


def test_who_had_her_session_undone_saves_on(server: Asked) -> None:
    def save(label: int) -> Any:
        edit = {"do": "set-value", "path": "metadata.label", "value": label}
        body = {"version": version(server, 10), "edits": [edit]}
        answer = server.ask("/api/samples/10/save", body, x_person="Eve")
        assert answer.status == 200, answer
        return answer.json()

    stream = stream_of(server)
    label = stream[10]["metadata"]()["label"]
    key = save(41)["run_key"]
    assert server.ask("/api/runs/undo", {"run_key": key}).status == 200
    assert stream[10]["metadata"]()["label"] == label
    again = save(42)
    assert (again["run_key"], stream[10]["metadata"]()["label"]) == (key, 42)
    states = [run.state for run in list_runs(server.dataset) if run.run_key == key]
    # In a bucket it is not known who is alive.
    assert states == ["undone", "edited" if is_address(server.dataset) else "running"]
    assert asked(server, "/api/runs/one", key=key)["run"]["who"].startswith("Eve@")
    newest, *_ = events_of(server, 10)
    assert (newest["run_key"], newest["counts"], newest["undo"]) == (key, True, "commit")
    assert server.ask("/api/undo", {n: again[n] for n in ("run_key", "commit_id")}).status == 200
    assert stream[10]["metadata"]()["label"] == label


def test_a_run_that_moved_samples_says_so(new_place: Place) -> None:
    folder = made_at(new_place, made, 4)
    stream = DataStream.read_write_underfolder(folder, run_key="a`b")
    stream.set_output(3, flipped(stream, 3))
    stream.remove(0)
    key = str(compact(folder).run_key)
    with served_at(folder, is_read_only=True) as server:
        page = asked(server, "/api/runs/one", key=key)
        assert page["moved"]
        assert asked(server, "/api/runs/changes", key=key) == {"samples": [], "count": 0}
        early = asked(server, "/api/runs/one", key="a`b")
        assert "moved samples" in early["note"]
        assert early["where"] is None  # no query can name it
        moved, written = events_of(server, 2)
        assert (moved["told"], moved["undo"]) == ("moved from 3 to 2", None)
        image = next(one for one in written["items"] if one["key"] == "image")
        assert server.ask(image["after"]["picture"]).status == 200
        for path in ("/api/runs/undo", "/api/runs/plan-undo"):
            assert server.ask(path, {"run_key": key}).status == 403
        assert restore(server, 2, written).status == 403
    assert [run.undone for run in list_runs(folder)] == [None, None]


# -- who asks for what there is not, or is not theirs --------------------------------------

KEYS = (
    "none", "..", "../..", "../../secret.txt", "/etc/passwd", ".", "%2e%2e%2f", "<img src=x>",
    "a" * 5_000, "\x00", "undo:none", "~undone", "C:\\", "ключ",
)  # fmt: skip


@pytest.mark.parametrize("path", ["/api/runs/one", "/api/runs/changes", "/api/runs/failures"])
def test_a_run_that_there_is_not_is_not_found(server: Asked, path: str) -> None:
    for key in KEYS:
        for more in ({}, {"folder": "../../.."}):
            answer = server.ask(f"{path}?{urlencode({'key': key, **more})}")
            assert answer.status == 404, (key, answer)
            assert answer.json()["error"]
    assert server.ask(f"{path}?key=").status == 400
    assert server.ask(path).status == 422


def test_an_undo_or_restore_of_what_there_is_not_changes_nothing(server: Asked) -> None:
    before = dict(Files(server.dataset))
    for key in KEYS:
        for path in ("/api/runs/plan-undo", "/api/runs/undo"):
            answer = server.ask(path, {"run_key": key, "force": True})
            assert answer.status == 404, (path, key, answer)
        for commit in KEYS:
            answer = restore(server, 1, {"run_key": key, "commit_id": commit})
            assert answer.status == 404, (key, commit, answer)
    answer = restore(server, 1, {"run_key": HOSTILE, "commit_id": "../../claim"})
    assert answer.status == 404
    for body in (b'{"run_key": "\\ud800"}', b'{"run_key": 3}', b"[]", b"{}", b"nonsense"):
        for path in ("/api/runs/undo", "/api/runs/plan-undo", "/api/samples/1/restore"):
            assert server.ask(path, body).status in (400, 422), body
    assert server.ask("/api/runs/undo", {"run_key": HOSTILE}, origin="http://evil").status == 403
    person = server.ask("/api/runs/undo", {"run_key": HOSTILE}, x_person="%0A" * 9 + "a%00")
    assert person.status == 400
    assert dict(Files(server.dataset)) == before


def test_a_picture_is_had_by_run_commit_and_item_alone(server: Asked) -> None:
    (event,) = events_of(server, 1)
    image = next(change for change in event["items"] if change["key"] == "image")
    right = dict(parse_qsl(urlsplit(image["before"]["picture"]).query))
    assert server.ask(f"/kept?{urlencode(right)}").status == 200
    for name in ("run", "commit", "item"):
        for value in (*KEYS, f"../../data/{image['before']['file']}", "000001_image.png"):
            answer = server.ask(f"/kept?{urlencode({**right, name: value})}")
            assert answer.status == 404, (name, value, answer)
            assert SECRET.encode() not in answer.content
    for wrong in ({"idx": "2"}, {"item": "metadata"}, {"item": "instances"}):
        assert server.ask(f"/kept?{urlencode({**right, **wrong})}").status == 404
    for wrong in ({"idx": "-1"}, {"idx": "9" * 30}, {"idx": "../1"}, {"state": "x"}, {"side": "0"}):
        assert server.ask(f"/kept?{urlencode({**right, **wrong})}").status == 422
    for path in ("/api/samples/-1/history", f"/api/samples/{'9' * 30}/history"):
        assert server.ask(path).status == 400
    for path in ("/api/samples/x/history", "/api/samples/1/history?most=0", "/kept"):
        assert server.ask(path).status == 422


def test_forged_ledgers_and_broken_files_are_told_of(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    made(folder, 3)
    stream = DataStream.read_write_underfolder(folder, run_key="a")
    stream.set_output(1, flipped(stream, 1))
    stream.set_output(2, flipped(stream, 2))
    run = Run.of(folder, "a")
    noted = Path(run.at("run.json"))
    noted.write_text(json.dumps({
        **json.loads(noted.read_text()), "undoes_folders": ["../..", "/etc"], "user": "<i>x</i>",
    }))  # fmt: skip
    commit = next(one for one in run.commits() if one.samples[0].idx == 1)
    image = next(Path(run.undo_of(commit.id)).glob("*image*"))
    image.unlink()
    image.symlink_to(tmp_path / "secret.png")
    (tmp_path / "secret.png").write_text("no image")
    broken = next((folder / "data").glob("2_image.*"))
    content = broken.read_bytes()
    with Served(folder) as server:
        page = asked(server, "/api/runs/one", key="a")
        assert page["took_back"] == []
        assert page["run"]["who"].startswith("<i>x</i>@")
        (event,) = events_of(server, 1)
        change = next(one for one in event["items"] if one["key"] == "image")
        assert change["before"]["problem"] or not change["before"]["is_kept"]
        assert change["before"]["picture"] is None
        (event,) = events_of(server, 2)
        address = next(c for c in event["items"] if c["key"] == "image")["after"]["picture"]
        broken.write_bytes(content[: len(content) // 2])
        assert server.ask(address).status == 404  # it is another file by now
        record = next(Path(run.done).rglob("*.json"))
        record.write_text("{}")
        for path in ("/api/runs", "/api/runs/one?key=a", "/api/samples/1/history"):
            answer = server.ask(path)
            assert answer.status == 400, answer
            assert "pipestream check" in answer.json()["error"]


def test_a_run_that_was_undone_elsewhere_is_told_of(server: Asked) -> None:
    stream = stream_of(server, "elsewhere")
    stream.set_output(11, stream[11].set_value("image", np.zeros((16, 16, 3), np.uint8)))
    undo_run(server.dataset, "elsewhere")
    assert asked(server, "/api/runs/one", key="elsewhere")["run"]["state"] == "undone"
    answer = server.ask("/api/runs/changes?key=elsewhere")
    assert answer.status == 404
    assert "undone already" in answer.json()["error"]
    undo, run = events_of(server, 11)
    assert (run["counts"], run["undo"]) == (False, None)
    assert (undo["told"], undo["undo"]) == ("run 'elsewhere' taken back", None)
