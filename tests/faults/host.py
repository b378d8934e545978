"""The process behind `killing.Host`: forks a child for each action, and tells how it ended."""

import os
import sys
from pathlib import Path

from tests.faults import actions


def main() -> None:
    child = write_end = 0
    for line in sys.stdin:
        words = line.split()
        if words[0] == "fork":
            read_end, write_end = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(write_end)
                os.read(read_end, 1)
                os.close(read_end)
                run(words[1], Path(words[2]))
            os.close(read_end)
            print(child, flush=True)
        else:
            os.write(write_end, b"g")
            os.close(write_end)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def run(action: str, folder: Path) -> None:
    try:
        getattr(actions, action)(folder)
    except BaseException:  # noqa: BLE001 # this child may not return into the host
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
