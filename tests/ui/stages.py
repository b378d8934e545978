"""A stage that takes its time, so that a run's progress can be watched."""

import time

from prefect_pipestream.sequences import Sample, sample_stage


@sample_stage
def take_time(sample: Sample, seconds: float = 0.1) -> Sample:
    """Returns the sample as it is, later."""
    time.sleep(seconds)
    return sample
