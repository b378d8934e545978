"""Clean a dataset in place: `python flows/clean_dataset.py [DATASET --transform …]`."""

import sys

from prefect_pipestream.cli import main
from prefect_pipestream.flows import clean_dataset

__all__ = ["clean_dataset"]  # which `prefect deploy` finds here, too

if __name__ == "__main__":
    sys.exit(main(["clean", *sys.argv[1:]]))
