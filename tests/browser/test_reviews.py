"""Reviews as the browser's server answers for them: decided one by one, applied at once."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlencode
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image

from prefect_pipestream import DataStream, undo_run
from prefect_pipestream.browser.flow_runs import ANSWER
from prefect_pipestream.flows.review_question import Decision
from prefect_pipestream.review import compute_review, decide_rest, decisions_of
from prefect_pipestream.sequences import REMOVE, Sample, SamplesSequence
from prefect_pipestream.storage.address import Place
from tests.browser.served import Answer, Asked, Served, ServedHere, served_at
from tests.dataset_files import KINDS, temporary_place

ID = "dim & <b>label</b>/9"


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Served | ServedHere]:
    with temporary_place(request.param) as place:
        SamplesSequence.toy_dataset(12, image_size=16).to_underfolder(place).run()
        labelled(place)
        with served_at(place, PREFECT_API_URL="http://127.0.0.1:9/api") as server:
            yield server


def dimmed(sample: Sample) -> Any:
    """Half as bright, with another label; the fourth is removed, the sixth fails."""
    label = sample["metadata"]()["label"]
    if label == 4:
        return REMOVE
    if label == 6:
        raise ValueError("<script>no</script>")
    return sample.set_value("image", sample["image"]() // 2).deep_set("metadata.label", label + 100)


def labelled(folder: Place) -> None:
    stream = DataStream.read_write_underfolder(folder)
    for idx in stream.indices().tolist():
        stream.set_output(idx, stream[idx].deep_set("metadata.label", idx))


def get(server: Asked, path: str, **query: Any) -> Answer:
    return server.ask(f"{path}?{urlencode(query)}")


def post(server: Asked, what: str, by: str = "Ada", **body: Any) -> Answer:
    return server.ask(f"/api/review/{what}", body, x_person=by)


def test_a_review_is_decided_sample_by_sample_and_applied_at_once(
    server: Served | ServedHere,
) -> None:
    compute_review(server.dataset, dimmed, ID)
    (listed,) = server.ask("/api/reviews").json()["reviews"]
    assert (listed["id"], listed["samples"], listed["left"]) == (ID, 11, 11)
    assert listed["failed"] == [[6, "ValueError: <script>no</script>"]]

    shown = get(server, "/api/review/sample", id=ID, idx=3).json()
    assert (shown["position"], shown["previous"], shown["next"]) == (4, 2, 4)
    words = {item["key"]: item["words"] for item in shown["items"]}
    assert words["metadata"] == ["metadata.label: 3 → 103"]
    assert any("of the pixels differs" in line for line in words["image"])
    removed = get(server, "/api/review/sample", id=ID, idx=4).json()
    assert removed["is_removed"]
    assert {"image", "metadata"} <= {item["key"] for item in removed["items"]}

    before = DataStream.read_write_underfolder(server.dataset)[3]["image"]()
    for which, image in (("before", before), ("after", before // 2)):
        picture = get(server, "/review-picture", id=ID, idx=3, key="image", which=which)
        got = np.asarray(Image.open(BytesIO(picture.content)).convert("RGB"))
        assert abs(float(got.mean()) - float(image.mean())) < 3
    difference = get(server, "/review-picture", id=ID, idx=3, key="image", which="difference")
    assert np.asarray(Image.open(BytesIO(difference.content))).max() > 250

    assert post(server, "apply", id=ID).status == 400
    decided = {"id": ID, "idx": 3, "is_approved": True, "seen": None}
    assert post(server, "decide", **decided).json()["left"] == 10
    late = post(server, "decide", by="Bob", **{**decided, "is_approved": False})
    assert (late.status, late.json()["error"]) == (
        409,
        "Sample 3: Ada approved it meanwhile. Decide anew.",
    )
    assert post(server, "decide", by="Bob", **{**decided, "idx": 4}).status == 200
    assert post(server, "comment", by="Bob", id=ID, comment="dark").json()["comments"] == {
        "Bob": "dark"
    }

    if isinstance(server, Served):
        server.kill()  # what is decided outlives the server
        server.start()
    state = get(server, "/api/review", id=ID).json()["waiting"]
    assert (state["approved"], state["left"], state["people"]) == (2, 9, ["Ada", "Bob"])
    assert post(server, "decide-rest", id=ID, is_approved=False).json()["left"] == 0

    done = post(server, "apply", id=ID).json()
    assert done.get("how") == "applied", done
    assert (done["decided"]["applied"], done["decided"]["discarded"]) == (2, 9)
    stream = DataStream.read_write_underfolder(server.dataset)
    assert stream[3]["metadata"]()["label"] == 103
    assert stream[2]["metadata"]()["label"] == 2
    assert 4 not in stream.indices()
    for late in (post(server, "apply", id=ID), post(server, "decide", **decided)):
        assert (late.status, late.json()["kind"]) == (404, "ReviewNotFoundError")
    gone = get(server, "/api/review", id=ID).json()
    assert gone["waiting"] is None
    assert gone["decided"]["reviewed_by"] == "Ada, Bob"
    assert gone["decided"]["comment"] == "dark"
    undo_run(server.dataset, ID)
    assert 4 in stream.indices()


def test_what_a_flow_run_may_wait_for_is_not_applied_while_prefect_away(server: Asked) -> None:
    if not isinstance(server, Served):
        pytest.skip("it is in the tests' process, which may have a Prefect")
    name = str(uuid4())
    decide_rest(compute_review(server.dataset, dimmed, name, flow_run=name), True, "Ada")
    refused = post(server, "apply", id=name)
    assert refused.status == 502
    assert "does not answer" in refused.json()["error"]
    assert get(server, "/api/review/flow-run", id=name).status == 502
    assert DataStream.read_write_underfolder(server.dataset)[3]["metadata"]()["label"] == 3


def test_the_answer_that_the_browser_gives_is_one_that_the_flow_knows() -> None:
    assert ANSWER in get_args(Decision)


def test_forged_reviews_are_a_message_and_nothing_else_is_read(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "toy"
    SamplesSequence.toy_dataset(12, image_size=16).to_underfolder(folder).run()
    labelled(folder)
    with Served(folder) as server:
        see_forged_reviews(server, tmp_path)


def see_forged_reviews(server: Served, tmp_path: Path) -> None:
    secret = tmp_path / "secret.yml"
    secret.write_text("password: hunter2")
    review = compute_review(server.dataset, dimmed, "forged")
    folder = server.dataset / ".pipestream/review/forged"
    (name,) = [one for one in review.changed[0].files if "metadata" in one]
    staged = folder / "staged" / name
    staged.unlink()
    staged.symlink_to(secret)
    found = get(server, "/api/review/sample", id="forged", idx=review.changed[0].idx)
    assert found.status == 400
    assert b"hunter2" not in found.content
    (folder / "decided.json").write_text("[]")
    assert get(server, "/api/review", id="forged").status == 400
    saved = json.loads((folder / "review.json").read_text())
    (folder / "review.json").write_text(json.dumps({**saved, "flow_run": "http://elsewhere/"}))
    assert get(server, "/api/review", id="forged").status == 400
    listed = server.ask("/api/reviews").json()
    assert any("forged" in problem for problem in listed["problems"])
    for path in ("../../../etc", "..", "x" * 2_000, "\0", ".pipestream"):
        assert get(server, "/api/review", id=path).status in (400, 404, 422)
        assert post(server, "apply", id=path).status in (400, 404, 422)
    for idx in (-1, 10**15, 6):
        assert get(server, "/api/review/sample", id="forged", idx=idx).status in (400, 404)


def test_a_read_only_server_shows_reviews_and_decides_nothing(new_place: Place) -> None:
    SamplesSequence.toy_dataset(3, image_size=16).to_underfolder(new_place).run()
    review = compute_review(new_place, ["invert"], "r")
    with served_at(new_place, is_read_only=True) as server:
        assert get(server, "/api/review", id="r").json()["waiting"]["left"] == 3
        asked = {"id": "r", "is_approved": True}
        for what in ("decide-rest", "apply", "comment", "decide"):
            assert post(server, what, **asked).status == 403
    assert decisions_of(review).left(review) == [0, 1, 2]
