"""Lists of operations: `build_pipe` makes a sequence of one, `to_pipe` one of a sequence."""

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel

from prefect_pipestream.errors import PipeBuildingError
from prefect_pipestream.sequences.building import argument_name, split_arguments
from prefect_pipestream.sequences.registry import find_operation, make_pipe, make_source
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.samples_sequence import SamplesSequence
from prefect_pipestream.sequences.stage import SampleStage

PipeSpec = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]
"""A name, {name: arguments}, or a list of these."""


def build_pipe(
    pipe_list: PipeSpec, source: SamplesSequence | type[SamplesSequence] = SamplesSequence
) -> SamplesSequence:
    """Makes a sequence of a list of operations.

    Args:
        pipe_list: "name", {"name": arguments}, or a list of these, applied in order. The
            arguments are a mapping by keyword, a list by position, or else the one argument.
        source: the sequence that the first operation reads; by default, the first operation
            is itself a source.

    Raises:
        PipeBuildingError: a name or an argument is wrong; the message names the operation,
            the argument and what is allowed.
    """
    sequence = source if isinstance(source, SamplesSequence) else None
    for title, arguments in _operations(pipe_list):
        sequence = _add(sequence, title, arguments)
    if sequence is None:
        raise PipeBuildingError("the list of operations is empty: it must begin with a source.")
    return sequence


def _operations(pipe_list: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(pipe_list, str):
        yield pipe_list, None
    elif isinstance(pipe_list, Mapping):
        yield from ((str(title), arguments) for title, arguments in pipe_list.items())
    elif isinstance(pipe_list, list | tuple):
        for one in pipe_list:
            if not isinstance(one, str | Mapping):
                raise PipeBuildingError(_bad_spec(one))
            yield from _operations(one)
    else:
        raise PipeBuildingError(_bad_spec(pipe_list))


def _bad_spec(spec: Any) -> str:
    return (
        f'{spec!r} is not an operation: expected "name", {{"name": arguments}}, or a list of these.'
    )


def _add(sequence: SamplesSequence | None, title: str, arguments: Any) -> SamplesSequence:
    cls, source_field = find_operation(title)
    if source_field is None and sequence is not None:
        raise PipeBuildingError(
            f"{title}: a source can only come first; to join two sequences use `cat` or `zip`."
        )
    if source_field is not None and sequence is None:
        raise PipeBuildingError(
            f"{title}: it needs a sequence to read: begin the list with a source, as in "
            '[{"from_underfolder": "folder"}, …].'
        )
    args, kwargs = split_arguments(arguments)
    if cls.takes_whole_argument:
        args, kwargs = _whole_argument(cls, args, kwargs)
    if sequence is None:
        return make_source(title, args, kwargs)
    return make_pipe(title, sequence, args, kwargs)


def _whole_argument(
    cls: type[SamplesSequence], args: list[Any], kwargs: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Lets `{"select": [0, 2]}` and `{"map": {"invert": {}}}` mean what they look like."""
    if kwargs and not kwargs.keys() & set(cls.model_fields):
        return [kwargs], {}
    if args and not (len(args) == 1 and isinstance(args[0], list | tuple)):
        return [args if len(args) > 1 or not isinstance(args[0], str | Mapping) else args[0]], {}
    return args, kwargs


# -- back to a list --------------------------------------------------------------------------


def to_pipe(sequence: SamplesSequence, recursive: bool, objs_to_str: bool) -> list[dict[str, Any]]:
    """See `SamplesSequence.to_pipe`."""
    pipe = []
    for step, source_field in _chain(sequence):
        arguments = {
            argument_name(name, field): _plain(getattr(step, name), recursive, objs_to_str)
            for name, field in type(step).model_fields.items()
            if name != source_field
        }
        pipe.append({step.name(): arguments})
    return pipe


def describe(sequence: SamplesSequence) -> str:
    """Returns a sequence as the calls that made it, for its repr; long arguments are cut."""
    calls = []
    for step, source_field in _chain(sequence):
        arguments = [
            f"{argument_name(name, field)}={_short(getattr(step, name))}"
            for name, field in type(step).model_fields.items()
            if name != source_field and getattr(step, name) != field.default
        ]
        calls.append(f"{step.name()}({', '.join(arguments)})")
    return ".".join(calls)


def _short(value: Any) -> str:
    if isinstance(value, list | tuple) and value and not isinstance(value[0], int | str):
        return f"<{len(value)} {type(value[0]).__name__}>"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _chain(sequence: SamplesSequence) -> list[tuple[SamplesSequence, str | None]]:
    """The sequence and what it reads, from the source on, each with its source field."""
    chain: list[tuple[SamplesSequence, str | None]] = []
    step: SamplesSequence | None = sequence
    while step is not None:
        title = step.sequence_title
        source_field = find_operation(title).source_field if title else None
        chain.append((step, source_field))
        step = getattr(step, source_field) if source_field else None
    return chain[::-1]


def _plain(value: Any, recursive: bool, objs_to_str: bool) -> Any:
    def plain(part: Any) -> Any:
        return _plain(part, recursive, objs_to_str)

    if isinstance(value, SamplesSequence):
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
