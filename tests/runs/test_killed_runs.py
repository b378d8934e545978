"""A run that is killed again and again transforms each sample exactly once."""

import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from prefect_pipestream.underfolder import Run, check, list_runs, undo_run
from tests.runs.datasets import contents, copy_of, differences, image_of, labels, make_dataset
from tests.runs.processes import FlowProcess, Host, wait_until

SAMPLES = 2000
SLOWLY_S = 0.005
KEY = "killed-again-and-again"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("template") / "dataset", SAMPLES)


@pytest.fixture(scope="module")
def undisturbed(
    template: Path, host: Host, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What a run that nobody kills writes."""
    folder = copy_of(template, tmp_path_factory.mktemp("undisturbed") / "dataset")
    with FlowProcess(host, folder=str(folder), transform="invert") as process:
        assert process.result()["counts"]["written"] == SAMPLES
    return contents(folder)


def done(folder: Path) -> int:
    """How many samples the run has done."""
    return sum(Run.of(folder, KEY).counts().values())


@dataclass
class Killer:
    """Starts or resumes a run, and kills it at a random moment, again and again.

    Args:
        host: Runs it.
        arguments: Those of `FlowProcess`.
        written: The dataset that is written.
        attempts: How often.
    """

    host: Host
    arguments: dict[str, Any]
    written: Path
    attempts: int
    kills: int = 0
    rng: random.Random = field(default_factory=random.Random)

    def run(self) -> "Killer":
        """Does so."""
        seed = random.randrange(10**6)
        print(f"seed {seed}")
        self.rng.seed(seed)
        for number in range(self.attempts):
            # One in four dies as it starts, or recovers what the last one left.
            share = 0 if number % 4 == 3 else SAMPLES // self.attempts
            with FlowProcess(self.host, SLOWLY_S, run_key=KEY, **self.arguments) as process:
                process.wait_for_begin()
                self._wait_for(self.rng.randint(0, share), process)
                time.sleep(self.rng.uniform(0, 0.2))
                # Now and then only the flow's own process dies, and its workers live on.
                self.kills += process.kill(workers=number % 3 != 1)
                if number % 3 == 1:
                    self._attempt_beside(process)
        return self

    def _wait_for(self, samples: int, process: FlowProcess) -> None:
        goal = min(done(self.written) + samples, SAMPLES)
        wait_until(lambda: done(self.written) >= goal or not process.is_alive(), every=0.05)

    def _attempt_beside(self, dead: FlowProcess) -> None:
        """Resumes the run while workers of a dead flow may be alive, and kills that, too."""
        with FlowProcess(self.host, run_key=KEY, **self.arguments) as process:
            process.wait_for_begin()
            self._wait_for(self.rng.randint(0, 50), process)
            self.kills += process.kill()


def assert_ended_well(folder: Path, wanted: dict[str, bytes]) -> None:
    assert differences(contents(folder), wanted) == []
    report = check(folder)
    assert report.ok, report.problems
    (run,) = (run for run in list_runs(folder) if run.run_key == KEY)
    assert run.state == "finished"
    assert run.counts == {
        "written": SAMPLES,
        "unchanged": 0,
        "skipped": 0,
        "failed": 0,
        "removed": 0,
    }


@pytest.mark.parametrize(("runner", "kills"), [("threads", 10), ("processes", 6)])
def test_killed_run_transforms_each_sample_once_and_is_undone(
    runner: str,
    kills: int,
    host: Host,
    template: Path,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
) -> None:
    folder = copy_of(template, tmp_path / "dataset")
    arguments = {"folder": str(folder), "transform": "invert_slowly", "runner": runner}
    died = Killer(host, arguments, folder, kills).run().kills
    left = SAMPLES - done(folder)

    with FlowProcess(
        host, folder=str(folder), transform="invert", runner=runner, run_key=KEY
    ) as process:
        report = process.result()

    print(f"{runner}: {died} kills, {left} samples left to the last attempt")
    assert died > 1  # how often is chance: the run may be quicker
    assert report["counts"]["written"] == SAMPLES
    assert_ended_well(folder, undisturbed)

    undo_run(folder, KEY)

    assert differences(contents(folder), contents(template)) == []
    assert check(folder).ok


def test_killed_build_of_a_new_dataset_writes_each_sample_once(
    host: Host, template: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    arguments: dict[str, Any] = {"folder": str(template), "target": str(new)}
    died = Killer(host, {**arguments, "transform": "invert_slowly"}, new, 6).run().kills

    with FlowProcess(host, **arguments, run_key=KEY, transform="invert") as process:
        assert process.result()["counts"]["written"] == SAMPLES

    wanted = tmp_path / "undisturbed"
    arguments = {"folder": str(template), "target": str(wanted)}
    with FlowProcess(host, **arguments, transform="invert") as process:
        process.result()
    print(f"build: {died} kills")
    assert died > 1
    assert_ended_well(new, contents(wanted))


def test_killed_run_that_removes_does_so_once_and_is_undone(
    host: Host, template: Path, tmp_path: Path
) -> None:
    folder = copy_of(template, tmp_path / "dataset")
    arguments = {"folder": str(folder), "runner": "processes"}
    died = Killer(host, {**arguments, "transform": "count_or_remove_slowly"}, folder, 6).run().kills

    with FlowProcess(host, **arguments, run_key=KEY, transform="count_or_remove") as process:
        report = process.result()

    print(f"removal: {died} kills")
    assert died > 1
    kept = [idx for idx in range(SAMPLES) if image_of(idx)[0, 0] % 5 != 3]
    removed = SAMPLES - len(kept)
    assert (report["counts"]["written"], report["counts"]["removed"]) == (len(kept), removed)
    assert labels(folder) == [idx + 1 for idx in kept]
    assert check(folder).ok

    undo_run(folder, KEY)

    assert differences(contents(folder), contents(template)) == []
