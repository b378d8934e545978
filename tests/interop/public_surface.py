"""The public surface of the reference beside ours: what is the same, different on purpose, missing.

`python public_surface.py PACKAGE` prints a package's surface as JSON: its public modules, and of
each the classes, functions, methods and arguments, by introspection, with no text of theirs. That
of the reference is kept in `reference_surface.json`; `python -m tests.interop.public_surface`
takes it anew and writes the page `docs/reference-table.md`.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import sys
import types
import warnings
from collections import Counter
from collections.abc import Iterator
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
STORED = HERE / "reference_surface.json"
REASONS = HERE / "reference_differences.json"
PAGE = HERE.parents[1] / "docs" / "reference-table.md"
REFERENCE, OURS = "pipelime", "prefect_pipestream"

#: Rooms of the reference that have no counterpart: its command line, its DAG engine, its
#: configuration language and its remotes.
LEFT_OUT = ("choixe", "cli", "commands", "piper", "remotes")
#: Methods with these names count as public, too.
OPERATORS = {f"__{name}__" for name in ("call", "len", "iter", "getitem", "contains", "enter")} | {
    f"__{name}__" for name in ("add", "sub", "and", "or", "xor", "rshift", "lshift", "exit")
}

Surface = dict[str, dict[str, Any]]


# -- taking a surface ------------------------------------------------------------------------


def surface_of(package: str) -> Surface:
    """Every public name of a package, by module and by its place in the module."""
    warnings.simplefilter("ignore")
    _stand_in_for_torch()
    return {
        module.removeprefix(f"{package}."): _names_in(importlib.import_module(module), package)
        for module in _modules_of(package)
    }


def _stand_in_for_torch() -> None:
    """Lets a module that needs PyTorch be imported without it."""
    try:
        importlib.import_module("torch")
    except ImportError:
        names = ("torch", "torch.utils", "torch.utils.data")
        torch, utils, data = (types.ModuleType(name) for name in names)
        data.Dataset = type("Dataset", (), {"__class_getitem__": classmethod(lambda c, _: c)})  # type: ignore[attr-defined]
        torch.utils, utils.data = utils, data  # type: ignore[attr-defined]
        sys.modules.update(zip(names, (torch, utils, data), strict=True))


def _modules_of(package: str) -> Iterator[str]:
    yield package
    for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        parts = found.name.split(".")[1:]
        if parts[0] not in LEFT_OUT and not any(part.startswith("_") for part in parts):
            yield found.name


def _names_in(module: types.ModuleType, package: str) -> dict[str, Any]:
    """What a module defines; of a package's `__init__` also what it takes from its modules."""
    found: dict[str, Any] = {}
    for name in dir(module):
        value = getattr(module, name)
        home = str(getattr(value, "__module__", ""))
        is_own = home == module.__name__
        is_taken = hasattr(module, "__path__") and home.startswith(f"{package}.")
        if not name.isidentifier() or name.startswith("_") or not (is_own or is_taken):
            continue
        if isinstance(value, type):
            found[name] = ["class", _arguments(value), list(getattr(value, "model_fields", ()))]
            if is_own:
                found |= {f"{name}.{n}": m for n, m in _members_of(value, package)}
        elif inspect.isroutine(value):
            found[name] = ["function", _arguments(value)]
    return found


def _members_of(cls: type, package: str) -> Iterator[tuple[str, Any]]:
    """What a class adds to its bases in the package: methods, properties, fields.

    Fields that are arguments of the class are told by those, and validators by nothing.
    """
    inherited = {n for b in cls.__mro__[1:] if b.__module__.startswith(package) for n in vars(b)}
    fields = getattr(cls, "model_fields", {})
    told = {name for name, _, _ in _arguments(cls) or ()}
    skipped = inherited | _validators_of(cls) | told.intersection(fields)
    for name in dict.fromkeys([*vars(cls), *fields]):
        is_public = name in OPERATORS or not name.startswith(("_", "model_"))
        if is_public and name not in skipped:
            yield name, _member(fields.get(name, inspect.getattr_static(cls, name, None)))


def _validators_of(cls: type) -> set[str]:
    decorators = getattr(cls, "__pydantic_decorators__", None)
    if decorators is None:
        return set()
    return {*decorators.field_validators, *decorators.model_validators, *decorators.validators}


