"""What a gate costs: the same writes without rules, and held against rules before each commit."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from _report import figure, parser, ratio, temporary_folder, title

from prefect_pipestream.sequences import DataStream, SamplesSequence
from prefect_pipestream.validation import ItemRule, SampleRules

RULES = SampleRules.of([ItemRule(key="image", item_class="ImageItem", min_width=8)])


def inverted(original: Path, folder: Path, rules: SampleRules | None) -> float:
    """Invert every image of a copy in place, as a chunk does; seconds of the processor a sample."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original, folder)
    stream = DataStream.read_write_underfolder(folder)
    stream = stream.checking(None if rules is None else rules.problems)
    indices = stream.indices().tolist()
    part = stream.part(indices)
    began = time.process_time()
    with part.commit_group(signed=True) as batch:
        for idx in indices:
            sample = part.get_input(idx)
            batch.set_output(idx, sample.set_value("image", 255 - sample["image"]()))
    return (time.process_time() - began) / len(indices)


def compared(original: Path, rounds: int) -> None:
    """Run both in turn, so that what else the machine does meets both; print the best of each."""
    ways = {"without rules": None, "with a rule": RULES}
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, rules in ways.items():
            took = inverted(original, original.with_name("copy"), rules)
            best[name] = min(best[name], took)
    for name, took in best.items():
        figure(name, took * 1000, "ms a sample")
    ratio("with a rule against without", best["with a rule"] / best["without rules"])


def main() -> None:
    """Make the datasets and print both."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=3, help="how often each is run")
    given = options.parse_args()
    with temporary_folder(given.temporary_folder) as parent:
        for count, side in ((1000, 28), (60, 512)):
            title(f"{count:,} toy samples of {side} x {side} pixels, their images inverted")
            original = parent / f"toy-{side}"
            SamplesSequence.toy_dataset(count, image_size=side).to_underfolder(original).run()
            compared(original, given.rounds)


if __name__ == "__main__":
    main()
