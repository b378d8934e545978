"""The samples in random order."""

import random
import secrets
from array import array
from functools import cached_property
from typing import Any

from pydantic import Field, PrivateAttr

from prefect_pipestream.sequences.piped import PipedSequence
from prefect_pipestream.sequences.registry import piped_sequence
from prefect_pipestream.sequences.sample import Sample


@piped_sequence
class ShuffledSequence(PipedSequence, title="shuffle"):
    """Shuffles the samples; the same seed gives the same order, which is the reference's too."""

    seed: int | None = Field(None, description="Makes the order reproducible.")

    _drawn: int = PrivateAttr(default=0)

    def model_post_init(self, context: Any) -> None:
        """Draws a seed where none was given: copies in other processes have the same order."""
        self._drawn = secrets.randbits(64) if self.seed is None else self.seed

    @cached_property
    def _order(self) -> "array[int]":
        order = array("q", range(self.source.size()))
        random.Random(self._drawn).shuffle(order)
        return order

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample at this position of the random order."""
        return self.source.get_sample(self._order[idx])
