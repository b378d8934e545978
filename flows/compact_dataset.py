"""Close the gaps in a dataset: `python flows/compact_dataset.py DATASET`."""

import sys

from prefect_pipestream.cli import main
from prefect_pipestream.flows import compact_dataset

__all__ = ["compact_dataset"]  # which `prefect deploy` finds here, too

if __name__ == "__main__":
    sys.exit(main(["compact", *sys.argv[1:]]))
