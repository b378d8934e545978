"""Check a dataset without changing it: `python flows/validate_dataset.py DATASET`."""

import sys

from prefect_pipestream.cli import main
from prefect_pipestream.flows import validate_dataset

__all__ = ["validate_dataset"]  # which `prefect deploy` finds here, too

if __name__ == "__main__":
    sys.exit(main(["validate", *sys.argv[1:]]))
