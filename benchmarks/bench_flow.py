"""`process_samples` by chunk: against three `.map` calls a sample, and against a plain loop."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
from _data import ENCODER_OPTIONS, write_photographs, write_thumbnails
from _prefect import own_prefect
from _report import figure, parser, ratio, temporary_folder, title
from prefect import flow, unmapped
from prefect.futures import wait
from prefect.task_runners import ThreadPoolTaskRunner

from prefect_pipestream.blocks import ReadWriteUnderfolder
from prefect_pipestream.flows.processing import process_samples
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.tasks import read_sample, set_output, transform_sample

TRANSFORM = [{"invert": {"images": ["image"]}}]
MAP_THREADS = 8


def by_chunk(folder: Path, indices: list[int] | None = None) -> float:
    """Invert every image in place.

    Returns:
        Seconds, as the flow's report counts them: without Prefect's start and end of a flow.
    """
    report = process_samples(ReadWriteUnderfolder(folder=folder), TRANSFORM, indices=indices)
    if report.counts.get("failed"):
        raise SystemExit(f"{report.counts['failed']} samples failed in {folder}.")
    return report.duration_s


# Prefect's own number of threads is without limit: thousands hinder each other, and 2,000 samples
# do not end within a quarter of an hour.
@flow(task_runner=ThreadPoolTaskRunner(max_workers=MAP_THREADS))
def three_maps(folder: str, length: int) -> None:
    """Do the same with three task runs a sample."""
    stream = ReadWriteUnderfolder(folder=Path(folder))
    indices = list(range(length))
    samples = read_sample.map(unmapped(stream), indices)
    changed = transform_sample.map(samples, unmapped(TRANSFORM), indices)
    wait(set_output.map(unmapped(stream), indices, changed))


def plain_loop(folder: Path) -> None:
    """Do the same in plain Python, with imageio."""
    for path in sorted((folder / "data").glob("*_image.*")):
        image = iio.imread(path)
        iio.imwrite(path, 255 - image, **ENCODER_OPTIONS[path.suffix[1:]])


def clock(job: Callable[[], object]) -> float:
    begin = time.perf_counter()
    job()
    return time.perf_counter() - begin


def start_up(folder: Path, repeats: int = 3) -> float:
    """Measure what a flow of one sample costs: that is all but start-up; seconds."""
    return min(clock(lambda: by_chunk(folder, indices=[0])) for _ in range(repeats))


def against_maps(parent: Path, samples: int) -> None:
    title(f"{samples:,} thumbnails of 28×28, JPEG: by chunk against three .map calls a sample")
    chunked, mapped = parent / "chunked", parent / "mapped"
    write_thumbnails(chunked, samples, extension="jpeg")
    shutil.copytree(chunked, mapped)
    fixed = start_up(chunked)
    by_chunks = clock(lambda: by_chunk(chunked))
    by_maps = clock(lambda: three_maps(str(mapped), samples))
    figure("by chunk, with the flow's start-up", by_chunks, "s")
    figure("of which start-up", fixed, "s")
    figure("three .map calls a sample", by_maps, "s")
    ratio("times faster", by_maps / by_chunks, at_least=10)


def against_loop(parent: Path, name: str, samples: int, at_least: float, repeats: int) -> None:
    """Compare with the loop on the dataset `parent / name`; each side works on a copy."""
    looped, flowed = parent / f"{name}-loop", parent / f"{name}-flow"
    shutil.copytree(parent / name, looped)
    shutil.copytree(parent / name, flowed)
    fixed = start_up(flowed)
    loops, totals, reported = [], [], []
    for _ in range(repeats):  # in turn, so that a busy moment of the machine meets both
        loops.append(clock(lambda: plain_loop(looped)))
        totals.append(clock(lambda: reported.append(by_chunk(flowed))))
    loop, total = min(loops), min(totals)
    # A flow's end waits for its events: where it did so during the work, that is not start-up.
    working = max(total - fixed, min(reported))
    figure("plain loop with imageio, no Prefect", samples / loop, "samples/s", 1)
    figure("process_samples, without its start-up", samples / working, "samples/s", 1)
    figure("process_samples, with its start-up", samples / total, "samples/s", 1)
    figure("start-up of a flow", fixed, "s")
    ratio("of the loop's throughput", loop / working, at_least=at_least)
    for folder in (looped, flowed):
        shutil.rmtree(folder)


def first_flow(parent: Path) -> None:
    title("the first flow of a process")
    write_thumbnails(parent / "first", 1)
    figure("with the start of the embedded server", clock(lambda: by_chunk(parent / "first")), "s")
    assert len(DataStream.read_write_underfolder(parent / "first")) == 1


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--maps", type=int, default=2_000, help="thumbnails against .map")
    options.add_argument("--thumbnails", type=int, default=20_000)
    options.add_argument("--photographs", type=int, default=500, help="as PNG")
    options.add_argument("--photographs-jpeg", type=int, default=2_500)
    options.add_argument("--size", type=int, default=512, help="a photograph's side, in pixels")
    options.add_argument("--repeats", type=int, default=2)
    given = options.parse_args()
    with temporary_folder(given.temporary_folder) as parent, own_prefect(parent):
        first_flow(parent)
        for extension, count in (("png", given.photographs), ("jpeg", given.photographs_jpeg)):
            title(f"{count:,} photographs of {given.size}×{given.size}, {extension.upper()}")
            write_photographs(parent / extension, count, given.size, extension)
            against_loop(parent, extension, count, 0.9, given.repeats)
        title(f"{given.thumbnails:,} thumbnails of 28×28, JPEG")
        write_photographs(parent / "thumbnails", given.thumbnails, 28, "jpeg")
        against_loop(parent, "thumbnails", given.thumbnails, 0.8, given.repeats)
        against_maps(parent, given.maps)


if __name__ == "__main__":
    main()
