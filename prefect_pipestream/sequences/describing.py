"""How a sequence was made: as a list of operations, and as text."""

from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from prefect_pipestream.sequences.building import argument_name
from prefect_pipestream.sequences.registry import is_sequence
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage

if TYPE_CHECKING:
    from prefect_pipestream.sequences.samples_sequence import SamplesSequence


def to_pipe(
    sequence: "SamplesSequence", recursive: bool, objs_to_str: bool
) -> list[dict[str, Any]]:
    """See `SamplesSequence.to_pipe`."""
    return [
        {
            step.name(): {
                name: _plain(value, recursive, objs_to_str) for name, value, _ in _arguments(step)
            }
        }
        for step in _chain(sequence)
    ]


def describe(sequence: "SamplesSequence") -> str:
    """Returns a sequence as the calls that made it, for its repr; long arguments are cut."""
    calls = []
    for step in _chain(sequence):
        told = [
            f"{name}={_short(value)}" for name, value, usual in _arguments(step) if value != usual
        ]
        calls.append(f"{step.name()}({', '.join(told)})")
    return ".".join(calls)


def _arguments(step: "SamplesSequence") -> Iterator[tuple[str, Any, Any]]:
    """Each argument's name, value and default, but for the sequence that is read."""
    for name, field in type(step).model_fields.items():
        if name != step.source_field:
            yield argument_name(name, field), getattr(step, name), field.default


def _short(value: Any) -> str:
    if isinstance(value, list | tuple) and value and not isinstance(value[0], int | str):
        return f"<{len(value)} {type(value[0]).__name__}>"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _chain(sequence: "SamplesSequence") -> list["SamplesSequence"]:
    """The sequence and what it reads, from the source on."""
    chain = [sequence]
    while chain[-1].source_field is not None:
        chain.append(getattr(chain[-1], chain[-1].source_field))
    return chain[::-1]


def _plain(value: Any, recursive: bool, objs_to_str: bool) -> Any:
    def plain(part: Any) -> Any:
        return _plain(part, recursive, objs_to_str)

    if is_sequence(value):
        return to_pipe(value, True, objs_to_str) if recursive else value
    if isinstance(value, SampleStage):
        return {
            name: {n: plain(v) for n, v in arguments.items()}
            for name, arguments in value.to_spec().items()
        }
    if isinstance(value, Sample):
        return {key: str(item) for key, item in value.items()} if objs_to_str else value
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return _as_text(value) if objs_to_str else value


def _as_text(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}"
    return str(value)
