"""Stages as a user has them: named by their module."""

import os
import resource
import signal
import time

from prefect_pipestream.sequences import Sample, sample_stage


@sample_stage
def press_ctrl_c(sample: Sample) -> Sample:
    """Does what a person does at a terminal, in the middle of a run."""
    if sample["metadata"]()["number"] == 2:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    return sample


@sample_stage
def terminate(sample: Sample) -> Sample:
    """Does what a service manager does, in the middle of a run."""
    if sample["metadata"]()["number"] == 2:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    return sample


@sample_stage
def fill_disk(sample: Sample) -> Sample:
    """Lets no file of this process grow any more."""
    if sample["metadata"]()["number"] == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    return sample


@sample_stage
def fail(sample: Sample) -> Sample:
    """Fails."""
    raise ValueError("it is broken")
