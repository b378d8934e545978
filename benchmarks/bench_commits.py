"""What commits cost: decode, invert, encode and write, with and without them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from _data import write_photographs, write_thumbnails
from _report import figure, parser, ratio, temporary_folder, title

from prefect_pipestream.items import Item
from prefect_pipestream.sequences import DataStream

ROUNDS = 3


def plain(folder: Path) -> None:
    """No commit at all: the same codecs, each new file renamed over the old one."""
    for path in sorted((folder / "data").glob("*_image.*")):
        item = Item.get_instance(path)
        item.make_new(255 - item()).serialize(path)


def by_group(folder: Path, durable: bool = False) -> None:
    """The same with commits of groups."""
    stream = DataStream.read_write_underfolder(folder, durable=durable)
    part = stream.part(stream.indices().tolist())
    with part.commit_group() as group:
        for idx in stream.indices().tolist():
            sample = part.get_input(idx)
            group.set_output(idx, sample.set_value("image", 255 - sample["image"]()))


def best(ways: dict[str, Callable[[Path], None]], folder: Path) -> dict[str, float]:
    """Seconds of each way, the best of some rounds in which they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            begin = time.perf_counter()
            way(folder)
            seconds[name].append(time.perf_counter() - begin)
    return {name: min(took) for name, took in seconds.items()}


def compare(folder: Path, count: int, at_most: float) -> None:
    ways = {
        "no commit, files replaced": plain,
        "group commit": by_group,
        "group commit, durable": partial(by_group, durable=True),
    }
    took = best(ways, folder)
    for name, seconds in took.items():
        figure(f"{name}, a sample", 1e3 * seconds / count, "ms")
    base = took["no commit, files replaced"]
    ratio("group commit against no commit", took["group commit"] / base, at_most=at_most)
    ratio("durable against no commit", took["group commit, durable"] / base)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--photographs", type=int, default=500)
    options.add_argument("--thumbnails", type=int, default=5_000)
    given = options.parse_args()
    with temporary_folder(given.temporary_folder) as parent:
        for extension in ("png", "jpeg"):
            folder = parent / extension
            write_photographs(folder, given.photographs, 512, extension)
            title(f"{given.photographs:,} photographs of 512×512, {extension}")
            compare(folder, given.photographs, 1.15)
        write_thumbnails(parent / "thumbnails", given.thumbnails)
        title(f"{given.thumbnails:,} thumbnails of 28×28")
        compare(parent / "thumbnails", given.thumbnails, 1.4)


if __name__ == "__main__":
    main()
