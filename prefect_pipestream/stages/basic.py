"""Stages around other stages, and the one that does nothing."""

import time
from typing import Any

from pydantic import Field, PrivateAttr

from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage, StageInput, StageResult
from prefect_pipestream.stages._images import Key


class StageIdentity(SampleStage, title="identity"):
    """Does nothing."""

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample itself."""
        return sample


class StageTimer(SampleStage, title="timer"):
    """Times another stage, and writes the nanoseconds into the sample's metadata."""

    stage: StageInput = Field(description='The stage to time: "name" or {"name": arguments}.')
    skip_first: int = Field(
        1, ge=0, description="How many samples not to time at first, in each process."
    )
    time_key_path: Key = Field(
        "timings.*",
        description="The key and the path where the time goes; `*` stands for the stage's name.",
    )
    process: bool = Field(
        False, description="Measure the time that the process was busy, not the time that went by."
    )

    _seen: int = PrivateAttr(0)

    def __init__(self, stage: Any, **arguments: Any) -> None:
        super().__init__(**{"stage": stage, **arguments})

    def __call__(self, sample: Sample) -> StageResult:
        """Returns what the stage returns, with the time in its sample.

        Raises:
            SampleError: If the path goes through a value that cannot hold it.
        """
        clock = time.process_time_ns if self.process else time.perf_counter_ns
        start = clock()
        result = self.stage(sample)
        elapsed = clock() - start
        self._seen += 1
        if self._seen <= self.skip_first or result is None:
            return result
        name = self.stage.stage_title or type(self.stage).__name__
        path = self.time_key_path.replace("*", name)
        if isinstance(result, tuple):
            return result[0].deep_set(path, elapsed), result[1]
        return result.deep_set(path, elapsed)
