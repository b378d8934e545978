"""A fingerprint of a transform: what tells whether it is still the same as in an earlier run."""

import ast
import contextlib
import functools
import hashlib
import inspect
import linecache
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages._canonical import NotPlainError, canonical, tagged, tagged_all

_OWN_PACKAGE = __name__.partition(".")[0]
# Classes of these packages are told by their names; all others also by their source.
_NAMED_PACKAGES = frozenset(
    {_OWN_PACKAGE, "builtins", "abc", "typing", "pydantic", "functools", "collections", "numpy"}
)


def fingerprint(stage: SampleStage | Callable[..., Any]) -> str:
    """Returns a SHA-256 that stays the same as long as a transform does.

    It covers the stage's class and its arguments, of stages inside of it too. Of a function, a
    lambda, a decorated function and a class of one's own it covers the source (for a lambda
    its own expression, so that two on one line differ), its defaults, the variables of its
    closure and the constants and functions of its module that it uses; where no source is to
    be had, the bytecode. It is the same in all processes, but may change with the Python
    version where there is no source.

    What it cannot see: values that are not plain (an open model, say) count by their class
    alone, code of other modules and what files contain not at all.

    Args:
        stage: A stage, or a callable that takes a sample.

    Returns:
        64 hexadecimal digits.
    """
    return hashlib.sha256(_Describer().value(stage)).hexdigest()


class _Describer:
    """Turns values into bytes that stand for them; functions that call each other end."""

    def __init__(self) -> None:
        self._open: dict[int, int] = {}

    def value(self, value: Any) -> bytes:
        try:
            return canonical(value)
        except NotPlainError:
            pass
        known = self._open.get(id(value))
        if known is not None:
            return tagged("again", str(known).encode())
        self._open[id(value)] = len(self._open)
        try:
            return self._compound(value)
        finally:
            del self._open[id(value)]

    def _compound(self, value: Any) -> bytes:
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return tagged_all("method", [self.value(value.__func__), self.value(value.__self__)])
        if isinstance(value, functools.partial):
            parts = [value.func, value.args, value.keywords]
            return tagged_all("partial", map(self.value, parts))
        if isinstance(value, Mapping):
            pairs = (self.value(k) + self.value(v) for k, v in value.items())
            return tagged_all("mapping", sorted(pairs))
        if isinstance(value, list | tuple):
            return tagged_all("list", map(self.value, value))
        if isinstance(value, set | frozenset):
            return tagged_all("set", sorted(map(self.value, value)))
        if isinstance(value, types.ModuleType | types.BuiltinFunctionType):
            return tagged("name", _name_of(value))
        return self._object(value)

    def _object(self, value: Any) -> bytes:
        """A model by its fields; another object by its class and its plain attributes."""
        if isinstance(value, BaseModel):
            arguments = {name: getattr(value, name) for name in type(value).model_fields}
            return tagged_all("model", [self._class(type(value)), self.value(arguments)])
        plain = {}
        for name, attribute in getattr(value, "__dict__", {}).items():
            try:
                plain[name] = canonical(attribute)
            except NotPlainError:
                if isinstance(attribute, types.FunctionType | functools.partial):
                    plain[name] = self.value(attribute)
        return tagged_all("object", [self._class(type(value)), canonical(plain)])

    def _class(self, cls: type) -> bytes:
        parts = [tagged("class", cls.__qualname__.encode())]
        for base in cls.__mro__:
            if _is_named(base):
                parts.append(tagged("base", _name_of(base)))
            else:
                parts.append(self._own_class(base))
        return tagged_all("class", parts)

    def _own_class(self, cls: type) -> bytes:
        # The module does not count: a script is `__main__` here and another one in a worker.
        parts = [tagged("class", cls.__qualname__.encode())]
        try:
            parts.append(tagged("source", inspect.getsource(cls).encode()))
            with_source = True
        except (OSError, TypeError):
            with_source = False
        for name, member in sorted(vars(cls).items()):
            function = getattr(member, "__func__", member)
            if isinstance(function, types.FunctionType):
                if _is_named(function):  # made by pydantic
                    continue
                described = self._used(function) if with_source else [self.value(function)]
                parts.append(tagged_all(name, described))
            elif not with_source and not name.startswith("_"):
                with contextlib.suppress(NotPlainError):
                    parts.append(tagged_all(name, [canonical(member)]))
        return tagged_all("own", parts)

    def _function(self, function: types.FunctionType) -> bytes:
        if _is_named(function):
            return tagged("name", _name_of(function))
        defaults = [function.__defaults__, function.__kwdefaults__]
        parts = [self._code(function.__code__), *map(self.value, defaults), *self._used(function)]
        return tagged_all("function", parts)

    def _used(self, function: types.FunctionType) -> Iterator[bytes]:
        """Yields the variables of the closure, and the module's constants and functions."""
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            try:
                content = self.value(cell.cell_contents)
            except ValueError:  # a variable that has no value yet
                content = b""
            yield tagged_all("closure", [name.encode(), content])
        for name in sorted(_names_used(function.__code__)):
            used = function.__globals__.get(name)
            if isinstance(used, types.FunctionType):
                if used.__module__ == function.__module__:
                    yield tagged_all("uses", [name.encode(), self.value(used)])
            elif isinstance(used, bool | int | float | str | bytes | tuple):
                yield tagged_all("uses", [name.encode(), self.value(used)])

    def _code(self, code: types.CodeType) -> bytes:
        try:
            # Of the code, not of the function: that would look through decorators.
            if code.co_name == "<lambda>":
                return tagged("lambda", _source_of_lambda(code).encode())
            return tagged("source", inspect.cleandoc(inspect.getsource(code)).encode())
        except (OSError, TypeError, SyntaxError, IndentationError):
            return self._bytecode(code)

    def _bytecode(self, code: types.CodeType) -> bytes:
        constants = [
            self._bytecode(one) if isinstance(one, types.CodeType) else self.value(one)
            for one in code.co_consts
        ]
        names = canonical([code.co_names, code.co_varnames, code.co_freevars, code.co_argcount])
        return tagged_all("code", [tagged("bytes", code.co_code), names, *constants])


