"""A transform as the ledger notes it: its canonical specification, and where its code is."""

import functools
import os
import sys
import types
from collections.abc import Iterator
from datetime import date, datetime
from enum import Enum
from pathlib import PosixPath, WindowsPath
from types import NoneType
from typing import Any

import numpy as np
from pydantic import BaseModel, Secret, SecretBytes, SecretStr

from prefect_pipestream.sequences.building import argument_name
from prefect_pipestream.sequences.stage import (
    FunctionStage,
    SampleStage,
    StageCompose,
    StageLambda,
)
from prefect_pipestream.underfolder.ledger.plain import HIDDEN, plain

_OWN_PACKAGE = __name__.partition(".")[0]
_PLAIN = (NoneType, bool, int, float, str, bytes, date, datetime, PosixPath, WindowsPath)
_NAMED = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType)


def noted_transform(stage: SampleStage) -> Any:
    """The specification of a stage as plain JSON, of some 8,000 characters at most.

    `resolve_stage` makes an equal stage of it, where nothing had to be cut or hidden and all is
    named. A callable is told by its module and name. Secrets of pydantic and of Prefect, fields
    that are not to be shown (``repr=False``), and what is named like a secret are not told.
    """
    return plain(stage, opened=_opened)


def noted_value(value: Any) -> Any:
    """An argument, such as encoder options, likewise."""
    return plain(value, opened=_opened)


def own_files(stage: SampleStage) -> Iterator[str]:
    """Yields the files with the code of a transform, but for what this package has itself."""
    for code in _codes_of(stage):
        if not is_own(code):
            path = _file_of(code)
            if path is not None and os.path.isfile(path):
                yield path


def is_own(code: Any) -> bool:
    """Whether a class or function is this package's."""
    return (getattr(code, "__module__", None) or "").partition(".")[0] == _OWN_PACKAGE


def is_data_only(stage: SampleStage) -> bool:
    """Whether a transform is made of this package's stages, with plain values as arguments.

    What such a one does depends on nothing that is in this process alone.
    """
    if not is_own(type(stage)):
        return False
    if isinstance(stage, FunctionStage | StageLambda) or type(stage).__private_attributes__:
        return False  # a private attribute is for what a stage keeps from sample to sample
    values = [getattr(stage, name) for name in type(stage).model_fields]
    return all(map(_is_data, values))


def _is_data(value: Any) -> bool:
    match value:
        case SampleStage():
            return is_data_only(value)
        case type():
            return is_own(value)
    kind = type(value)  # a class that is made from one of these may do anything
    if kind in (list, tuple, set, frozenset):
        return all(map(_is_data, value))
    if kind is dict:
        return all(map(_is_data, (*value, *value.values())))
    return kind in _PLAIN or (isinstance(value, Enum) and _is_data(kind))


def _opened(value: Any) -> Any:
    """Something plainer that stands for a value; see `plain`."""
    if isinstance(value, StageCompose):
        return value.stages
    if isinstance(value, StageLambda):
        return _opened(value.func)
    if isinstance(value, SampleStage):
        return {value.stage_name(): _arguments(value)}
    if isinstance(value, SecretStr | SecretBytes | Secret):
        return HIDDEN
    if isinstance(value, BaseModel):
        return _arguments(value)
    if isinstance(value, functools.partial):
        return {_name_of(value.func): {"args": value.args, **value.keywords}}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return f"<array: {value.dtype}, {'×'.join(map(str, value.shape))}>"
    return _name_of(value) if callable(value) else value


def _arguments(model: BaseModel) -> dict[str, Any]:
    return {
        argument_name(name, field): getattr(model, name) if field.repr else HIDDEN
        for name, field in type(model).model_fields.items()
    }


def _name_of(value: Any) -> str:
    """A callable by its module and name; an object by those of its class."""
    named = value if isinstance(value, _NAMED) else type(value)
    return f"{named.__module__}:{named.__qualname__}"


def _codes_of(value: Any) -> Iterator[Any]:
    """Yields the classes and functions that a transform is made of."""
    if isinstance(value, StageLambda):
        yield from _codes_of(value.func)
    elif isinstance(value, FunctionStage):
        yield type(value).function
    elif isinstance(value, SampleStage):
        yield type(value)
        for name in type(value).model_fields:
            part = getattr(value, name)
            for one in part if isinstance(part, list | tuple) else (part,):
                if isinstance(one, SampleStage):
                    yield from _codes_of(one)
    elif isinstance(value, functools.partial):
        yield from _codes_of(value.func)
    elif isinstance(value, types.MethodType):
        yield value.__func__
    else:
        yield value if isinstance(value, type | types.FunctionType) else type(value)


def _file_of(code: Any) -> str | None:
    """The file of a class or function, also of a script that is no module by this name."""
    file = getattr(sys.modules.get(code.__module__), "__file__", None)
    if isinstance(file, str) and isinstance(code, type):
        return file
    function = code.__call__ if isinstance(code, type) else code
    return function.__code__.co_filename if isinstance(function, types.FunctionType) else None
