"""The flow on Dask and on Ray: real clusters of worker processes on this machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.task_runners import TaskRunner

from prefect_pipestream.blocks import ReadWriteUnderfolder
from prefect_pipestream.flows.processing import RunReport, process_samples
from prefect_pipestream.underfolder import list_runs, undo_run
from tests.prefect_layer.datasets import count_runs, files_of, make_dataset, runs_of, truncate_image

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("prefect_api"),
    # Those of the clusters, as they end.
    pytest.mark.filterwarnings("ignore"),
]

N = 60
BAD = 7


@pytest.fixture(params=["dask", "ray"])
def cluster(request: pytest.FixtureRequest) -> Iterator[TaskRunner[Any]]:
    """A task runner with a cluster of two worker processes."""
    if request.param == "dask":
        prefect_dask = pytest.importorskip("prefect_dask", reason="needs the extra [dask]")
        yield prefect_dask.DaskTaskRunner(
            cluster_kwargs={"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
        )
    else:
        prefect_ray = pytest.importorskip("prefect_ray", reason="needs the extra [ray]")
        yield prefect_ray.RayTaskRunner(
            init_kwargs={"num_cpus": 2, "include_dashboard": False, "log_to_driver": False}
        )


def process(folder: Path, runner: TaskRunner[Any], **options: Any) -> RunReport:
    flow = process_samples.with_options(task_runner=runner)
    return flow(ReadWriteUnderfolder(folder=folder), count_runs, **options)


def test_chunks_run_on_a_cluster_past_a_bad_sample_and_can_be_undone(
    cluster: TaskRunner[Any], tmp_path: Path
) -> None:
    folder = make_dataset(tmp_path / "parts", N)
    truncate_image(folder, BAD)
    (folder / f"data/{BAD:03d}_metadata.yaml").write_text("runs: [")
    before = files_of(folder)

    report = process(folder, cluster, max_failed=0.1, sample_retries=0, run_key="first")

    assert (report.counts["written"], report.counts["failed"]) == (N - 1, 1)
    good = [idx for idx in range(N) if idx != BAD]
    assert runs_of(folder, good) == [1] * len(good)
    again = process(folder, cluster, max_failed=0.1, sample_retries=0, run_key="first")
    assert again.counts == report.counts
    assert runs_of(folder, good) == [1] * len(good)
    undo_run(folder, "first")
    assert files_of(folder) == before


def test_samples_as_tasks_run_on_a_cluster(cluster: TaskRunner[Any], tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "parts", 6)

    report = process(folder, cluster, tasks_per="sample")

    assert report.counts["written"] == 6
    assert runs_of(folder, range(6)) == [1] * 6
    assert [run.state for run in list_runs(folder)] == ["finished"]
