"""Writing metadata."""

from typing import Any

from pydantic import Field

from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages._canonical import NotPlainError, canonical
from prefect_pipestream.stages._images import Key


class StageSetMetadata(SampleStage, title="set-meta"):
    """Sets a value inside a metadata item; a new item is YAML."""

    key_path: Key = Field(
        description="The key, then a path into its value, as `meta.scores[0].label`. A "
        "backslash takes the next `.` or `[` literally."
    )
    value: Any = Field(
        None, description="What to set: a text, number, truth value, list, mapping or nothing."
    )

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the value set; itself if it is there already.

        Raises:
            SampleError: If the path goes through a value that cannot hold it.
            DecodeError: If the item cannot be decoded.
        """
        missing = object()
        if _are_equal(sample.deep_get(self.key_path, missing), self.value):
            return sample
        return sample.deep_set(self.key_path, self.value)


def _are_equal(one: Any, other: Any) -> bool:
    try:
        return canonical(one) == canonical(other)
    except NotPlainError:
        return False
