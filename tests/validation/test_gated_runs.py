"""Runs with a gate: by the flows, on threads and processes, and by the command line."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.task_runners import ProcessPoolTaskRunner

from prefect_pipestream import cli
from prefect_pipestream.blocks import ReadWriteUnderfolder
from prefect_pipestream.errors import (
    InvalidSampleError,
    PipeBuildingError,
    PipestreamError,
    RunNotFoundError,
    UndoRefusedError,
)
from prefect_pipestream.flows import (
    build_dataset,
    clean_dataset,
    import_dataset,
    process_samples,
    reprocess_failed,
    undo_run,
)
from prefect_pipestream.flows.processing import RunReport, TooManyFailedError
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.underfolder import list_runs
from prefect_pipestream.validation import FieldRule, ItemRule
from tests.dataset_files import Files, beside, made_at
from tests.prefect_layer.artifacts import artifact_texts
from tests.prefect_layer.datasets import count_runs, files_of, make_dataset, runs_of
from tests.underfolder.conftest import run_of

pytestmark = pytest.mark.usefixtures("prefect_api")

SCORE: Any = "tests.validation.transforms:score"
LOW = [ItemRule(key="metadata", required_fields=(FieldRule(path="score", maximum=3),))]
HIGH = [ItemRule(key="metadata", required_fields=(FieldRule(path="score", maximum=5),))]
RULES = "- key: metadata\n  required_fields:\n  - {path: score, maximum: 3}\n"


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for handler in logging.getLogger().handlers:  # a command quietens Prefect until it ends
        monkeypatch.setattr(handler, "level", handler.level)


@pytest.fixture
def folder(new_place: Place) -> Place:
    return made_at(new_place, make_dataset)


def process(folder: Place, transform: Any = SCORE, flow: Any = process_samples, **more: Any) -> Any:
    arguments = {"sample_retries": 2, "artifacts": False, "rules": LOW, "run_key": "r", **more}
    return flow(ReadWriteUnderfolder(folder=folder), transform, **arguments)


def failed(folder: Place, **more: Any) -> RunReport:
    with pytest.raises(TooManyFailedError) as raised:
        process(folder, **more)
    return raised.value.report


# -- samples ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tasks_per", ["chunk", "sample"])
def test_an_invalid_sample_fails_at_once_and_is_not_written(folder: Place, tasks_per: str) -> None:
    report = process(folder, max_failed=0.5, tasks_per=tasks_per)
    assert (report.counts["written"], report.counts["failed"]) == (4, 2)
    assert not report.taken_back
    assert runs_of(folder, range(6)) == [1, 1, 1, 1, 0, 0]
    (first, _) = report.failures
    assert (first.idx, first.error_type, first.attempts) == (4, InvalidSampleError.__name__, 1)
    assert "metadata.score: is 4, expected at most 3" in first.message
    assert run_of(folder, "r").failed_indices() == [4, 5]


def test_a_sample_that_fails_otherwise_is_tried_again_beside_invalid_ones(folder: Place) -> None:
    tries: list[int] = []

    def flaky(sample: Sample) -> Sample:
        number = sample["metadata"]()["number"]
        tries.append(number)
        if number == 1 and tries.count(1) < 2:
            raise OSError("the network is away")
        return sample.deep_set("metadata.score", number)

    report = process(folder, flaky, max_failed=0.5)
    assert report.counts["failed"] == 2
    assert [tries.count(number) for number in range(6)] == [1, 2, 1, 1, 1, 1]


@pytest.mark.about_files
@pytest.mark.slow
def test_workers_in_processes_hold_samples_against_rules(folder: Path) -> None:
    before = files_of(folder)
    pool: Any = ProcessPoolTaskRunner(max_workers=2)
    flow = process_samples.with_options(task_runner=pool)
    report = process(folder, flow=flow, max_failed=0.5, chunk_size=3)
    assert report.counts["failed"] == 2
    # Its workers are alive as the run takes itself back.
    report = failed(folder, flow=flow, run_key="s", chunk_size=3, on_invalid="undo")
    assert report.taken_back
    assert runs_of(folder, range(6)) == [1, 1, 1, 1, 0, 0]
    undo_run(folder, "r")
    assert files_of(folder) == before


@pytest.mark.slow
@pytest.mark.about_files
def test_samples_with_limits_have_a_gate(folder: Place) -> None:
    before = files_of(folder)
    report = process(folder, sample_timeout=60, max_failed=0.5)
    assert [one.attempts for one in report.failures] == [1, 1]
    assert failed(folder, sample_timeout=60, on_invalid="undo").taken_back
    assert files_of(folder) == before


def test_without_rules_nothing_is_noted_or_checked(folder: Place) -> None:
    Files(folder)["data/003_image.png"] = b"broken"
    report = process(folder, count_runs, rules=[], keys=["metadata"])
    assert report.counts["written"] == 6
    assert "rules" not in run_of(folder, "r").facts()


def test_a_build_and_an_import_have_a_gate(folder: Place, tmp_path: Path) -> None:
    as_form: Any = [rule.model_dump(mode="json", exclude_defaults=True) for rule in LOW]
    built = beside(folder, "built")
    report = build_dataset(folder, built, [SCORE], rules=as_form, max_failed=0.5)
    assert report.counts["failed"] == 2
    assert sum(name.endswith("_image.png") for name in Files(built)) == 4
    images = tmp_path / "images"
    images.mkdir()
    for idx in range(3):
        (images / f"{idx}.png").write_bytes(Files(folder)[f"data/00{idx}_image.png"])
    (images / "2.png").write_bytes(b"broken")
    arguments: Any = {"kind": "image-folder", "source": images, "dataset": beside(folder, "in")}
    arguments |= {"rules": [ItemRule(key="image")], "sample_retries": 0}
    report = import_dataset(**arguments, max_failed=0.5)
    assert (report.counts["written"], report.counts["failed"]) == (2, 1)
    assert "image: data/" in report.failures[0].message
    arguments["dataset"] = undone = beside(folder, "undone")
    for _ in range(2):  # the second begins anew, and finds each sample its index again
        with pytest.raises(TooManyFailedError) as raised:
            import_dataset(**arguments, on_invalid="undo", run_key="r")
        assert raised.value.report.taken_back
        assert dict(Files(undone)) == {}
    del arguments["rules"]
    (images / "2.png").write_bytes((images / "1.png").read_bytes())
    assert import_dataset(**arguments, run_key="r").counts["written"] == 3


def test_wrong_rules_are_refused_before_anything_runs(folder: Place, tmp_path: Path) -> None:
    twice = [ItemRule(key="image"), ItemRule(key="image")]
    wrong: Any
    for wrong in ({"rules": twice}, {"rules": [], "allow_other_items": False}):
        with pytest.raises(PipeBuildingError):
            process(folder, **wrong)
        with pytest.raises(PipeBuildingError):
            clean_dataset(folder, ["invert"], **wrong)
        with pytest.raises(PipeBuildingError):
            import_dataset("image-folder", tmp_path, beside(folder, "new"), **wrong)
    with pytest.raises(Exception, match=r"rules\.0\.min_width"):
        clean_dataset(folder, ["invert"], rules=[{"key": "image", "min_width": -1}])
    assert list_runs(folder) == []


# -- resumed runs ----------------------------------------------------------------------------


def test_a_run_that_is_gone_on_with_keeps_to_its_rules(folder: Place) -> None:
    process(folder, max_failed=0.5)
    with pytest.raises(PipeBuildingError, match="was begun with the rules"):
        process(folder, rules=HIGH)
    assert failed(folder, rules=None).counts["failed"] == 2
    with pytest.raises(TooManyFailedError):
        reprocess_failed(folder, [SCORE], failed_run="r")
    report = reprocess_failed(folder, [{SCORE: {"most": 3}}], failed_run="r")
    assert report.counts["written"] == 6
    process(folder, count_runs, rules=None, run_key="other", indices=[0])
    with pytest.raises(PipeBuildingError, match="was begun without rules"):
        process(folder, count_runs, run_key="other")


@pytest.mark.about_files
def test_rules_that_a_stranger_noted_are_not_trusted(folder: Path) -> None:
    process(folder, max_failed=0.5)
    noted = folder / ".pipestream" / "runs" / "r" / "run.json"
    facts = json.loads(noted.read_text())
    noted.write_text(json.dumps({**facts, "rules": '[{"key": 3}]'}))
    with pytest.raises(PipeBuildingError, match="the run's rules"):
        process(folder, rules=None)
    noted.write_text(json.dumps({**facts, "rules": ["x"]}))
    assert process(folder, rules=None).counts["written"] == 6


# -- the run that takes itself back ----------------------------------------------------------


def test_a_run_of_which_too_many_samples_fail_takes_itself_back(folder: Place) -> None:
    before = files_of(folder)
    report = failed(folder, on_invalid="undo", artifacts=True, max_failed=0.3)
    assert (report.taken_back, report.undone_by) == (True, "undo:r")
    assert report.counts["written"] == 4
    assert files_of(folder) == before
    with pytest.raises(TooManyFailedError, match="took itself back, by run 'undo:r#2'"):
        process(folder, on_invalid="undo")
    states = [(run.run_key, run.state) for run in list_runs(folder)]
    assert sorted(states) == [
        ("r", "undone"),
        ("r", "undone"),
        ("undo:r", "finished"),
        ("undo:r#2", "finished"),
    ]
    text = artifact_texts("report-dataset")[0]
    assert "took itself back" in text
    assert "`undo:r`" in text
    assert "## Before and after" in text
    assert "tests.validation.transforms:score" in text  # where it came from
    if not is_address(folder):  # beside whose ledger there is a file of all that failed
        (listed,) = [line for line in text.splitlines() if line.startswith("The full list")]
        assert Path(listed.split("`")[1]).read_text().count("\n") == 3
    assert process(folder, on_invalid="undo", max_failed=0.4).counts["written"] == 4
    undo_run(folder, "r")
    undo_run(folder, "undo:r")
    assert runs_of(folder, range(6)) == [1, 1, 1, 1, 0, 0]


def test_parts_that_earlier_attempts_wrote_are_taken_back_too(folder: Place) -> None:
    before = files_of(folder)
    process(folder, rules=LOW, max_failed=0.5, indices=[0, 1])
    assert runs_of(folder, range(6)) == [1, 1, 0, 0, 0, 0]
    report = failed(folder, on_invalid="undo")
    assert (report.done_before, report.taken_back) == (2, True)
    assert files_of(folder) == before
    process(folder, rules=HIGH, on_invalid="undo")  # anew, and so by other rules
    assert runs_of(folder, range(6)) == [1] * 6


def test_a_flow_run_takes_itself_back_when_no_retry_is_left(folder: Place) -> None:
    before = files_of(folder)
    calls: list[int] = []

    def once(sample: Sample) -> Sample:
        calls.append(sample["metadata"]()["number"])
        return sample.deep_set("metadata.score", calls[-1])

    flow = process_samples.with_options(retries=1, retry_delay_seconds=0)
    with pytest.raises(TooManyFailedError):
        process(folder, once, flow=flow, on_invalid="undo", tasks_per="chunk", chunk_size=6)
    assert sorted(calls) == [0, 1, 2, 3, 4, 4, 5, 5]  # the retry went on with the run
    assert files_of(folder) == before


def test_a_build_of_which_nothing_is_left_begins_anew(folder: Place) -> None:
    target = beside(folder, "built")
    arguments: Any = {"rules": LOW, "on_invalid": "undo", "run_key": "r"}
    with pytest.raises(TooManyFailedError, match="took itself back"):
        build_dataset(folder, target, [SCORE], **arguments)
    assert files_of(target) == {}
    report = build_dataset(folder, target, [{SCORE: {"most": 1}}], **arguments)
    assert report.counts["written"] == 6


def test_a_run_that_changed_nothing_is_taken_back_by_none(folder: Place) -> None:
    report = failed(folder, indices=[4, 5], on_invalid="undo")
    assert (report.taken_back, report.undone_by) == (True, None)
    with pytest.raises(RunNotFoundError):
        undo_run(folder, "r")


def test_samples_that_fail_otherwise_take_a_run_back_too(folder: Place) -> None:
    before = files_of(folder)
    Files(folder)["data/003_metadata.yaml"] = b"["
    report = failed(folder, rules=None, on_invalid="undo", sample_retries=0)
    assert (report.counts["failed"], report.taken_back) == (1, True)
    assert files_of(folder) == {**before, "data/003_metadata.yaml": b"["}


def test_a_run_is_not_taken_back_over_what_others_changed_since(folder: Place) -> None:
    def meddling(sample: Sample) -> Sample:
        number = sample["metadata"]()["number"]
        if number == 5:
            while b"score" not in Files(folder)["data/000_metadata.yaml"]:
                time.sleep(0.01)  # as long as the run has not written it
            Files(folder)["data/000_metadata.yaml"] = b"score: 1\n"
        return sample.deep_set("metadata.score", number)

    report = failed(folder, transform=meddling, on_invalid="undo", chunk_size=1, artifacts=True)
    assert not report.taken_back
    (warning,) = report.warnings
    assert "was to be taken back" in warning
    assert "000_metadata.yaml" in warning
    assert "was to be taken back" in artifact_texts("report-dataset")[0]
    assert Files(folder)["data/000_metadata.yaml"] == b"score: 1\n"
    assert yaml.safe_load(Files(folder)["data/001_metadata.yaml"])["score"] == 1
    assert "finished" in run_of(folder, "r").facts()
    assert is_address(folder) or run_of(folder, "r").has_ended()


KILLED = """
import os, signal, sys
from pathlib import Path
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.underfolder.runs import undo
from prefect_pipestream.underfolder.runs.undo import undo_own_run

