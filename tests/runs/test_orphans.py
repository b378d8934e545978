"""Workers that outlive their flow run's process do not get in the way of its next attempt."""

from pathlib import Path

import pytest

from prefect_pipestream.underfolder import Run
from tests.runs.datasets import labels, make_dataset
from tests.runs.processes import FlowProcess, Host, wait_until

SAMPLES = 1500
KEY = "orphaned"


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_run_resumed_while_old_workers_live_does_each_sample_once(
    host: Host, tmp_path: Path
) -> None:
    folder = make_dataset(tmp_path / "dataset", SAMPLES)

    def done() -> int:
        return sum(Run.of(folder, KEY).counts().values())

    arguments = {"folder": str(folder), "transform": "count_slowly", "run_key": KEY}
    with FlowProcess(host, **arguments, runner="processes", slowly_s=0.02, chunk_size=700) as first:
        first.wait_for_begin()
        assert wait_until(lambda: done() > 0)
        first.kill(workers=False)
        before = done()
        assert before < SAMPLES
        with FlowProcess(host, **arguments, runner="threads") as second:
            report = second.result()

    assert report["counts"]["written"] == SAMPLES
    assert labels(folder) == [idx + 1 for idx in range(SAMPLES)]
