"""The ledger of a run: what became of each of its samples, read from its done commits."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefect_pipestream.underfolder.layout import Layout, RunLayout
from prefect_pipestream.underfolder.records import CommitRecord, SampleRecord


def note_run(layout: Layout, run_key: str, facts: Mapping[str, Any]) -> None:
    """Writes ``run.json`` of a run that has none yet."""
    run = layout.run(run_key)
    if os.path.exists(run.info):
        return
    os.makedirs(run.done, exist_ok=True)
    text = json.dumps({"run_key": run_key, "started": time.time(), **facts}, indent=1)
    fresh = f"{run.info}.{os.getpid()}-{time.monotonic_ns()}"
    Path(fresh).write_text(text, encoding="utf-8")
    os.replace(fresh, run.info)


def commits_of(run: RunLayout, tag: str | None = None) -> Iterator[CommitRecord]:
    """The done commits of a run (or of one part of it), in the order of their making.

    Raises:
        ValueError: If a record cannot be read.
    """
    tags = [tag] if tag is not None else _names_in(run.done)
    found = [
        (name, os.path.join(run.done, part, name))
        for part in tags
        for name in _names_in(os.path.join(run.done, part))
        if name.endswith(".json")
    ]
    for _, path in sorted(found):
        with open(path, "rb") as file:
            yield CommitRecord.from_bytes(file.read())


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def outcomes(
    folder: str | os.PathLike[str], run_key: str, tag: str | None = None
) -> dict[int, SampleRecord]:
    """What became of each sample of a run: its last record, by index; empty for no such run.

    Args:
        folder: The dataset's root.
        run_key: The run.
        tag: The part of the run (a chunk) to look at; None is all.
    """
    run = Layout(os.path.abspath(os.fspath(folder))).run(run_key)
    return {record.idx: record for commit in commits_of(run, tag) for record in commit.samples}


def done_indices(folder: str | os.PathLike[str], run_key: str, tag: str | None = None) -> set[int]:
    """The indices that a run need not do again: all of its ledger but the failed ones."""
    found = outcomes(folder, run_key, tag)
    return {idx for idx, record in found.items() if record.outcome != "failed"}
