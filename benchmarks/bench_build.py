"""A full pass from a source to a new dataset, against the reference's own pipe."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from _data import write_thumbnails
from _prefect import own_prefect
from _reference import reference
from _report import figure, parser, ratio, temporary_folder, title

from prefect_pipestream.sequences import Sample, SamplesSequence
from prefect_pipestream.stages import StageLambda


def invert(sample: Sample) -> Sample:
    return sample.set_value("image", 255 - sample["image"]())


def build(source: Path, target: Path, num_workers: int) -> float:
    """Invert the images of a dataset into a new one, without Prefect; seconds."""
    begin = time.perf_counter()
    pipe = SamplesSequence.from_underfolder(source).map(StageLambda(invert))
    pipe.to_underfolder(target, zfill=7).run(num_workers=num_workers, track_fn=False)
    return time.perf_counter() - begin


def build_by_flow(source: Path, target: Path) -> float:
    """Do the same with `process_samples`; seconds, with the flow's start-up."""
    from prefect_pipestream.blocks import CreateNewUnderfolder, ReadWriteUnderfolder
    from prefect_pipestream.flows.processing import process_samples

    begin = time.perf_counter()
    process_samples(
        ReadWriteUnderfolder(folder=source),
        invert,
        target=CreateNewUnderfolder(folder=target, zfill=7),
    )
    return time.perf_counter() - begin


def against_reference(source: Path, parent: Path, num_workers: int, repeats: int) -> None:
    ours, theirs = parent / "ours", parent / "theirs"
    times = []
    for _ in range(repeats):  # in turn, so that a busy moment of the machine meets both
        figures = reference("build", source=source, target=theirs, num_workers=num_workers)
        times.append((build(source, ours, num_workers), figures["total_s"]))
        _assert_same_names(ours, theirs)
        shutil.rmtree(ours)
        shutil.rmtree(theirs)
    our_best, their_best = (min(seconds) for seconds in zip(*times, strict=True))
    figure("ours", our_best, "s")
    figure("the reference's", their_best, "s")
    ratio("times faster", their_best / our_best, at_least=2)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--samples", type=int, default=10_000)
    options.add_argument(
        "--num-workers", type=int, nargs="*", default=[0], help="2 takes the reference minutes"
    )
    options.add_argument("--repeats", type=int, default=2)
    given = options.parse_args()
    with temporary_folder(given.temporary_folder) as parent, own_prefect(parent):
        source = parent / "source"
        write_thumbnails(source, given.samples)
        for workers in given.num_workers:
            title(f"{given.samples:,} samples of 6 items, num_workers={workers}")
            against_reference(source, parent, workers, given.repeats)
        title(f"{given.samples:,} samples of 6 items, process_samples")
        figure("ours, as a flow with its start-up", build_by_flow(source, parent / "flow"), "s")


def _assert_same_names(ours: Path, theirs: Path) -> None:
    names = [sorted(path.name for path in (folder / "data").iterdir()) for folder in (ours, theirs)]
    if names[0] != names[1]:
        raise SystemExit("The two datasets do not hold the same files.")


if __name__ == "__main__":
    main()
