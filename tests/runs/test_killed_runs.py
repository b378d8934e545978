"""A run that is killed again and again transforms each sample exactly once."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from prefect_pipestream.underfolder import check, counts, list_runs, undo_run
from tests.runs.datasets import contents, copy_of, differences, make_dataset
from tests.runs.processes import FlowProcess, wait_until

SAMPLES = 2000
KEY = "killed-again-and-again"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.usefixtures("prefect_api"),
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("template") / "dataset", SAMPLES)


@pytest.fixture(scope="module")
def undisturbed(
    template: Path, prefect_api: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What a run that nobody kills writes."""
    folder = copy_of(template, tmp_path_factory.mktemp("undisturbed") / "dataset")
    with FlowProcess(folder=str(folder), transform="invert") as process:
        assert process.result()["counts"]["written"] == SAMPLES
    return contents(folder)


def done(folder: Path) -> int:
    """How many samples the run has done."""
    return sum(counts(folder, KEY).values())


def attempt(folder: Path, runner: str, rng: random.Random, number: int, target: str | None) -> bool:
    """Starts or resumes the run, and kills it at a random moment; returns whether it was alive."""
    written = Path(target) if target else folder
    arguments: dict[str, Any] = {"folder": str(folder), "target": target, "run_key": KEY}
    with FlowProcess(**arguments, transform="invert_slowly", runner=runner) as process:
        process.wait_for_begin()
        before = done(written)
        if number % 4 != 3:  # one in four dies as it starts, or recovers what the last one left
            wait_until(lambda: done(written) > before or not process.is_alive())
        time.sleep(rng.uniform(0, 0.4))
        return process.kill()


def assert_ended_well(folder: Path, wanted: dict[str, bytes]) -> None:
    assert differences(contents(folder), wanted) == []
    report = check(folder)
    assert report.ok, report.problems
    (run,) = (run for run in list_runs(folder) if run.run_key == KEY)
    assert run.state == "finished"
    assert run.counts == {"written": SAMPLES, "unchanged": 0, "skipped": 0, "failed": 0}


@pytest.mark.parametrize(("runner", "kills"), [("threads", 10), ("processes", 6)])
def test_killed_run_transforms_each_sample_once_and_is_undone(
    runner: str, kills: int, template: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    folder = copy_of(template, tmp_path / "dataset")
    rng = random.Random(f"{runner} {tmp_path}")
    died = sum(attempt(folder, runner, rng, number, None) for number in range(kills))
    left = SAMPLES - done(folder)

    with FlowProcess(folder=str(folder), transform="invert", runner=runner, run_key=KEY) as process:
        report = process.result()

    print(f"{runner}: {died} kills, {left} samples left to the last attempt")
    assert died >= kills - 3
    assert report["counts"]["written"] == SAMPLES
    assert_ended_well(folder, undisturbed)

    undo_run(folder, KEY)

    assert differences(contents(folder), contents(template)) == []
    assert check(folder).ok


def test_killed_build_of_a_new_dataset_writes_each_sample_once(
    template: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    rng = random.Random(str(tmp_path))
    died = sum(attempt(template, "threads", rng, number, str(new)) for number in range(6))

    arguments: dict[str, Any] = {"folder": str(template), "target": str(new), "run_key": KEY}
    with FlowProcess(**arguments, transform="invert") as process:
        assert process.result()["counts"]["written"] == SAMPLES

    wanted = tmp_path / "undisturbed"
    arguments = {"folder": str(template), "target": str(wanted)}
    with FlowProcess(**arguments, transform="invert") as process:
        process.result()
    print(f"build: {died} kills")
    assert died >= 4
    assert_ended_well(new, contents(wanted))
