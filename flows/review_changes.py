"""Show changes to a person first: `python flows/review_changes.py DATASET --transform …`."""

import sys

from prefect_pipestream.cli import main
from prefect_pipestream.flows import review_changes

__all__ = ["review_changes"]  # which `prefect deploy` finds here, too

if __name__ == "__main__":
    sys.exit(main(["review", *sys.argv[1:]]))
