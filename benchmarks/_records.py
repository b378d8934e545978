"""Commit records as a run over many images leaves them, made up: the same ones for each seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

from prefect_pipestream.underfolder.ledger.failure import SampleFailure
from prefect_pipestream.underfolder.ledger.records import CommitRecord, SampleRecord

_BEGAN_NS = 1_760_000_000_000_000_000
_CHUNKS_AT_ONCE = 4
_COMMITS_A_CHUNK = 64
_FRAME = (
    '  File "/opt/project/cleaning/{}.py", line {}, in {}\n    return self._{}(sample, options)\n'
)


def commit_records(samples: int, a_commit: int, seed: int = 0) -> Iterator[CommitRecord]:
    """Yields the commits of chunks that are worked on side by side.

    Each sample is written: its image, and of every second one the mask. One in a hundred failed.

    Args:
        samples: How many samples the run has.
        a_commit: How many samples each commit has.
        seed: The same seed gives the same records.
    """
    rng = random.Random(seed)
    for number, first in enumerate(_in_order_of_time(samples, a_commit)):
        at_ns = _BEGAN_NS + number * 40_000_000 + rng.randrange(10_000_000)
        chunk = first // (a_commit * _COMMITS_A_CHUNK)
        indices = range(first, min(first + a_commit, samples))
        yield CommitRecord(
            id=f"{at_ns:016x}-{rng.getrandbits(24):06x}",
            run_key="clean-20261126T060000-5a3f10",
            tag=f"chunk-{chunk:06d}",
            staged=f"staged/{rng.getrandbits(32):08x}/{number}",
            at=at_ns / 1e9,
            samples=tuple(_sample(idx, rng) for idx in indices),
        )


def _in_order_of_time(samples: int, a_commit: int) -> Iterator[int]:
    """The first index of each commit: those of some chunks take turns."""
    chunk = a_commit * _COMMITS_A_CHUNK
    for begin in range(0, samples, chunk * _CHUNKS_AT_ONCE):
        for within in range(0, chunk, a_commit):
            for turn in range(_CHUNKS_AT_ONCE):
                if (first := begin + turn * chunk + within) < samples:
                    yield first


def _sample(idx: int, rng: random.Random) -> SampleRecord:
    signature = f"{rng.getrandbits(64):016x}"
    if rng.random() < 0.01:
        return SampleRecord(idx, "failed", signature, attempts=2, failure=_failure(idx, rng))
    keys = ("image.png", "mask.png")[: 1 + idx % 2]
    writes = {f"{idx:07d}_{key}": f"{rng.getrandbits(48):012x}" for key in keys}
    return SampleRecord(idx, "written", signature, idx, writes, replaces=tuple(writes))


def _failure(idx: int, rng: random.Random) -> SampleFailure:
    names = [rng.choice(("decode", "resize", "normalise", "find_edges", "crop")) for _ in range(12)]
    frames = "".join(_FRAME.format(name, rng.randrange(400), name, name) for name in names)
    message = f"/data/inspection/data/{idx:07d}_image.png: not enough data at byte {idx * 37}"
    trace = f"Traceback (most recent call last):\n{frames}ItemDecodeError: {message}\n"
    return SampleFailure("ItemDecodeError", message, trace)
