"""Build a new dataset of another: `python flows/build_dataset.py [SOURCE TARGET --transform …]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from prefect_pipestream.blocks import (
    CreateNewUnderfolder,
    OutputUnderfolder,
    PipedDataStream,
    ReadWriteUnderfolder,
)
from prefect_pipestream.process import RunReport, Select, process_samples


@flow(name="build-dataset")
def build_dataset(
    source: ReadWriteUnderfolder | PipedDataStream,
    target: CreateNewUnderfolder | OutputUnderfolder,
    transform: list[str | dict[str, Any]],
    keys: list[str] | None = None,
    indices: list[int] | None = None,
    chunk_size: Annotated[int, Field(gt=0)] | None = None,
    sample_retries: Annotated[int, Field(ge=0)] = 2,
    max_failed: Annotated[float, Field(ge=0, le=1)] = 0.0,
    select: Select = "all",
    run_key: str | None = None,
    encoder_options: dict[str, dict[str, Any]] | None = None,
) -> RunReport:
    """Reads the samples of a dataset, changes them, and writes them to another one.

    Args:
        source: The dataset to read; it is not changed.
        target: The dataset to write.
        transform: What to do with each sample, in order: names of operations, or a mapping
            from a name to arguments. For example ["verify-items", {"drop-blank-images": {}},
            {"resize-images": {"size": [256, 256]}}].
        keys: The items to write; empty for all.
        indices: The samples to process; empty for all.
        chunk_size: How many samples each task run processes; empty for a few seconds of work.
        sample_retries: How often a sample that fails is tried again.
        max_failed: The share of samples that may fail before the run counts as failed.
        select: Which samples: all; those that are new or changed since the same transform last
            saw them; or those that failed in the last run, or in that of the run key.
        run_key: Give the key of an earlier run to go on with it; empty for a new run.
        encoder_options: How items that change are encoded, by key: {"image": {"quality": 90}}, or
            {"image": {"metadata": "strip"}}. Empty for as they were, with their metadata.

    Returns:
        What became of the samples.
    """
    return process_samples.fn(
        source=source,
        target=target,
        transform=transform,
        keys=keys or None,
        indices=indices or None,
        chunk_size=chunk_size,
        sample_retries=sample_retries,
        max_failed=max_failed,
        select=select,
        run_key=run_key or None,
        encoder_options=encoder_options or None,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds the user's dataset, or one of a demonstration dataset where none is given."""
    from _demo import STORY, TRANSFORM, make_demo_dataset, new_demo_folder
    from _terminal import add_common_arguments, console, run_and_report

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "source", nargs="?", type=Path, help="the dataset to read (default: a demonstration)"
    )
    parser.add_argument("target", nargs="?", type=Path, help="the dataset to make")
    parser.add_argument("--zfill", type=int, default=6, help="the digits of an index in file names")
    add_common_arguments(parser)
    given = parser.parse_args(arguments)
    if given.source is None and given.keys:  # which takes folders that follow it for keys
        parser.error("SOURCE and TARGET are missing: they go before --keys")
    source, target, max_failed = given.source, given.target, given.max_failed
    if source is None:
        source = new_demo_folder("source")
        console.print(f"Making a demonstration dataset in {source}: {STORY}.", highlight=False)
        make_demo_dataset(source)
        target = new_demo_folder("built")
        max_failed = 0.05 if max_failed is None else max_failed
    elif target is None or given.transform is None:
        parser.error("with SOURCE, TARGET and --transform are needed too")
    return run_and_report(
        lambda: build_dataset(
            source=ReadWriteUnderfolder(folder=source),
            target=CreateNewUnderfolder(folder=target, zfill=given.zfill),
            transform=given.transform or TRANSFORM,
            keys=given.keys,
            max_failed=max_failed or 0.0,
            select=given.select,
            run_key=given.run_key,
        ),
        target,
    )


if __name__ == "__main__":
    sys.exit(main())
