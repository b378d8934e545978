"""Lists of operations, of which `build_pipe` makes a sequence."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prefect_pipestream.errors import PipeBuildingError
from prefect_pipestream.sequences.building import split_arguments
from prefect_pipestream.sequences.registry import find_operation, make_pipe, make_source
from prefect_pipestream.sequences.samples_sequence import SamplesSequence

PipeSpec = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]
"""A name, {name: arguments}, or a list of these."""


def build_pipe(
    pipe_list: PipeSpec, source: SamplesSequence | type[SamplesSequence] = SamplesSequence
) -> SamplesSequence:
    """Makes a sequence of a list of operations.

    Args:
        pipe_list: "name", {"name": arguments}, or a list of these, applied in order. The
            arguments are a mapping by keyword, a list by position, or else the one argument.
        source: The sequence that the first operation reads; by default, the first operation is
            itself a source.

    Raises:
        PipeBuildingError: If a name or an argument is wrong; the message names the operation, the
            argument and what is allowed.
    """
    sequence = source if isinstance(source, SamplesSequence) else None
    for title, arguments in operations_of(pipe_list):
        sequence = _add(sequence, title, arguments)
    if sequence is None:
        raise PipeBuildingError("the list of operations is empty: it must begin with a source.")
    return sequence


def operations_of(pipe_list: Any) -> Iterator[tuple[str, Any]]:
    """Yields the name and the arguments of each operation.

    Raises:
        PipeBuildingError: If it is no list of operations.
    """
    if isinstance(pipe_list, str):
        yield pipe_list, None
    elif isinstance(pipe_list, Mapping):
        yield from ((str(title), arguments) for title, arguments in pipe_list.items())
    elif isinstance(pipe_list, list | tuple):
        for one in pipe_list:
            if not isinstance(one, str | Mapping):
                raise PipeBuildingError(_bad_spec(one))
            yield from operations_of(one)
    else:
        raise PipeBuildingError(_bad_spec(pipe_list))


def _bad_spec(spec: Any) -> str:
    return (
        f'{spec!r} is not an operation: expected "name", {{"name": arguments}}, or a list of these.'
    )


def _add(sequence: SamplesSequence | None, title: str, arguments: Any) -> SamplesSequence:
    cls = find_operation(title)
    if cls.source_field is None and sequence is not None:
        raise PipeBuildingError(
            f"{title}: a source can only come first; to join two sequences use `cat` or `zip`."
        )
    if cls.source_field is not None and sequence is None:
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
