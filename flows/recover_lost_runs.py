"""Start flow runs again whose process is dead: `python flows/recover_lost_runs.py`."""

import sys

from prefect_pipestream.cli import main
from prefect_pipestream.flows import recover_lost_runs

__all__ = ["recover_lost_runs"]  # which `prefect deploy` finds here, too

if __name__ == "__main__":
    sys.exit(main(["recover", *sys.argv[1:]]))
