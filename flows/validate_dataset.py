"""Check a dataset without changing it: `python flows/validate_dataset.py FOLDER`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from prefect_pipestream.blocks import ReadWriteUnderfolder
from prefect_pipestream.running.validation import InvalidDatasetError, run_validation
from prefect_pipestream.validation import ItemRule, ValidationReport


@flow(name="validate-dataset")
def validate_dataset(
    dataset: ReadWriteUnderfolder,
    rules: list[ItemRule] = [],  # noqa: B006  # Prefect copies it, and shows it in the form
    allow_other_items: bool = True,
    indices: list[int] | None = None,
    max_invalid: Annotated[float, Field(ge=0, le=1)] = 0.0,
    report_file: Path | None = None,
) -> ValidationReport:
    """Decodes every item of every sample, and fails if samples are not as they should be.

    Nothing of the dataset is changed: use it as a gate before and after cleaning.

    Args:
        dataset: The dataset to check.
        rules: What is expected of items: class, shape and type of images, fields of metadata.
            Without rules, every item only has to decode.
        allow_other_items: Whether samples may have items that no rule is about.
        indices: The samples to check; empty for all.
        max_invalid: The share of samples that may be invalid before the run fails.
        report_file: A CSV file for the full list of problems; empty for none.

    Returns:
        Which samples are invalid, and why.
    """
    return run_validation(
        dataset, rules, allow_other_items, indices or None, max_invalid, report_file
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks the user's folder."""
    from _terminal import console, run_quietly

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the dataset")
    parser.add_argument("--report-file", type=Path, help="a CSV file for the list of problems")
    given = parser.parse_args(arguments)
    is_valid = True

    def run() -> None:
        nonlocal is_valid
        try:
            dataset = ReadWriteUnderfolder(folder=given.folder)
            report = validate_dataset(dataset, report_file=given.report_file)
        except InvalidDatasetError as error:
            report = error.report
        is_valid = not report.invalid
        console.print(f"{report.folder}: {report.summary()}", highlight=False)
        for sample in report.invalid[:20]:
            console.print(f"{sample.idx:>8}  {'; '.join(sample.problems)}", style="red")

    return run_quietly(run) or (0 if is_valid else 1)


if __name__ == "__main__":
    sys.exit(main())
