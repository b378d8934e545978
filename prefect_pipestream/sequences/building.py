"""Building stages, sources and pipes from names and plain arguments.

Operations come from YAML files, UI forms and deployment parameters, so every mistake in
them becomes a `PipeBuildingError` that names the operation, the argument and what is allowed.
"""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from prefect_pipestream.errors import PipeBuildingError

M = TypeVar("M", bound=BaseModel)


def construct(
    cls: type[M],
    operation: str,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
) -> M:
    """Makes an operation's model from arguments by position and by keyword.

    Args:
        cls: The model to make.
        operation: Its name, for messages.
        args: Arguments by position, in the order of the model's fields.
        kwargs: Arguments by keyword.
        given: Fields that are set by the caller of this function, not by the user.

    Raises:
        PipeBuildingError: If an argument is unknown, missing, doubled or of a wrong value.
    """
    given, values = given or {}, dict(kwargs or {})
    fields = {argument_name(n, f): f for n, f in cls.model_fields.items() if n not in given}
    args = tuple(args)
    if len(args) > len(fields):
        raise PipeBuildingError(
            f"{operation}: {len(args)} arguments were given. {_allowed(fields)}"
        )
    for name, value in zip(fields, args, strict=False):
        if name in values:
            raise PipeBuildingError(f"{operation}: argument {name!r} was given twice.")
        values[name] = value
    unknown = [name for name in values if name not in fields]
    if unknown:
        hint = suggestion(unknown[0], fields)
        raise PipeBuildingError(
            f"{operation}: no argument {unknown[0]!r}.{hint} {_allowed(fields)}"
        )
    try:
        return cls(**values, **given)
    except PipeBuildingError as err:
        raise PipeBuildingError(f"{operation}: {err}") from err
    except ValidationError as err:
        raise PipeBuildingError(f"{operation}: {_explain(err)} {_allowed(fields)}") from err
    except TypeError as err:  # a model with a constructor of its own lacks an argument
        raise PipeBuildingError(f"{operation}: {err}. {_allowed(fields)}") from err


def argument_name(name: str, field: FieldInfo) -> str:
    """The name by which users give a field: its alias, if it has one."""
    return field.alias or name


def suggestion(name: object, known: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" if a known name is close, else nothing."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def import_member(path: str) -> Any:
    """Imports what `package.module:name` names.

    Raises:
        PipeBuildingError: If the module cannot be imported or has no such name.
    """
    module_name, _, name = path.partition(":")
    if not name.isidentifier() or not all(p.isidentifier() for p in module_name.split(".")):
        raise PipeBuildingError(f"{path!r} is not of the form 'package.module:name'.")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as err:  # a module runs what it likes when it is imported
        raise PipeBuildingError(
            f"module {module_name!r} of {path!r} cannot be imported: {type(err).__name__}: {err}. "
            "It must be installed, or on PYTHONPATH, where the work is done."
        ) from err
    if not hasattr(module, name):
        known = [n for n in vars(module) if not n.startswith("_")]
        raise PipeBuildingError(f"module {module_name!r} has no {name!r}.{suggestion(name, known)}")
    return getattr(module, name)


def split_arguments(arguments: Any) -> tuple[list[Any], dict[str, Any]]:
    """A mapping goes by keyword, a list by position, None is no argument, the rest is one."""
    if arguments is None:
        return [], {}
    if isinstance(arguments, Mapping):
        return [], {str(name): value for name, value in arguments.items()}
    if isinstance(arguments, list | tuple):
        return list(arguments), {}
    return [arguments], {}


def _explain(err: ValidationError) -> str:
    """One sentence for each thing that is wrong."""
    sentences = []
    for detail in err.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "missing":
            sentences.append(f"argument {where!r} is missing.")
            continue
        message = detail["msg"].removeprefix("Value error, ").rstrip(".")
        got = repr(detail["input"])
        got = got if len(got) <= 80 else got[:77] + "..."
        sentences.append(f"argument {where!r} = {got}: {message}." if where else f"{message}.")
    return " ".join(sentences)


def _allowed(fields: Mapping[str, FieldInfo]) -> str:
    if not fields:
        return "It takes no arguments."
    return f"Arguments: {', '.join(_describe(name, f) for name, f in fields.items())}."


def _describe(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return f"{name} (required)"
    if field.default_factory is not None:
        return name
    return f"{name}={field.default!r}"
