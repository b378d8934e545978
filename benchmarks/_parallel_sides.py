"""The sides of `bench_parallel.py`: each is a program of its own, in its own environment.

    python _parallel_sides.py SIDE WORKERS SCRATCH

It prints a line once it is ready, and then, for each folder that it reads a line of, inverts all
pictures in it, in place, and prints a line of JSON: the seconds of it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import imageio.v3 as iio
from _data import ENCODER_OPTIONS

Job = Callable[[Path], float | None]
"""Inverts the pictures of a folder; gives the seconds that the side counts itself, if it does."""


def invert(path: str) -> None:
    """Invert one picture, in place, as all sides but ours do it."""
    options = ENCODER_OPTIONS[path.rpartition(".")[2]]
    iio.imwrite(path, 255 - iio.imread(path), **options)


def pictures(folder: Path) -> list[str]:
    return sorted(os.fspath(path) for path in (folder / "data").glob("*_image.*"))


# -- loops ---------------------------------------------------------------------------------


@contextmanager
def plain(workers: int, scratch: Path) -> Iterator[Job]:
    """One picture after the other."""

    def job(folder: Path) -> None:
        for path in pictures(folder):
            invert(path)

    yield job


def by_joblib(backend: str) -> Callable[[int, Path], AbstractContextManager[Job]]:
    """A loop in threads, or in processes that stay for the next one."""

    @contextmanager
    def side(workers: int, scratch: Path) -> Iterator[Job]:
        from joblib import Parallel, delayed

        def job(folder: Path) -> None:
            Parallel(workers, backend=backend)(delayed(invert)(path) for path in pictures(folder))

        yield job

    return side


# -- ours ----------------------------------------------------------------------------------


@contextmanager
def ours(workers: int, scratch: Path) -> Iterator[Job]:
    """`process_samples` with the task runner that it has when nobody gives one."""
    from _prefect import own_prefect

    from prefect_pipestream.blocks import ReadWriteUnderfolder
    from prefect_pipestream.flows.processing import process_samples

    def job(folder: Path) -> float:
        dataset = ReadWriteUnderfolder(folder=folder)
        report = process_samples(dataset, [{"invert": {"images": ["image"]}}])
        if report.counts["failed"]:
            raise SystemExit(f"{report.counts['failed']} samples failed in {folder}.")
        return report.duration_s

    with own_prefect(scratch):
        yield job


# -- others --------------------------------------------------------------------------------


@contextmanager
def hf_datasets(workers: int, scratch: Path) -> Iterator[Job]:
    """`Dataset.map` of Hugging Face, over the paths of the files."""
    from datasets import Dataset, disable_caching, disable_progress_bars

    disable_caching()
    disable_progress_bars()

    def each(row: dict[str, str]) -> None:
        invert(row["path"])

    def job(folder: Path) -> None:
        Dataset.from_dict({"path": pictures(folder)}).map(each, num_proc=workers)

    yield job


@contextmanager
def ray_data(workers: int, scratch: Path) -> Iterator[Job]:
    """`map` of Ray Data, over the paths of the files, on a cluster that runs already."""
    os.environ["RAY_AUTH_MODE"] = "disabled"  # else it makes a token in the user's home
    import ray
    from ray.data import DataContext

    ray.init(
        num_cpus=workers,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _temp_dir=os.fspath(scratch / "ray"),
    )
    logging.getLogger("ray.data").setLevel("ERROR")
    DataContext.get_current().enable_progress_bars = False

    def each(row: dict[str, str]) -> dict[str, str]:
        invert(row["path"])
        return row

    def job(folder: Path) -> None:
        rows = [{"path": path} for path in pictures(folder)]
        ray.data.from_items(rows).map(each).materialize()

    try:
        yield job
    finally:
        ray.shutdown()


@contextmanager
def datachain(workers: int, scratch: Path) -> Iterator[Job]:
    """`map` of DataChain, over the files of the folder; what it keeps of them is in the scratch."""
    os.environ["DATACHAIN_ROOT_DIR"] = str(scratch / "datachain")
    import datachain

    def each(file: Any) -> int:
        invert(file.get_fs_path())
        return 1

    def job(folder: Path) -> None:
        files = datachain.read_storage(f"file://{folder}/data", update=True)
        files = files.settings(parallel=workers, prefetch=0)
        changed = files.map(each, params=["file"], output={"done": int})
        if changed.sum("done") != len(pictures(folder)):
            raise SystemExit(f"DataChain did not see all of {folder}.")

    yield job


SIDES: dict[str, Callable[[int, Path], AbstractContextManager[Job]]] = {
    "plain": plain,
    "threads": by_joblib("threading"),
    "loky": by_joblib("loky"),
    "ours": ours,
    "hf-datasets": hf_datasets,
    "ray-data": ray_data,
    "datachain": datachain,
}
PACKAGE_OF = {
    "plain": "imageio",
    "threads": "joblib",
    "loky": "joblib",
    "ours": "prefect",
    "hf-datasets": "datasets",
    "ray-data": "ray",
    "datachain": "datachain",
}


def _uses(side: str) -> str:
    """The version of the side's library; of ours, what reads and writes pictures, too."""
    package = PACKAGE_OF[side]
    said = f"{package} {version(package)}"
    if side == "ours":
        from prefect_pipestream.items.pictures import fast

        said += f"; {fast.in_use()}"
    return said


def main() -> None:
    side, workers, scratch = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print is no answer

    def answer(what: Any) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    with SIDES[side](workers, scratch) as job:
        answer({"uses": _uses(side)})
        for line in sys.stdin:
            begin = time.perf_counter()
            told = job(Path(line.rstrip("\n")))
            answer({"whole": time.perf_counter() - begin, "told": told})


if __name__ == "__main__":
    main()
