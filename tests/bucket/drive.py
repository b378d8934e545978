"""Runs the flow over a dataset in a bucket, in a process that may be killed.

``python -m tests.bucket.drive ADDRESS RUN_KEY``
"""

import sys
import time
from typing import Any

from prefect.task_runners import TaskRunner

from prefect_pipestream.blocks import ReadWriteUnderfolder
from prefect_pipestream.flows.processing import RunReport, process_samples
from prefect_pipestream.sequences import Sample
from prefect_pipestream.storage.address import Address
from tests.prefect_layer.datasets import count_runs

SLOWLY_S = 0.02


def count_slowly(sample: Sample) -> Sample:
    time.sleep(SLOWLY_S)
    return count_runs(sample)


def run_flow(
    root: Address, run_key: str, runner: "TaskRunner[Any] | None" = None, **options: Any
) -> RunReport:
    """Counts a run in each sample; `runner` is where, by default as the flow has it."""
    flow = process_samples if runner is None else process_samples.with_options(task_runner=runner)
    report: RunReport = flow(
        ReadWriteUnderfolder(folder=root), count_slowly, run_key=run_key, **options
    )
    return report


if __name__ == "__main__":
    print(run_flow(Address.of(sys.argv[1]), sys.argv[2]).counts)
