"""The rooms of the package, from the ground up, and that each imports only those before it."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

import prefect_pipestream
import prefect_pipestream.flows

ROOT = Path(prefect_pipestream.__file__).parent
NAME = ROOT.name

# From the ground up: a room imports from itself and from those before it.
ROOMS = (
    "errors",
    "layouts",
    "storage",
    "items",
    "underfolder.format",
    "underfolder.ledger",
    "underfolder.commits",
    "underfolder.runs",
    "underfolder.catalog",
    "underfolder.checks",
    "underfolder.bucket",
    "underfolder.opening",
    "underfolder",
    "sequences",
    "stages",
    "exporting",
    "views",
    "validation",
    "review",
    "credentials",
    "blocks",
    "browser",
    "reporting",
    "work",
    "tasks",
    "flows",
    "cli",
    "__main__",
)
# The first that may import Prefect, and all after it.
FIRST_WITH_PREFECT = "credentials"


def modules() -> dict[str, Path]:
    """Every module by its name below the package, but for the root's own public names."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = path
    return found


def imports_of(path: Path, *, for_types: bool = True) -> Iterator[str]:
    """All that a module imports, wherever in it: inside of functions too, and only for types."""
    tree = ast.parse(path.read_text())
    nodes = list(ast.walk(tree))
    if not for_types:
        blocks = (node for node in nodes if isinstance(node, ast.If))
        skipped = [block for block in blocks if "TYPE_CHECKING" in ast.dump(block.test)]
        inside = {id(node) for block in skipped for node in ast.walk(block)}
        nodes = [node for node in nodes if id(node) not in inside]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows(*, for_types: bool = True) -> dict[str, set[str]]:
    """Which modules of the package each module imports."""
    known = modules()
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        imported = [one.removeprefix(f"{NAME}.") for one in imports_of(path, for_types=for_types)]
        targets = {one if one in known else one.rpartition(".")[0] for one in imported}
        found[name] = targets.intersection(known) - {name}
    return found


def room_of(module: str) -> str:
    """The room that a module is in: the innermost that has a place of its own."""
    return max((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), key=len)


def test_every_module_is_in_a_room_that_has_its_place() -> None:
    assert {room_of(module) for module in modules()} == set(ROOMS)


def test_a_room_imports_only_rooms_before_it() -> None:
    up = [
        f"{module} imports {target}"
        for module, targets in arrows().items()
        for target in targets
        if ROOMS.index(room_of(target)) > ROOMS.index(room_of(module))
    ]
    assert up == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    # In one room, two modules may name each other's classes in their types.
    graph = arrows(for_types=False)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" → ".join(error.args[1])) from None


def test_the_data_layer_does_not_know_prefect() -> None:
    first = ROOMS.index(FIRST_WITH_PREFECT)
    knowing = [
        module
        for module, path in modules().items()
        if ROOMS.index(room_of(module)) < first
        and any(name.partition(".")[0] == "prefect" for name in imports_of(path))
    ]
    assert knowing == []


def test_the_browser_knows_prefect_in_one_module_and_loads_it_when_needed() -> None:
    knowing = {
        module
        for module, path in modules().items()
        if room_of(module) == "browser"
        and any(name.partition(".")[0] == "prefect" for name in imports_of(path))
    }
    assert knowing == {"browser.flow_runs"}
    loaded = "import sys, prefect_pipestream.browser.app; sys.exit('prefect' in sys.modules)"
    subprocess.run([sys.executable, "-c", loaded], check=True)


@pytest.mark.parametrize("package", [prefect_pipestream, prefect_pipestream.flows])
def test_the_public_names_are_to_a_type_checker_what_they_are(package: ModuleType) -> None:
    """They are listed for it, and again as they are loaded."""
    tree = ast.parse(Path(str(package.__file__)).read_text())
    listed = {
        alias.asname: importlib.import_module(str(node.module))
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(f"{NAME}.")
        for alias in node.names
    }
    assert set(listed) == set(package.__all__)
    for name, module in listed.items():
        assert getattr(module, str(name)) is getattr(package, str(name)), name