def _member(value: Any) -> list[Any]:
    function = getattr(value, "__func__", value)
    if not inspect.isfunction(function):
        return ["attribute", None]
    skipped = 0 if isinstance(value, staticmethod) else 1
    return ["method", _arguments(function, skipped)]


def _arguments(function: Any, skipped: int = 0) -> list[list[Any]] | None:
    """Name, kind and default of each argument; None where they cannot be asked for."""
    if isinstance(function, type) and issubclass(function, Enum | BaseException):
        return None  # which Python gives them
    try:
        parameters = list(inspect.signature(function).parameters.values())[skipped:]
    except (TypeError, ValueError):
        return None
    made = _made_defaults(function)
    return [
        [p.name, p.kind.name, None if p.default is p.empty else _shown(made.get(p.name, p.default))]
        for p in parameters
    ]


def _made_defaults(model: Any) -> dict[str, Any]:
    """What a pydantic model makes for the arguments that it has a factory for."""
    fields = getattr(model, "model_fields", None) or {}
    return {
        field.alias or name: field.default_factory()
        for name, field in fields.items()
        if field.default_factory is not None
    }


def _shown(default: Any) -> str:
    if isinstance(default, type):
        return default.__name__
    if hasattr(default, "to_dict"):  # a sample
        return f"{type(default).__name__}()"
    kind = getattr(default, "value", None)
    if isinstance(kind, type):  # a type in a model of its own
        return kind.__name__
    return re.sub(r" at 0x[0-9a-f]+", "", repr(default))


# -- comparing -------------------------------------------------------------------------------


class Row(NamedTuple):
    """One name of the reference, and what it is here."""

    name: str
    status: str
    why: str


def rows() -> list[Row]:
    """Every public name of the reference, compared."""
    warnings.simplefilter("ignore")
    _stand_in_for_torch()
    stored: Surface = json.loads(STORED.read_text())
    reasons: dict[str, str] = json.loads(REASONS.read_text())
    found = []
    for module, names in stored.items():
        # A module that defines nothing is one that can be imported.
        for name, (kind, arguments, *fields) in (names or {"": ["module", None]}).items():
            full = f"{module}.{name}".rstrip(".")
            problem = _problem(module, name, kind, arguments)
            for field in chain(*fields) if problem is None else ():
                problem = problem or _problem(module, f"{name}.{field}", "attribute", None)
            reason = _reason_for(full, reasons)
            if problem is None:
                found.append(Row(full, "same", ""))
            elif reason is not None:
                found.append(Row(full, "on purpose", reason))
            else:
                found.append(Row(full, "missing", problem))
    return found


def stale_reasons() -> list[str]:
    """Reasons that no row needs."""
    reasons: dict[str, str] = json.loads(REASONS.read_text())
    needed = {row.name for row in rows() if row.status == "on purpose"}
    return [key for key in reasons if not any(_matches(key, name) for name in needed)]


def _reason_for(name: str, reasons: dict[str, str]) -> str | None:
    keys = [key for key in reasons if _matches(key, name)]
    return reasons[max(keys, key=len)] if keys else None


def _matches(key: str, name: str) -> bool:
    return name == key or (key.endswith(".*") and f"{name}.".startswith(key[:-1]))


def _problem(module: str, name: str, kind: str, arguments: list[list[Any]] | None) -> str | None:
    """What of the reference does not work here; None if all does."""
    try:
        value: Any = importlib.import_module(OURS if module == REFERENCE else f"{OURS}.{module}")
    except ImportError:
        return "no such module"
    *path, last = name.split(".")
    for part in path:
        value = getattr(value, part, None)
    if not last:
        return None
    if path and kind == "attribute":
        found = inspect.getattr_static(value, last, None)
        if inspect.isfunction(getattr(found, "__func__", found)):
            return "a method, not an attribute"
        known = {**getattr(value, "model_fields", {}), **getattr(value, "__annotations__", {})}
        return None if found is not None or last in known else f"no attribute `{last}`"
    if not hasattr(value, last):
        return f"no such {kind}"
    owner, value = value, getattr(value, last)
    if not (isinstance(value, type) if kind == "class" else callable(value)):
        return f"no {kind}"
    if arguments is None:
        return None
    if last in OPERATORS:  # which are called by position
        return None
    skipped = int(bool(path) and not _is_bound(owner, last))
    return _difference(arguments, _arguments(value, skipped), _other_names(value))


