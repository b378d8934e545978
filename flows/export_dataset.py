"""Write a dataset in another layout: `python flows/export_dataset.py KIND DATASET TARGET`."""

import sys

from prefect_pipestream.cli import main
from prefect_pipestream.flows import export_dataset

__all__ = ["export_dataset"]  # which `prefect deploy` finds here, too

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
