"""The command line: `pipestream`, or ``python -m prefect_pipestream``.

Exit status: 0 it is done, and all is well; 1 it was refused or could not be done, or the dataset
or too many of its samples are not as they should be; 2 the command line is wrong; 130 it was
interrupted; 141 who reads the output has left.
"""

from collections.abc import Sequence

from prefect_pipestream.cli.app import app
from prefect_pipestream.cli.output import flush

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: The command line after the program's name; None is the process's own.

    Returns:
        The exit status.
    """
    try:
        app(args=arguments, prog_name="pipestream")
        flush()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0
