"""The command line as a module: ``python -m prefect_pipestream``."""

import sys

from prefect_pipestream.cli import main

if __name__ == "__main__":
    sys.exit(main())
