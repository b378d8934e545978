"""Decoded values kept in memory."""

from pydantic import Field

from prefect_pipestream.items import data_cache
from prefect_pipestream.sequences.fields import ItemClass
from prefect_pipestream.sequences.piped import PipedSequence
from prefect_pipestream.sequences.registry import piped_sequence
from prefect_pipestream.sequences.sample import Sample


@piped_sequence
class DataCache(PipedSequence, title="data_cache"):
    """Lets items that the pipes before this one decode keep their values."""

    takes_whole_argument = True
    keeps_indices = True

    items: list[ItemClass] = Field(
        default_factory=list, description="The item classes; none are all classes."
    )

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample, made with item caching on."""
        with data_cache(*self.items):
            return self.source.get_sample(idx)
