"""Take runs back: `python flows/undo_run.py DATASET RUN…`."""

import sys

from prefect_pipestream.cli import main
from prefect_pipestream.flows import undo_run

__all__ = ["undo_run"]  # which `prefect deploy` finds here, too

if __name__ == "__main__":
    sys.exit(main(["undo", *sys.argv[1:]]))
