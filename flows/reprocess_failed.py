"""Process failed samples again: `python flows/reprocess_failed.py DATASET --transform …`."""

import sys

from prefect_pipestream.cli import main
from prefect_pipestream.flows import reprocess_failed

__all__ = ["reprocess_failed"]  # which `prefect deploy` finds here, too

if __name__ == "__main__":
    sys.exit(main(["reprocess", *sys.argv[1:]]))
