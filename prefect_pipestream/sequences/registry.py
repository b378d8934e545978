"""The registry of sources and pipes: how one is added, found by its name, and made."""

import importlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from prefect_pipestream.errors import PipeBuildingError
from prefect_pipestream.sequences.building import construct, suggestion

if TYPE_CHECKING:
    from prefect_pipestream.sequences.samples_sequence import SamplesSequence

# The operations of `SamplesSequence` itself: for each title the module, in this package, that
# registers it when it is imported. `operations` fills it.
BUILTIN: dict[str, str] = {}


_OPERATIONS: "dict[str, type[SamplesSequence]]" = {}

S = TypeVar("S", bound="SamplesSequence")


def source_sequence(cls: type[S]) -> type[S]:
    """Registers a source: `SamplesSequence.<title>(…)` and `build_pipe` then make it.

    The title is the class's `title`: `class Grid(SamplesSequence, title="grid")`.

    Raises:
        ValueError: If the class has no title, or the title is taken.
    """
    _register(cls, None)
    return cls


def piped_sequence(cls: type[S]) -> type[S]:
    """Registers a pipe: `sequence.<title>(…)` and `build_pipe` then make it.

    The title is the class's `title`. One field, marked `pipe_source=True`, takes the sequence
    that the pipe reads; `PipedSequence` has such a field.

    Raises:
        ValueError: If the class has no title or not one such field, or the title is taken.
    """
    marked = [n for n, f in cls.model_fields.items() if _is_pipe_source(f.json_schema_extra)]
    if len(marked) != 1:
        raise ValueError(
            f"{cls.__qualname__} has {len(marked)} fields marked `pipe_source=True`, expected one."
        )
    _register(cls, marked[0])
    return cls


def _is_pipe_source(extra: Any) -> bool:
    return isinstance(extra, Mapping) and bool(extra.get("pipe_source"))


def _register(cls: "type[SamplesSequence]", source_field: str | None) -> None:
    title = cls.model_config.get("title")
    if not title or not title.isidentifier():
        raise ValueError(f"{cls.__qualname__} has the title {title!r}, expected an identifier.")
    if title not in BUILTIN:
        known = _OPERATIONS.get(title)
        mine = (cls.__module__, cls.__qualname__)
        same = known is not None and (known.__module__, known.__qualname__) == mine
        root = _root_of(cls)
        if hasattr(root, title) and not same:
            raise ValueError(f"the title {title!r} of {cls.__qualname__} is taken: choose another.")
        setattr(root, title, _as_method(title, cls.__doc__, is_source=source_field is None))
    elif not cls.__module__.startswith(f"{__package__}."):
        raise ValueError(f"the title {title!r} of {cls.__qualname__} is taken: choose another.")
    cls.sequence_title, cls.source_field = title, source_field
    _OPERATIONS[title] = cls


def _root_of(cls: "type[SamplesSequence]") -> type:
    """`SamplesSequence` itself, whose methods the operations are."""
    return next(base for base in reversed(cls.__mro__) if "sequence_title" in vars(base))


def is_sequence(value: Any) -> bool:
    """Whether a value is a sequence of samples."""
    return hasattr(type(value), "sequence_title")


def _as_method(title: str, doc: str | None, is_source: bool) -> Any:
    def pipe(self: "SamplesSequence", *args: Any, **kwargs: Any) -> "SamplesSequence":
        return make_pipe(title, self, args, kwargs)

    def source(*args: Any, **kwargs: Any) -> "SamplesSequence":
        return make_source(title, args, kwargs)

    method = source if is_source else pipe
    method.__name__, method.__doc__ = title, doc
    return staticmethod(method) if is_source else method


def operation_names() -> list[str]:
    """Returns the names of all sources and pipes."""
    return [*BUILTIN, *sorted(_OPERATIONS.keys() - BUILTIN.keys())]


def find_operation(title: str) -> "type[SamplesSequence]":
    """Returns the source or pipe of this name.

    Raises:
        PipeBuildingError: If there is none.
    """
    if title not in _OPERATIONS and title in BUILTIN:
        importlib.import_module(f"{__package__}.{BUILTIN[title]}")
    if title not in _OPERATIONS:
        known = operation_names()
        raise PipeBuildingError(
            f"no operation {title!r}.{suggestion(title, known)} Known: {', '.join(known)}."
        )
    return _OPERATIONS[title]


def make_source(title: str, args: Iterable[Any], kwargs: Mapping[str, Any]) -> "SamplesSequence":
    """Makes the source of this name; see `building.construct` for its errors."""
    return construct(find_operation(title), title, args, kwargs)


def make_pipe(
    title: str, source: "SamplesSequence", args: Iterable[Any], kwargs: Mapping[str, Any]
) -> "SamplesSequence":
    """Makes the pipe of this name on top of `source`; see `building.construct` for its errors."""
    cls = find_operation(title)
    return construct(cls, title, args, kwargs, given={cls.source_field or "source": source})
