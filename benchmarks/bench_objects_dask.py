"""A flow over a dataset in a bucket on Dask: killed, gone on with, and undone byte for byte.

It has two worker processes, and is compared with a plain loop in two processes, each with 16
requests under way, by samples a second and by requests a second. Dask's own profiler, which
looks at each thread a hundred times a second, is off. Needs the extra `[dask]`.
"""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

from _bucket import IN_FLIGHT, Proxy, Server, fill, free_port, use
from _report import figure, parser, ratio, temporary_folder, title

WORKERS = 2
_RUN = "the run"


@contextmanager
def prefect_server(folder: Path) -> Iterator[None]:
    """A server for the flow and all of its worker processes, away from the user's."""
    port = free_port()
    os.environ |= {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    log = folder / "prefect.log"
    with log.open("wb") as file:
        server = subprocess.Popen([sys.executable, "-m", *command], stdout=file, stderr=file)
    try:
        until = time.monotonic() + 120
        while server.poll() is None and time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.2)
        else:
            raise SystemExit(f"Prefect's server did not start:\n{log.read_text()[-2000:]}")
        yield
        if server.poll() is not None:
            raise SystemExit(f"Prefect's server ended:\n{log.read_text()[-2000:]}")
    finally:
        server.kill()
        server.wait()


def flow(name: str) -> None:
    """The flow, in a process of its own: prints how many were done before, and its seconds.

    The workers are started before it, as those of the loop are.
    """
    os.environ["DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"] = "False"  # read by the import
    from distributed import Client, LocalCluster
    from prefect_dask import DaskTaskRunner

    from prefect_pipestream.blocks import ReadWriteUnderfolder
    from prefect_pipestream.flows.processing import process_samples

    dataset = ReadWriteUnderfolder(folder=f"s3://bench/{name}")
    threads = IN_FLIGHT // WORKERS
    with (
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=threads, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        client.run(import_module, "prefect_pipestream.flows.processing")
        client.run(import_module, "prefect.task_engine")
        runner = DaskTaskRunner(address=cluster.scheduler_address)
        on_dask = process_samples.with_options(task_runner=runner)
        report = on_dask(dataset, ["invert"], run_key=_RUN, artifacts=False)
    print(report.done_before, report.counts["written"], report.duration_s)


def started(name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, "--flow", name],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def files_in(name: str) -> dict[str, bytes]:
    import obstore
    from obstore.store import from_url

    store = from_url(f"s3://bench/{name}")
    keys = [meta["path"] for some in obstore.list(store, "data") for meta in some]
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        contents = pool.map(lambda key: bytes(obstore.get(store, key).bytes()), keys)
        return dict(zip(keys, contents, strict=True))


def loop(name: str, indices: range) -> None:
    """One process of the plain loop: each thread reads, inverts and writes one after the other."""
    import imageio.v3 as iio
    import obstore
    from obstore.store import from_url

    store = from_url(f"s3://bench/{name}")

    def one(idx: int) -> None:
        key = f"data/{idx:06d}_image.jpeg"
        image = iio.imread(bytes(obstore.get(store, key).bytes()), extension=".jpeg")
        stream = io.BytesIO()
        iio.imwrite(stream, 255 - image, extension=".jpeg", quality=75)
        obstore.put(store, key, stream.getvalue())

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(one, indices))


def in_plain_processes(name: str, count: int) -> float:
    parts = [range(number, count, WORKERS) for number in range(WORKERS)]
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
        list(pool.map(partial(loop, name), [range(0)] * WORKERS))  # starts them
        began = time.perf_counter()
        list(pool.map(partial(loop, name), parts))
        return time.perf_counter() - began


def killed_at(name: str, commits: int) -> int:
    """Starts the flow, and kills all its processes once it has made some commits."""
    from prefect_pipestream.storage.address import Address
    from prefect_pipestream.storage.store import Store

    store = Store(Address.of(f"s3://bench/{name}"))
    running = started(name)
    until = time.monotonic() + 300
    while len(store.files_in(".pipestream/log")) < commits:
        if running.poll() is not None or time.monotonic() > until:
            raise SystemExit("the flow ended, or did not get on, before it was killed")
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    return running.wait()


def measure(server: Server, count: int, size: int, pause: float) -> None:
    from prefect_pipestream.underfolder import undo_run

    title(
        f"{count} JPEGs of {size}×{size}, {WORKERS} worker processes of Dask, "
        f"{1000 * pause:.0f} ms more a request"
    )
    rates = {}
    asked = {}
    for side in ("loop", "ours"):
        name = f"{side}-{pause}"
        use(server.port)
        fill(name, count, size)
        before = files_in(name)
        done_before = 0
        if side == "ours":
            figure("killed by signal", -killed_at(name, 10), "", 0)
        proxy = Proxy(server.port, pause)
        use(proxy.port)
        if side == "loop":
            seconds = in_plain_processes(name, count)
        else:
            said, _ = started(name).communicate()
            done_before, written, seconds = map(float, said.split())
            figure("done before", done_before, "samples", 0)
            figure("written", written, "samples", 0)
        done = count - done_before
        rates[side], asked[side] = done / seconds, proxy.requests / done
        proxy.end()
        figure("ours, gone on with" if side == "ours" else "loop", rates[side], "samples/s", 0)
        figure("    requests", asked[side], "a sample", 2)
    against = rates["ours"] / rates["loop"]
    figure("ours against the loop", against, "×", 2)
    ratio("    by requests", against * asked["ours"] / asked["loop"], at_least=0.8)
    use(server.port)
    after = files_in(name)
    changed = sum(after[file] != content for file, content in before.items())
    figure("files that changed", changed, "", 0)
    began = time.perf_counter()
    undo_run(f"s3://bench/{name}", _RUN)
    figure("undo", count / (time.perf_counter() - began), "samples/s", 0)
    restored = files_in(name)
    wrong = sum(restored.get(file) != content for file, content in before.items())
    figure("files that are not as before", wrong + len(restored) - len(before), "", 0)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--samples", type=int, default=5000)
    options.add_argument("--size", type=int, default=128)
    options.add_argument("--pauses", type=float, nargs="*", default=[0, 0.02], help="seconds")
    options.add_argument("--flow", metavar="NAME", help="only run the flow on this dataset")
    given = options.parse_args()
    if given.flow is not None:
        flow(given.flow)
        return
    with temporary_folder(given.temporary_folder) as folder, prefect_server(folder):
        server = Server(str(folder))
        try:
            for pause in given.pauses:
                measure(server, given.samples, given.size, pause)
        finally:
            server.end()


if __name__ == "__main__":
    main()
