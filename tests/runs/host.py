"""The process behind `processes.FlowProcess`: imports everything once, and forks for each run.

It reads one JSON mapping a line. ``{"run": …}`` forks a process in a session of its own and
answers with its id; ``{"poll": pid}`` answers with its exit status, or null while it runs.
"""

import json
import os
import sys
import traceback
from typing import Any

from tests.runs import drive, transforms


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        if "run" in asked:
            pid = os.fork()
            if pid == 0:
                _run(asked)
            answer: int | None = pid
        else:
            pid, status = os.waitpid(asked["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        print(json.dumps(answer), flush=True)


def _run(asked: dict[str, Any]) -> None:
    status = 1
    try:
        os.setsid()
        for name, stream in (("out", 1), ("err", 2)):
            os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ["TESTS_SLOWLY_S"] = str(asked["slowly_s"])  # for its workers
        transforms.SLOWLY_S = asked["slowly_s"]
        drive.main(asked["run"])
        status = 0
    except BaseException:  # noqa: BLE001 # this process may not return into the host
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
