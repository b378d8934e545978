"""A query of a folder: the first, the second, one of another path, and a loop that decodes all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml
from _report import figure, parser, ratio, temporary_folder, title

QUERIES = {
    "first query": "metadata.label == 3",
    "second query": "metadata.label == 3",
    "another path": "metadata.score > 0.5 and not metadata.reviewed",
    "another path, again": "metadata.score > 0.5 and not metadata.reviewed",
    "which have an item": "HAS metadata and not HAS mask",
}

# In a process of its own: what it has read before is in no memory of ours.
ASK = """
import os, sys, time
from prefect_pipestream.sequences import SamplesSequence
dataset = SamplesSequence.from_underfolder(sys.argv[1])
times = [time.perf_counter()]
len(dataset)
times.append(time.perf_counter())
cpu = sum(os.times()[:4])
if sys.argv[3] == "loop":
    found = sum(1 for sample in dataset if sample.match(sys.argv[2]))
else:
    found = len(dataset.where(sys.argv[2]))
times.append(time.perf_counter())
print(found, times[1] - times[0], times[2] - times[1], sum(os.times()[:4]) - cpu)
"""
STATS = """
import os, sys, time
names = [entry.path for entry in os.scandir(sys.argv[1] + "/data")]
began = time.perf_counter()
for name in names:
    os.stat(name)
print(time.perf_counter() - began)
"""


def run(program: str, *arguments: str) -> list[float]:
    """Run a program in a new process, and give the numbers that it prints."""
    command = [sys.executable, "-c", program, *arguments]
    return [float(word) for word in subprocess.check_output(command, text=True).split()]


def write(folder: Path, samples: int, extension: str) -> None:
    """Write samples of one metadata file of some 100 bytes, no two alike."""
    data = folder / "data"
    data.mkdir(parents=True)
    for idx in range(samples):
        value = {
            "label": idx % 10,
            "score": idx / samples,
            "name": f"camera_{idx % 7}/image_{idx:06d}.png",
            "tags": ["day", "wet"],
            "reviewed": idx % 3 == 0,
        }
        text = json.dumps(value) if extension == "json" else yaml.safe_dump(value)
        (data / f"{idx:06d}_metadata.{extension}").write_text(text)


def compare(folder: Path, samples: int, extension: str) -> None:
    title(f"{samples:,} samples of {extension}: seconds of the clock; of all processors")
    write(folder, samples, extension)
    (stats,) = run(STATS, str(folder))
    figure("one stat a file, bare", stats, "s")
    found, _, loop, cpu = run(ASK, str(folder), QUERIES["first query"], "loop")
    figure(f"a loop that matches each sample: {found:,.0f} found", loop, f"s; {cpu:.2f} s")
    times = {}
    for name, query in QUERIES.items():
        found, index, times[name], cpu = run(ASK, str(folder), query, "where")
        figure(f"{name}: {found:,.0f} found", times[name], f"s; {cpu:.2f} s")
    figure("beside that, the folder is scanned", index, "s")
    ratio("loop / first query", loop / times["first query"])
    ratio("loop / second query", loop / times["second query"])


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--samples", type=int, default=100_000)
    given = arguments.parse_args()
    for extension in ("yaml", "json"):
        with temporary_folder(given.temporary_folder) as parent:
            compare(parent / extension, given.samples, extension)


if __name__ == "__main__":
    main()
