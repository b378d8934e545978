"""The reference's side of the benchmarks; runs in its own environment, as a program of its own."""

from __future__ import annotations

import json
import random
import sys
import time
from typing import Any


def data_stream(folder: str, rounds: int) -> dict[str, float]:
    """Get, invert and set one image, `rounds` times at random places."""
    from pipelime.sequences import DataStream  # type: ignore[import-not-found]

    begin = time.perf_counter()
    stream = DataStream.read_write_underfolder(folder, zfill=7)
    length = len(stream)
    opened = time.perf_counter()
    indices = random.Random(0).choices(range(length), k=rounds)
    for idx in indices:
        sample = stream[idx]
        stream.set_output(idx, sample.set_value("image", 255 - sample["image"]()))
    return {
        "open_s": opened - begin,
        "round_s": (time.perf_counter() - opened) / rounds,
    }


def _invert(sample: Any) -> Any:
    return sample.set_value("image", 255 - sample["image"]())


def build(source: str, target: str, num_workers: int) -> dict[str, float]:
    """Invert the images of a dataset into a new one."""
    from pipelime.sequences import SamplesSequence  # type: ignore[import-not-found]
    from pipelime.stages import StageLambda  # type: ignore[import-not-found]

    begin = time.perf_counter()
    pipe = SamplesSequence.from_underfolder(source).map(StageLambda(_invert))
    pipe.to_underfolder(target, zfill=7).run(num_workers=num_workers, track_fn=False)
    return {"total_s": time.perf_counter() - begin}


def import_time() -> dict[str, float]:
    """Import the sequences."""
    begin = time.perf_counter()
    import pipelime.sequences  # noqa: F401

    return {"import_s": time.perf_counter() - begin}


def main() -> None:
    """Run one command and print its figures as JSON."""
    commands = {"data_stream": data_stream, "build": build, "import_time": import_time}
    print(json.dumps(commands[sys.argv[1]](**json.loads(sys.argv[2]))))


if __name__ == "__main__":
    main()
