"""A review of more samples than are shown at once: nobody decides what nobody saw."""

import threading
import time
from typing import Any

import pytest
from httpx import HTTPStatusError

from prefect_pipestream.flows.review_question import Decision, ReviewDecision
from prefect_pipestream.flows.reviewing import ReviewReport, review_changes
from prefect_pipestream.review import compute_review, decide, decide_rest, load_review
from prefect_pipestream.storage.address import Place
from tests.dataset_files import beside, made_at
from tests.prefect_layer.artifacts import artifact_texts
from tests.prefect_layer.datasets import files_of, make_dataset
from tests.underfolder.conftest import run_of

HOUR = 1 / 3600


@pytest.mark.parametrize(
    ("decision", "samples", "approved", "rejected"),
    [
        ("approve all", "", {2, 3}, set()),
        ("approve only these", "3", {3}, {2}),
        ("reject these", "3", {2}, {3}),
        ("reject all", "", set(), {2, 3}),
        ("approve the rest", "", {2, 3, 7, 9}, set()),
        ("approve the rest", "2, 9", {3, 7}, {2, 9}),
        ("reject the rest", "7", {7}, {2, 3, 9}),
        ("as decided in the browser", "", set(), set()),
    ],
)
def test_all_is_what_is_shown_and_the_rest_is_all_that_is_left(
    decision: Decision, samples: str, approved: set[int], rejected: set[int]
) -> None:
    answer = ReviewDecision(decision=decision, samples=samples, reviewer="Ada")
    found = answer.about(shown=[1, 2, 3], left={2, 3, 7, 9})  # 1 was decided meanwhile
    assert {idx for idx, one in found.items() if one} == approved
    assert {idx for idx, one in found.items() if not one} == rejected


@pytest.mark.parametrize(
    ("decision", "samples", "why"),
    [
        ("approve only these", "", "needs the indices"),
        ("approve only these", "3, 7", "not among the changes that are shown: 7"),
        ("reject the rest", "8", "not left: 8"),
        ("approve only these", "x", "no sample index"),
    ],
)
def test_a_decision_that_does_not_say_which_is_refused(
    decision: Decision, samples: str, why: str
) -> None:
    answer = ReviewDecision(decision=decision, samples=samples, reviewer="Ada")
    with pytest.raises(ValueError, match=why):
        answer.about(shown=[2, 3], left={2, 3, 7, 9})


def _resume_each(answers: list[dict[str, Any]], questions: list[str], folder: Place) -> None:
    """Answers each question of the only flow run that is paused."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.exceptions import ObjectNotFound

    paused = FlowRunFilter.model_validate({"state": {"type": {"any_": ["PAUSED"]}}})
    with get_client(sync_client=True) as client:
        for answer in answers:
            while True:
                for run in client.read_flow_runs(flow_run_filter=paused):
                    assert run.state is not None
                    keys = run.state.state_details.run_input_keyset or {}
                    name = f"/flow_runs/{run.id}/input/{keys['description']}"
                    try:
                        questions.append(client.request("GET", name).json())
                    except (ObjectNotFound, HTTPStatusError):  # it is paused before it asks
                        continue
                    review = load_review(folder, str(run.id))
                    if answer["decision"] == "as decided in the browser" and review is not None:
                        decide(review, 5, True, "Bob", seen=None)
                    client.resume_flow_run(run.id, run_input=answer)
                    break
                else:
                    time.sleep(0.1)
                    continue
                break


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
def test_a_review_of_many_asks_again_and_says_how_many_are_left(
    new_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPESTREAM_BROWSER_URL", "http://127.0.0.1:8765/")
    folder = made_at(beside(new_place, "many"), make_dataset, samples=9)
    before = files_of(folder)
    questions: list[str] = []
    answers = [
        {"decision": "approve only these", "samples": "1", "reviewer": "Ada", "comment": "blurred"},
        {"decision": "as decided in the browser", "reviewer": "Bob"},
        {"decision": "reject the rest", "samples": "8", "reviewer": "Ada"},
    ]
    answering = threading.Thread(target=_resume_each, args=(answers, questions, folder))
    answering.start()
    report = review_changes(str(folder), ["invert"], most=2, wait_hours=16 * HOUR)
    answering.join()

    assert (report.applied, report.discarded) == ([1, 5, 8], [0, 2, 3, 4, 6, 7])
    assert (report.reviewer, report.comment) == ("Ada, Bob", "blurred")
    assert report.decision == "approve only these; as decided in the browser; reject the rest"
    changed = {name for name, content in files_of(folder).items() if before[name] != content}
    assert len(changed) == 3
    assert "**9** are left to decide about: 2 are shown, and **7** more follow" in questions[0]
    assert "**7** are left to decide about: 2 are shown, and **5** more follow" in questions[1]
    assert "**6** are left to decide about" in questions[2]
    page = f"http://127.0.0.1:8765/reviews/{report.run_key}"
    assert page in questions[0]
    shown = artifact_texts(f"review-{folder.name}")[-1]
    assert page in shown
    assert "**9** are left" in shown
    assert "**[0](http://127.0.0.1:8765/sample/0)**" in shown
    (result,) = artifact_texts(f"review-result-{folder.name}")
    assert f"http://127.0.0.1:8765/run?key={report.run_key}" in result


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
def test_a_retry_whose_review_is_decided_by_then_asks_nobody_and_says_where_it_was(
    new_place: Place,
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.flow_engine import run_flow

    folder = made_at(new_place, make_dataset, samples=4)
    parameters = {"dataset": str(folder), "transform": ["invert"]}
    with get_client(sync_client=True) as client:
        flow_run = client.create_flow_run(review_changes, parameters=parameters)
    # As an attempt leaves it that was killed before its first question.
    review = compute_review(folder, ["invert"], str(flow_run.id), flow_run=str(flow_run.id))
    decide(review, 1, False, "Ada", seen=None)
    decide_rest(review, True, "Bob")
    report = run_flow(review_changes, flow_run=flow_run, parameters=parameters)
    assert isinstance(report, ReviewReport)
    assert (report.applied, report.discarded) == ([0, 2, 3], [1])
    assert (report.reviewer, report.decision) == ("Ada, Bob", "as decided in the browser")
    assert run_of(folder, str(flow_run.id)).facts()["decision"] == "as decided in the browser"
