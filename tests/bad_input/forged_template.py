"""A dataset in which every private file of the package is there, and its user's other files."""

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from prefect_pipestream.items import JsonMetadataItem, PngImageItem, YamlMetadataItem
from prefect_pipestream.review import compute_review
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.underfolder import Run, SampleFailure, check, end_run, prune_runs
from prefect_pipestream.underfolder.commits import commit
from prefect_pipestream.underfolder.runs import undo, undo_commits
from prefect_pipestream.underfolder.runs.kept_plan import KeptPlan, keep_plan
from prefect_pipestream.views import Thumbnails

from .folders import image_of

SECRET = b"nobody else is to read this: 7f3c1d"
SAMPLES = 12
KEYS = ("first", "packed", "dropping", "half", "undone", "undo:undone", "pending", "review")
"""Runs of the dataset. The undo of ``half`` is interrupted, as are the rollback of ``dropping`` and
the commit of ``pending``; ``undone`` is undone."""


def make_victim(folder: Path) -> Path:
    """What the dataset's user has beside it, with names as a dataset has."""
    for where in (folder, folder / "inner", folder / "1", folder / "main"):
        where.mkdir(parents=True, exist_ok=True)
        for name in ("secret.txt", "000_image.png", "001_meta.yaml", "run.json", "journal", "lock"):
            (where / name).write_bytes(SECRET + name.encode())
    (folder / "empty").mkdir()
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, ns=(10**18, 10**18))
    return folder


def make_template(folder: Path) -> Path:
    """Makes the dataset by the package's own means; processes of it were killed on the way."""
    stream = DataStream.create_new_underfolder(folder, zfill=3, run_key="maker")
    camera = YamlMetadataItem({"camera": "c"}, shared=True)
    with stream.commit_group() as group:
        for idx in range(SAMPLES):
            meta = YamlMetadataItem({"number": idx})
            image = PngImageItem(image_of(idx))
            group.set_output(idx, Sample({"image": image, "meta": meta, "camera": camera}))
    write(folder, "old", range(SAMPLES), fingerprint="f")
    prune_runs(folder, timedelta(0))
    write(folder, "first", [0, 1], fails=2, fingerprint="f")
    write(folder, "packed", [3, 4], fails=5)
    end_run(Run.of(folder, "packed"))
    write(folder, "undone", [6])
    undo.undo_run(folder, "undone")
    (folder / "data" / "stray").write_text("stray")
    assert check(folder, fix=True).ok
    write(folder, "dropping", [7, 8])
    first = next(Run.of(folder, "dropping").commits()).id
    dropping = Run.of(folder, "dropping")
    kill_at(undo_commits, "forget_dropped", lambda: undo_commits.undo_commits(dropping, [first]))
    write(folder, "half", [9])
    kill_at(undo, "retire", lambda: undo.undo_run(folder, "half"))
    keep_plan(folder, plan_of_all(folder))
    for idx in range(3):
        Thumbnails(folder).of(stream[idx]["image"], 32)
    compute_review(folder, ["invert"], "late", indices=[11], keep_s=0)
    late = folder / ".pipestream/review/late"
    compute_review(folder, _some_fail, "review", indices=[0, 3, 11])
    assert not late.exists()
    compute_review(folder, ["invert"], "late", indices=[11], keep_s=0)
    kill_at(commit, "place", lambda: write(folder, "pending", [10, 11]))
    return folder


def write(
    folder: Path, run_key: str, indices: Any, *, fails: int | None = None, **facts: Any
) -> None:
    """A run in commits of two samples: new images, an item more, the metadata as JSON."""
    stream = DataStream.read_write_underfolder(folder, run_key=run_key).for_attempt()
    stream.begin_run(**facts)
    with stream.commit_group(signed=True, count=2) as group:
        for idx in indices:
            sample = stream[idx]
            if run_key != "old":  # else nobody would supersede the old format
                sample = sample.set_item("image", PngImageItem(image_of(len(run_key) * 16 + idx)))
                sample = sample.set_item("meta", JsonMetadataItem({"run": run_key}))
            group.set_output(idx, sample.set_item(run_key, JsonMetadataItem({"run": run_key})))
        if fails is not None:
            group.record(fails, "failed", failure=SampleFailure("ValueError", "why", "where"))


def plan_of_all(folder: Path, key: str = "plan") -> KeptPlan:
    """A plan of a run over all samples."""
    idx = np.arange(SAMPLES, dtype=np.int64)
    own = np.ones(SAMPLES, np.uint64)
    target = str(folder.absolute())
    return KeptPlan(key, "f", "invert", target, "all", None, None, idx, own, shared=1, named=idx)


def _some_fail(sample: Sample) -> Sample:
    if sample["meta"]() == {"run": "packed"}:
        raise ValueError("no")
    return sample.set_item("image", PngImageItem(np.zeros((4, 4), np.uint8)))


def kill_at(module: Any, function: str, action: Callable[[], object]) -> None:
    """Does something in a process that is killed as it comes to a function."""
    pid = os.fork()
    if pid == 0:
        setattr(module, function, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        try:
            action()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