folder = Path(sys.argv[1])
undo._BATCH = 1
stream = DataStream.read_write_underfolder(folder, run_key="r").for_attempt()
publish, done = undo.publish_restored, []

def killed_at_the_third(*arguments):
    done.append(publish(*arguments))
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

undo.publish_restored = killed_at_the_third
undo_own_run(stream.run, stream.attempt)
"""


@pytest.mark.about_files
def test_a_run_that_was_killed_as_it_took_itself_back_begins_anew(folder: Path) -> None:
    process(folder, max_failed=0.5)
    killed = subprocess.run([sys.executable, "-c", KILLED, folder], env=os.environ, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert sorted(runs_of(folder, range(6))) == [0, 0, 0, 0, 1, 1]
    with pytest.raises(PipestreamError, match="is being undone"):
        process(folder, rules=None)
    report = process(folder, rules=HIGH, on_invalid="undo")
    assert "begins anew" in report.warnings[0]
    assert runs_of(folder, range(6)) == [1] * 6


# -- undo, and the command line --------------------------------------------------------------


def test_the_flow_that_undoes_has_a_gate(folder: Place) -> None:
    process(folder, rules=None)
    has_score = [ItemRule(key="metadata", required_fields=(FieldRule(path="score"),))]
    with pytest.raises(UndoRefusedError, match=r"metadata\.score: is missing"):
        undo_run(folder, "r", rules=has_score)
    assert runs_of(folder, range(6)) == [1] * 6
    with pytest.raises(PipeBuildingError):
        undo_run(folder, "r", rules=has_score * 2)
    undo_run(folder, "r", rules=has_score, force=True)
    assert runs_of(folder, range(6)) == [0] * 6


def test_commands_take_rules(
    folder: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    clean = ["clean", str(folder), "--transform", SCORE, "--rules", str(rules), "--run-key", "r"]
    before = files_of(folder)
    assert cli.main([*clean, "--on-invalid", "undo"]) == 1
    shown = capsys.readouterr().out
    assert "metadata.score: is 4, expected at most 3" in shown
    assert "took itself back" in shown
    assert f"Redo     pipestream undo {folder} undo:r" in shown
    assert files_of(folder) == before
    assert cli.main([*clean, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["counts"]["failed"] == 2
    assert cli.main(["validate", str(folder), "--rules", str(rules)]) == 1
    assert "metadata.score: is missing" in capsys.readouterr().out
    undo = ["undo", str(folder), "r", "--rules", str(rules)]
    assert cli.main([*undo, "--plan"]) == 1
    assert "would not be valid then" in capsys.readouterr().out
    assert cli.main(undo) == 1
    assert "would not be valid then" in capsys.readouterr().err
    assert cli.main([*undo, "--force"]) == 0
    assert files_of(folder) == before


def test_wrong_rules_are_told_in_a_line(
    folder: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("- key: image\n  min_width: wide\n")
    for command in (
        ["clean", str(folder), "--transform", "invert"],
        ["build", str(folder), str(beside(folder, "new")), "--transform", "invert"],
        ["reprocess", str(folder), "--transform", "invert"],
        ["import", "image-folder", str(tmp_path), str(beside(folder, "new"))],
        ["validate", str(folder)],
        ["undo", str(folder), "r"],
    ):
        assert cli.main([*command, "--rules", str(rules)]) == 2
        assert "rules[0].min_width" in capsys.readouterr().err
    assert list_runs(folder) == []


def test_streams_have_no_rules_but_those_they_are_given(folder: Place) -> None:
    process(folder, max_failed=0.5)
    stream = DataStream.read_write_underfolder(folder, run_key="r")
    stream.set_output(0, stream[0].deep_set("metadata.score", 77))
    assert stream[0]["metadata"]()["score"] == 77
