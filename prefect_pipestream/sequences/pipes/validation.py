"""Samples checked against a schema."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from prefect_pipestream.errors import PipeBuildingError, SampleError
from prefect_pipestream.sequences.building import import_member
from prefect_pipestream.sequences.fields import ItemClass
from prefect_pipestream.sequences.piped import PipedSequence
from prefect_pipestream.sequences.registry import piped_sequence
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.samples_sequence import SamplesSequence


class ItemValidationModel(BaseModel):
    """What is expected of the item at one key."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    class_path: ItemClass = Field(description="The item class, or its name.")
    is_optional: bool = Field(True, description="Whether a sample may lack the key.")
    is_shared: bool = Field(False, description="Whether the item is shared.")
    validator: Callable[[Any], Any] | None = Field(
        None, description="Called with the item's value; raises if it is wrong. Only from Python."
    )

    def problem(self, item: Any) -> str | None:
        """Returns what is wrong with the item, None if nothing is."""
        if not isinstance(item, self.class_path):
            return f"is a {type(item).__name__}, expected a {self.class_path.__name__}"
        if item.is_shared != self.is_shared:
            return f"must {'' if self.is_shared else 'not '}be shared"
        if self.validator is not None:
            try:
                self.validator(item())
            except (ValueError, TypeError, AssertionError) as err:
                return f"has a wrong value: {err}"
        return None


class SampleValidationInterface(BaseModel):
    """What is expected of a sample, and when it is checked."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    sample_schema: type[BaseModel] | dict[str, ItemValidationModel] = Field(
        description="A pydantic model class whose fields are keys and whose types are item "
        'classes, or its "package.module:Name"; or a mapping from key to item schema.'
    )
    ignore_extra_keys: bool = Field(
        True, description="Whether keys that a mapping does not have are allowed."
    )
    lazy: bool = Field(True, description="Whether to check a sample when it is read.")
    max_samples: int = Field(
        1, ge=0, description="If not lazy: how many samples to check at once; 0: all."
    )

    @field_validator("sample_schema", mode="before")
    @classmethod
    def _imported(cls, schema: Any) -> Any:
        if not isinstance(schema, str):
            return schema
        member = import_member(schema)
        if not (isinstance(member, type) and issubclass(member, BaseModel)):
            raise PipeBuildingError(f"{schema!r} is not a pydantic model class.")
        return member

    def as_pipe(self) -> dict[str, Any]:
        """Returns the operation that checks samples so, for `build_pipe`."""
        return {"validate_samples": {"sample_schema": self}}

    def append_validator(self, sequence: SamplesSequence) -> SamplesSequence:
        """Returns the sequence with its samples checked."""
        return sequence.validate_samples(sample_schema=self)

    def problems(self, sample: Sample) -> list[str]:
        """Returns what is wrong with the sample."""
        if isinstance(self.sample_schema, type):
            try:
                self.sample_schema(**sample)
            except ValidationError as err:
                return [
                    f"{'.'.join(map(str, each['loc']))}: {each['msg']}"
                    for each in err.errors(include_url=False, include_input=False)
                ]
            return []
        found = []
        for key, schema in self.sample_schema.items():
            if key in sample:
                problem = schema.problem(sample[key])
                found += [f"{key}: {problem}"] if problem else []
            elif not schema.is_optional:
                found.append(f"{key}: is missing")
        if not self.ignore_extra_keys:
            found += [f"{key}: is not expected" for key in sample if key not in self.sample_schema]
        return found


@piped_sequence
class ValidatedSequence(PipedSequence, title="validate_samples"):
    """Checks each sample against a schema.

    Raises:
        SampleError: If a sample does not satisfy the schema; when the sequence is made if the
            schema is not lazy, else when the sample is read.
    """

    keeps_indices = True

    sample_schema: SampleValidationInterface

    @field_validator("sample_schema", mode="before")
    @classmethod
    def _wrapped(cls, schema: Any) -> Any:
        """Takes the schema alone, too."""
        if isinstance(schema, SampleValidationInterface):
            return schema
        if isinstance(schema, Mapping) and "sample_schema" in schema:
            return schema
        return {"sample_schema": schema}

    def model_post_init(self, context: Any) -> None:
        """Checks the first samples, if not lazy."""
        if not self.sample_schema.lazy:
            size, most = self.source.size(), self.sample_schema.max_samples
            for idx in range(min(most, size) if most else size):
                self._checked(idx)

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample, if it satisfies the schema or was checked before."""
        return self._checked(idx) if self.sample_schema.lazy else self.source.get_sample(idx)

    def _checked(self, idx: int) -> Sample:
        sample = self.source.get_sample(idx)
        problems = self.sample_schema.problems(sample)
        if problems:
            raise SampleError(f"sample {idx} does not satisfy its schema: {'; '.join(problems)}.")
        return sample
