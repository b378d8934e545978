"""Transforms by name, for worker processes."""

from prefect_pipestream.sequences import Sample, sample_stage


@sample_stage
def score(sample: Sample, most: int = 9) -> Sample:
    """Scores a sample by its number, and counts how often it was scored."""
    value = sample["metadata"]()
    new = {**value, "score": min(value["number"], most), "runs": value["runs"] + 1}
    return sample.set_value("metadata", new)