def _is_named(value: type | types.FunctionType) -> bool:
    return (value.__module__ or "").partition(".")[0] in _NAMED_PACKAGES


def _name_of(value: Any) -> bytes:
    module = getattr(value, "__module__", None) or ""
    if isinstance(value, type) and module.startswith(f"{_OWN_PACKAGE}."):
        module = _OWN_PACKAGE  # in which of its modules a stage is may change
    return f"{module}:{getattr(value, '__qualname__', getattr(value, '__name__', ''))}".encode()


def _names_used(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names_used(constant)
    return names


def _source_of_lambda(code: types.CodeType) -> str:
    """Returns a lambda expression, found in its file by where the code's instructions come from.

    Raises:
        OSError: If the file is not there, or has changed since.
        SyntaxError: If the file has changed so that it cannot be parsed.
    """
    lines = linecache.getlines(code.co_filename)
    if not lines:
        raise OSError(f"{code.co_filename}: there is no source.")
    places = [
        (line, column, end_line, end_column)
        for line, end_line, column, end_column in code.co_positions()
        if line and end_line and end_column and column is not None
    ]
    if not places:
        raise OSError(f"{code.co_filename}: the code does not tell its lines.")
    start = min(place[:2] for place in places)
    end = max(place[2:] for place in places)
    source = "".join(lines)
    found: tuple[tuple[int, int], ast.Lambda] | None = None
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Lambda) or node.lineno != code.co_firstlineno:
            continue
        first = (node.body.lineno, node.body.col_offset)
        last = (node.body.end_lineno, node.body.end_col_offset)
        # Of lambdas inside of each other, the innermost that holds all the instructions.
        if first <= start and last == end and (found is None or found[0] < first):
            found = first, node
    if found is None:
        raise OSError(f"{code.co_filename}: the lambda is not where it was.")
    return ast.get_source_segment(source, found[1]) or ""