def _is_bound(owner: Any, name: str) -> bool:
    return not inspect.isfunction(inspect.getattr_static(owner, name))


def _other_names(function: Any) -> dict[str, str]:
    return dict(getattr(function, "also_named", {}))


def _difference(
    theirs: list[list[Any]], ours: list[list[Any]] | None, other_names: dict[str, str]
) -> str | None:
    """What a call that the reference takes could not do here."""
    if ours is None:
        return None
    by_name = {name: (kind, default) for name, kind, default in ours}
    positional = [name for name, kind, _ in ours if kind.startswith("POSITIONAL")]
    takes = {kind for _, kind, _ in ours}
    place = -1
    for name, kind, default in theirs:
        known = other_names.get(name, name)
        place += kind.startswith("POSITIONAL")
        if kind.startswith("VAR"):
            if kind not in takes:
                return f"no *{name}"
        elif kind == "POSITIONAL_ONLY" or name.startswith("__"):
            if place >= len(positional) and "VAR_POSITIONAL" not in takes:
                return f"takes no argument {place + 1}"
        elif known not in by_name:
            if "VAR_KEYWORD" not in takes:
                return f"no argument `{name}`"
        elif kind.startswith("POSITIONAL") and positional[place : place + 1] != [known]:
            if "VAR_POSITIONAL" not in takes:
                return f"`{name}` cannot be given by position"
        elif default not in (None, "<factory>", by_name[known][1]):
            return f"`{name}={by_name[known][1]}` instead of `{name}={default}`"
    needed = [n for n, k, d in ours if d is None and not k.startswith("VAR")]
    given = {other_names.get(name, name) for name, _, _ in theirs}
    extra = [
        name for name in needed if name not in given and "POSITIONAL_ONLY" not in by_name[name]
    ]
    return f"needs `{extra[0]}`" if extra and len(needed) > len(theirs) else None


# -- the page --------------------------------------------------------------------------------

_HEAD = """# The reference, name by name

Every public name of `{package}-python` {version}, and what it is here after changing
`{package}.` to `{ours}.`. Made by `python -m tests.interop.public_surface`, by
introspection: do not edit it. Left out are the rooms that have no counterpart: its command line,
its DAG engine, its configuration language and its remotes. Of a plain module the names that it
defines count, of a package also those that it takes from its modules.

{same} names are the same: each call that the reference takes is taken, with the same defaults.
{purpose} are different on purpose, {helpers} of them in `utils`; the reason stands beside them.
{missing} are missing. How it behaves is compared by the examples in `tests/interop`; where that
differs, see [coming from pipelime](coming-from-pipelime.md).
"""


def page() -> str:
    """The page of the docs."""
    found = rows()
    count = Counter(row.status for row in found)
    lines = [
        _HEAD.format(
            package=REFERENCE,
            ours=OURS,
            version="3.0.0",
            same=count["same"],
            purpose=count["on purpose"],
            missing=count["missing"],
            helpers=sum(row.name.startswith("utils") and bool(row.why) for row in found),
        )
    ]
    stored: Surface = json.loads(STORED.read_text())
    at = iter(found)
    for module, names in stored.items():
        lines += [f"## {module}", "", "| name | here | why |", "| --- | --- | --- |"]
        for _ in names or [module]:
            row = next(at)
            name = row.name.removeprefix(f"{module}.")
            lines.append(f"| `{name}` | {row.status} | {row.why} |")
        lines.append("")
    return "\n".join(lines)


def _by_line(surface: Surface) -> str:
    """A surface as JSON, each name in a line of its own."""
    modules = []
    for module, names in surface.items():
        lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in names.items()]
        modules.append(f" {json.dumps(module)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(modules) + "\n}\n"


def main() -> None:
    """Prints a package's surface, or takes the reference's anew and writes the page."""
    if len(sys.argv) > 1:
        print(json.dumps(surface_of(sys.argv[1])))
        return
    import subprocess

    from tests.interop.reference_env import reference_python

    command = [str(reference_python()), str(Path(__file__).resolve()), REFERENCE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE.parent)
    STORED.write_text(_by_line(json.loads(done.stdout)))
    PAGE.write_text(page())
    for row in rows():
        if row.status == "missing":
            print(f"{row.name}: {row.why}")


if __name__ == "__main__":
    main()
