"""What the tests ask of the reference; runs in its own environment, as a program of its own.

python reference_side.py COMMAND '{"argument": ...}' RESULT.pkl
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pipelime.items as items  # type: ignore[import-not-found]
from examples import EXAMPLES, run_example
from pipelime.sequences import DataStream, Sample, SamplesSequence  # type: ignore[import-not-found]
from specimens import build_sample, describe, specimens


def _shared_sample(variant: int) -> Any:
    return Sample(
        {
            "label": items.TxtNumpyItem([variant]),
            "classes": items.YamlMetadataItem({"names": ["cat", "dog"]}, shared=True),
            "camera": items.NpyNumpyItem([[1.0, 0.0], [0.0, 1.0]], shared=True),
        }
    )


def write_all(folder: str, length: int, zfill: int | None = None) -> None:
    """Write a new dataset of all specimens."""
    samples = [build_sample(items, Sample, variant) for variant in range(length)]
    SamplesSequence.from_list(samples).to_underfolder(folder, zfill=zfill).run(track_fn=False)


def write_shared(folder: str, length: int) -> None:
    """Write a new dataset with two shared items."""
    samples = [_shared_sample(variant) for variant in range(length)]
    SamplesSequence.from_list(samples).to_underfolder(folder, zfill=4).run(track_fn=False)


def write_gaps(folder: str, indices: list[int]) -> None:
    """Write samples at the given indices only."""
    stream = DataStream.create_new_underfolder(folder, zfill=3)
    for idx in indices:
        stream.set_output(idx, Sample({"label": items.TxtNumpyItem([idx])}))


def copy(source: str, folder: str, zfill: int | None = 6) -> None:
    """Copy a dataset, by hard links where possible."""
    SamplesSequence.from_underfolder(source).to_underfolder(folder, zfill=zfill).run(track_fn=False)


def read(folder: str) -> list[dict[str, tuple[str, bool, Any]]]:
    """Describe every sample."""
    return [describe(sample) for sample in SamplesSequence.from_underfolder(folder)]


def update(
    folder: str, idx: int, variant: int, zfill: int | None = 6, keys: list[str] | None = None
) -> None:
    """Give the specimens of one sample new values, in place."""
    stream = DataStream.read_write_underfolder(folder, zfill=zfill)
    sample = stream[idx]
    for key, (_, value) in specimens(variant).items():
        if keys is None or key in keys:
            sample = sample.set_value(key, value)
    stream.set_output(idx, sample, keys=keys)


def to_jpeg(folder: str, idx: int, key: str) -> None:
    """Write an item anew under another extension, in place."""
    stream = DataStream.read_write_underfolder(folder, zfill=6)
    sample = stream[idx]
    stream.set_output(idx, sample.set_item(key, items.JpegImageItem(sample[key]())))


def append(folder: str, idx: int, variant: int) -> None:
    """Write a sample of all specimens at an index that has none."""
    stream = DataStream.read_write_underfolder(folder, zfill=6)
    stream.set_output(idx, build_sample(items, Sample, variant))


def run_examples(folder: str) -> dict[str, Any]:
    """Run all examples, each in a folder of its own."""
    return {name: run_example("pipelime", name, Path(folder) / name) for name in EXAMPLES}


COMMANDS = {
    function.__name__: function
    for function in (write_all, write_shared, write_gaps, copy, read, update, to_jpeg, append)
} | {"run_examples": run_examples}


def main() -> None:
    """Run one command."""
    command, arguments, result = sys.argv[1:]
    value = COMMANDS[command](**json.loads(arguments))
    Path(result).write_bytes(pickle.dumps(value))


if __name__ == "__main__":
    main()
