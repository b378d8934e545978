"""A stage applied to some samples."""

import inspect
from collections.abc import Callable
from functools import cached_property

from pydantic import Field, field_validator

from prefect_pipestream.sequences.piped import PipedSequence
from prefect_pipestream.sequences.registry import piped_sequence
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import StageInput, applied

_MOST_ARGUMENTS = 3


@piped_sequence
class ConditionallyMappedSequence(PipedSequence, title="map_if"):
    """Applies a stage to the samples for which a condition holds."""

    keeps_indices = True

    stage: StageInput = Field(description="The stage, or its specification.")
    condition: Callable[..., bool] = Field(
        description="Takes nothing, the index, index and sample, or index, sample and source."
    )

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
