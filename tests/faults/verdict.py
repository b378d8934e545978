"""What became of a dataset: torn, lost, done twice, littered, or as it should be."""

import gc
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.underfolder import Run
from prefect_pipestream.underfolder.commits.apply import recover
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.ledger.run import runs_of
from tests.dataset_files import files_outside_private
from tests.faults.cases import SAMPLES, Case, _streams
from tests.faults.injecting import Ending

_AS_IT_WAS = "as it was before this step"
KINDS = ("torn", "lost", "twice", "stray", "foreign")
"""A sample half old and half new; a file or an undo gone, or a success that was none; a change
made or noted twice; files that nobody needs after the next writer; an exception that is no
`PipestreamError`."""

Contents = dict[str, tuple[bytes, int]]
Exact = dict[str, tuple[bytes, int, int]]
Problem = tuple[str, str]

_KNOWN = re.compile(
    r"""lock | ledger\.lock | journal | claim\.json | staged | log | runs | review | aside(/.*)?
    | runs/[^/]+ | runs/[^/]+/(run|attempt)\.json | runs/[^/]+/(done|undo|dropped|compact-\d+)
    | runs/[^/]+/done/[^/]+ | runs/[^/]+/done/[^/]+/[0-9a-f]{16}-[0-9a-f]{6}\.json
    | runs/[^/]+/undo/[^/]+(/[^/]+\.(png|jpg|jpeg|txt|ya?ml))?
    | runs/[^/]+/compact-\d+/(samples\.npz|failures\.jsonl\.gz|files\.jsonl\.gz)
    | seen | seen/[^/]+\.npz
    | review/[^/]+(/staged(/[^/]+\.(png|jpg|jpeg|txt|ya?ml))?|/review\.json)?""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Expected:
    """The states between which an action leads."""

    before: Contents
    after: Contents
    pristine: Exact
    prepared: Exact
    twin: Exact
    nothing: Exact = field(default_factory=dict)


def files_of(root: Path) -> Iterator[Path]:
    if root.exists():
        yield from files_outside_private(root)


def contents(root: Path) -> Contents:
    """Every file of a dataset but the private ones: content and, where it is kept, mode."""
    keeps = root.name == "dataset"  # a new one has links to its source's files, or new copies
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mode if keeps else 0)
        for path in files_of(root)
    }


def exact(root: Path) -> Exact:
    """The same, with the time of its last change."""
    return {
        str(path.relative_to(root)): (
            path.read_bytes(),
            path.stat().st_mode,
            path.stat().st_mtime_ns,
        )
        for path in files_of(root)
    }


def judge(case: Case, folder: Path, ending: Ending, expected: Expected) -> list[Problem]:
    """What is wrong after an action that something happened to. Repeats it, and takes it back."""
    try:
        return list(_judged(case, folder, ending, expected))
    finally:
        _streams.clear()


def _judged(case: Case, folder: Path, ending: Ending, expected: Expected) -> Iterator[Problem]:
    root = folder / case.target
    if ending.outcome == "foreign":
        yield "foreign", ending.message
    try:
        recover(os.fspath(root))
    except Exception as error:  # noqa: BLE001 # it is what is looked for
        yield "lost", f"the next writer cannot go on: {error!r}"
        return
    found = contents(root)
    yield from _differences(case, found, expected)
    if ending.outcome == "ok" and found != expected.after:
        yield "lost", "a success, and not done"
    if ending.message.endswith(_AS_IT_WAS) and len(case.units) == 1 and found != expected.before:
        yield "twice", f"said to be as it was, and is not: {ending.message}"
    yield from _ledger(case, root, found, expected)
    for path in folder.glob(".*"):  # what a creator left is a minute old by now
        os.utime(path, (0, 0))
    try:
        case.act(folder)
        case.look(folder)
        _streams.clear()
        gc.collect()
        recover(os.fspath(root))
    except Exception as error:  # noqa: BLE001 # it is what is looked for
        yield "lost", f"it cannot be repeated: {error!r}"
        return
    found = contents(root)
    if found != expected.after:
        yield _kind(found, expected), f"not as after once repeated: {_changed(found, expected)}"
    yield from _ledger(case, root, found, expected)
    yield from _strays(folder, root)
    for step, name in case.steps:
        try:
            step(folder)
        except Exception as error:  # noqa: BLE001 # it is what is looked for
            yield "lost", f"it cannot be taken back: {error!r}"
            return
        if exact(root) != getattr(expected, name):
            yield "lost", f"not exactly the {name} dataset after {step.__name__}"
    gc.collect()
    recover(os.fspath(root))
    yield from _strays(folder, root)
    if exact(folder / "twin") != expected.twin:
        yield "lost", "files of another dataset, shared by hard link, were changed"


def _of_unit(contents: Contents, unit: tuple[int, ...]) -> Contents:
    starts = tuple(f"data/{idx:06d}_" for idx in unit)
    return {name: text for name, text in contents.items() if name.startswith(starts)}


def _differences(case: Case, found: Contents, expected: Expected) -> Iterator[Problem]:
    """Units that are neither as before nor as after."""
    for unit in case.units:
        now, old, new = (_of_unit(c, unit) for c in (found, expected.before, expected.after))
        if now not in (old, new):
            gone = (old.keys() & new.keys()) - now.keys()
            yield ("lost" if gone else "torn"), f"samples {unit} are half changed; gone: {gone}"
    shared = {name for name in expected.before.keys() & expected.after.keys() if "/" not in name}
    if shared - found.keys():
        yield "lost", f"{shared - found.keys()}"


def _kind(found: Contents, expected: Expected) -> str:
    if expected.after.keys() - found.keys():
        return "lost"
    labels = [text for name, (text, _) in found.items() if name.endswith("_label.txt")]
    return "twice" if any(float(text) >= 2000 for text in labels) else "torn"


def _changed(found: Contents, expected: Expected) -> list[str]:
    names = found.keys() | expected.after.keys()
    return sorted(name for name in names if found.get(name) != expected.after.get(name))


def _ledger(case: Case, root: Path, found: Contents, expected: Expected) -> Iterator[Problem]:
    """The ledger says of each sample what became of it."""
    if case.run is None or not root.exists():
        return
    before, after = expected.before, expected.after
    done = Run.of(root, case.run).done_indices()
    for idx in range(SAMPLES):
        now, old, new = (_of_unit(c, (idx,)) for c in (found, before, after))
        if old == new:
            continue
        was_done = case.name.startswith("rollback")
        if now == old and (idx in done) != was_done:
            yield "lost", f"sample {idx} is as before, and the ledger says otherwise"
        if now == new and (idx in done) == was_done:
            yield "twice", f"sample {idx} is as after, and the ledger says otherwise"


def _strays(folder: Path, root: Path) -> Iterator[Problem]:
    """What lies about that no layout knows and no commit needs."""
    names = {path.name for path in folder.iterdir()} - {"dataset", "twin", root.name}
    for name in sorted(names):
        yield "stray", f"beside the dataset: {name}"
    for path in root.glob("data/.*"):
        yield "stray", str(path)
    private = root / ".pipestream"
    for path in sorted(private.rglob("*")):
        name = path.relative_to(private).as_posix()
        if not _KNOWN.fullmatch(name):
            yield "stray", name
    yield from _orphans(root)


def _orphans(root: Path) -> Iterator[Problem]:
    """Undo files and notes of commits that are none of their run."""
    layout = Layout.of(root)
    for run in runs_of(layout):
        try:
            ids = {commit.id for commit in run.commits()}
        except DatasetError as error:
            yield "lost", f"the ledger of {run.name} cannot be read: {error}"
            continue
        for kind in ("undo", "dropped"):
            for path in (Path(run.folder) / kind).glob("*"):
                if path.name not in ids:
                    yield "stray", f"{kind} of no commit: {path.relative_to(root)}"
