"""Transforms by name, for worker processes and parameters."""

from prefect_pipestream.sequences import Sample, sample_stage


@sample_stage
def brighten(sample: Sample, amount: int = 10) -> Sample:
    """Adds to an image's values."""
    return sample.set_value("image", sample["image"]() + amount)
