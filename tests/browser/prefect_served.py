"""A Prefect server, and a flow of this package that is served as a deployment."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ui.api import Api, waited
from tests.ui.host import PrefectHost


@contextmanager
def served_flow(folder: Path, flow: str, name: str) -> Iterator[PrefectHost]:
    """Starts both; ends both."""
    host = PrefectHost(folder / "host")
    program = (
        f"from prefect_pipestream.flows import {flow}\n"
        f"{flow}.serve(name={name!r}, pause_on_shutdown=False)"
    )
    process = None
    try:
        host.start_server()
        with open(folder / "serve.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", program],
                env=host.env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wanted = {"deployments": {"name": {"any_": [name]}}}
        waited(lambda: bool(Api(host).ask("deployments/filter", wanted)))
        yield host
    finally:
        if process is not None:
            host.kill(process)
        host.stop()
