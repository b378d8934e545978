"""Bring in what people have: `python flows/import_dataset.py KIND SOURCE DATASET`."""

import sys

from prefect_pipestream.cli import main
from prefect_pipestream.flows import import_dataset

__all__ = ["import_dataset"]  # which `prefect deploy` finds here, too

if __name__ == "__main__":
    sys.exit(main(["import", *sys.argv[1:]]))
