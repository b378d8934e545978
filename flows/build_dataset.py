"""Build a new dataset of another: `python flows/build_dataset.py [SOURCE TARGET --transform …]`."""

import sys

from prefect_pipestream.cli import main
from prefect_pipestream.flows import build_dataset

__all__ = ["build_dataset"]  # which `prefect deploy` finds here, too

if __name__ == "__main__":
    sys.exit(main(["build", *sys.argv[1:]]))
