"""Each sample changed, in its place."""

import inspect
import random
from collections.abc import Callable
from functools import cached_property
from typing import Any

from pydantic import BaseModel, Field, PrivateAttr, field_validator

from prefect_pipestream.items import TxtNumpyItem
from prefect_pipestream.sequences.fields import ItemClass
from prefect_pipestream.sequences.piped import PipedSequence
from prefect_pipestream.sequences.registry import piped_sequence
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.samples_sequence import SamplesSequence
from prefect_pipestream.sequences.stage import StageInput, applied


@piped_sequence
class MappedSequence(PipedSequence, title="map"):
    """Applies a stage to each sample; one that the stage drops or removes becomes an empty one."""

    takes_whole_argument = True
    keeps_indices = True

    stage: StageInput

    def get_sample(self, idx: int) -> Sample:
        """Returns what the stage makes of the sample.

        Raises:
            SampleError: If the stage gives the sample a new index.
        """
        return applied(self.stage, self.source.get_sample(idx), idx)


_MOST_ARGUMENTS = 3


@piped_sequence
class ConditionallyMappedSequence(PipedSequence, title="map_if"):
    """Applies a stage to the samples for which a condition holds."""

    keeps_indices = True

    stage: StageInput
    condition: Callable[..., bool]

    @field_validator("condition")
    @classmethod
    def _check(cls, condition: Callable[..., bool]) -> Callable[..., bool]:
        if _arity(condition) > _MOST_ARGUMENTS:
            raise ValueError(
                "expected at most 3 arguments: the index, the sample, the source sequence"
            )
        return condition

    @cached_property
    def _arity(self) -> int:
        return _arity(self.condition)

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample, or what the stage makes of it."""
        sample = self.source.get_sample(idx)
        if not self.condition(*(idx, sample, self.source)[: self._arity]):
            return sample
        return applied(self.stage, sample, idx)


def _arity(condition: Callable[..., bool]) -> int:
    """How many arguments the condition must be given; with `*args`, all."""
    parameters = inspect.signature(condition).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return _MOST_ARGUMENTS
    return sum(
        p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
        for p in parameters
    )


class MappingConditionIndexRange(BaseModel):
    """A condition of `map_if`: the index is in a slice of the sequence."""

    start: int = 0
    stop: int | None = None
    step: int = 1

    def __call__(self, idx: int, _: Sample, seq: SamplesSequence) -> bool:
        """Tells whether the index is in the slice."""
        return idx in range(len(seq))[self.start : self.stop : self.step]


class MappingConditionProbability(BaseModel):
    """A condition of `map_if`: true for a random part of the samples."""

    probability: float = Field(alias="p", ge=0, le=1)
    seed: int | None = None

    _random: random.Random = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Starts the random numbers."""
        self._random = random.Random(self.seed)

    def __call__(self) -> bool:
        """Draws a number."""
        return self._random.random() < self.probability


@piped_sequence
class EnumeratedSequence(PipedSequence, title="enumerate"):
    """Adds to each sample an item with its index."""

    keeps_indices = True

    idx_key: str = "~idx"
    item_cls: ItemClass = TxtNumpyItem

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample with its index in it."""
        return self.source.get_sample(idx).set_item(self.idx_key, self.item_cls.make_new(idx))
