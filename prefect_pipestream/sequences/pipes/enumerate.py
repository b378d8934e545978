"""Samples that know their index."""

from pydantic import Field

from prefect_pipestream.items import TxtNumpyItem
from prefect_pipestream.sequences.fields import ItemClass
from prefect_pipestream.sequences.piped import PipedSequence
from prefect_pipestream.sequences.registry import piped_sequence
from prefect_pipestream.sequences.sample import Sample


@piped_sequence
class EnumeratedSequence(PipedSequence, title="enumerate"):
    """Adds to each sample an item with its index."""

    keeps_indices = True

    idx_key: str = Field("~idx", description="The key of the item with the index.")
    item_cls: ItemClass = Field(TxtNumpyItem, description="The class of that item.")

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample with its index in it."""
        return self.source.get_sample(idx).set_item(self.idx_key, self.item_cls.make_new(idx))
