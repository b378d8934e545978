"""The flow of a review, on a dataset in a bucket, with a person who answers."""

import itertools
import threading

import numpy as np
import pytest

from prefect_pipestream import list_runs, undo_run
from prefect_pipestream.flows.reviewing import review_changes
from prefect_pipestream.items import PngImageItem
from prefect_pipestream.review import compute_review, decide, decide_rest, load_review
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.storage.address import Address
from prefect_pipestream.storage.store import open_store
from tests.prefect_layer.artifacts import artifact_texts
from tests.prefect_layer.test_review_flow import HOUR, _resume_each

pytestmark = pytest.mark.usefixtures("prefect_api")
NUMBERS = itertools.count()
SAMPLES = 7


@pytest.fixture
def address() -> Address:
    address = Address.of(f"memory://review-flow/many-{next(NUMBERS)}")
    stream = DataStream.create_new_underfolder(address, zfill=3)
    with stream.commit_group() as batch:
        for idx in range(SAMPLES):
            image = PngImageItem(np.full((6, 8), idx, np.uint8))
            batch.set_output(idx, Sample({"image": image}))
    return address


def pixels(address: Address) -> list[int]:
    samples = SamplesSequence.from_underfolder(address)
    return [int(sample["image"]()[0, 0]) for sample in samples]


def objects_below(address: Address, folder: str) -> list[str]:
    return [stat.key for stat in open_store(address).objects_in(f".pipestream/{folder}")]


@pytest.mark.slow
def test_a_review_of_many_asks_again_and_applies_what_was_approved(address: Address) -> None:
    questions: list[str] = []
    answers = [
        {"decision": "approve only these", "samples": "1", "reviewer": "Ada", "comment": "blurred"},
        {"decision": "approve only these", "samples": "77", "reviewer": "Ada"},
        {"decision": "as decided in the browser", "reviewer": "Bob"},
        {"decision": "reject the rest", "samples": "6", "reviewer": "Ada"},
    ]
    answering = threading.Thread(target=_resume_each, args=(answers, questions, address))
    answering.start()
    report = review_changes(str(address), ["invert"], most=2, wait_hours=16 * HOUR)  # type: ignore[arg-type]
    answering.join()

    assert (report.applied, report.discarded, report.conflicts) == ([1, 5, 6], [0, 2, 3, 4], [])
    assert (report.reviewer, report.comment) == ("Ada, Bob", "blurred")
    assert pixels(address) == [0, 254, 2, 3, 4, 250, 249]
    assert "**7** sample" in questions[0]
    assert "not among the changes that are shown: 77" in questions[2]
    shown = artifact_texts(f"review-{address.name}")
    assert "data:image/png;base64," in shown[0]
    (result,) = artifact_texts(f"review-result-{address.name}")
    assert "**3** applied: 1, 5" in result
    assert load_review(address, report.run_key) is None
    assert not objects_below(address, "review")
    (run,) = [one for one in list_runs(address) if one.run_key == report.run_key]
    assert run.state == "finished"
    undo_run(address, report.run_key)
    assert pixels(address) == list(range(SAMPLES))


@pytest.mark.slow
def test_a_retry_whose_review_is_decided_by_then_asks_nobody(address: Address) -> None:
    from prefect.client.orchestration import get_client
    from prefect.flow_engine import run_flow

    parameters = {"dataset": str(address), "transform": ["invert"]}
    with get_client(sync_client=True) as client:
        flow_run = client.create_flow_run(review_changes, parameters=parameters)
    # As an attempt leaves it that was killed before its first question.
    review = compute_review(address, ["invert"], str(flow_run.id), flow_run=str(flow_run.id))
    decide(review, 1, False, "Ada", seen=None)
    decide_rest(review, True, "Bob")
    report = run_flow(review_changes, flow_run=flow_run, parameters=parameters)
    assert (report.applied, report.discarded) == ([0, 2, 3, 4, 5, 6], [1])  # type: ignore[union-attr]
    again = run_flow(review_changes, flow_run=flow_run, parameters=parameters)
    assert pixels(address) == [255, 1, 253, 252, 251, 250, 249]
    assert again == report
