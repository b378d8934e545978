"""Remove old runs of a dataset: `python flows/prune_runs.py DATASET --older-than 90d`."""

import sys

from prefect_pipestream.cli import main
from prefect_pipestream.flows import prune_runs

__all__ = ["prune_runs"]  # which `prefect deploy` finds here, too

if __name__ == "__main__":
    sys.exit(main(["prune", *sys.argv[1:]]))
