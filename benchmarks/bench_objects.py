"""A dataset in a bucket: `process_samples` in place beside a plain loop with as many requests.

Both read, invert and write images of a real S3 server on this machine, 16 requests in flight. The
server is made slower by a proxy that waits, as if it were far away, and that counts the requests a
sample.
"""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from _bucket import IN_FLIGHT, Proxy, Server, fill, use
from _prefect import own_prefect
from _report import figure, parser, ratio, temporary_folder, title


def loop(name: str, count: int) -> float:
    """The best plain loop: every worker reads, inverts and writes one object after the other."""
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

    began = time.perf_counter()
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(one, range(count)))
    return time.perf_counter() - began


def ours(name: str, count: int) -> float:
    from prefect_pipestream.blocks import ReadWriteUnderfolder
    from prefect_pipestream.flows.processing import process_samples

    dataset = ReadWriteUnderfolder(folder=f"s3://bench/{name}")
    began = time.perf_counter()
    report = process_samples(dataset, ["invert"], artifacts=False)
    took = time.perf_counter() - began
    assert report.counts["written"] == count, report
    return took


def warm_up(folder: Path) -> None:
    """Start Prefect's server, which is no part of a run."""
    from prefect_pipestream.flows.processing import process_samples
    from prefect_pipestream.sequences import SamplesSequence

    SamplesSequence.toy_dataset(3, image_size=16).to_underfolder(folder).run()
    process_samples(folder, ["invert"], artifacts=False)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--samples", type=int, default=1000)
    options.add_argument("--size", type=int, default=128)
    options.add_argument("--pauses", type=float, nargs="*", default=[0, 0.02], help="seconds")
    given = options.parse_args()
    with temporary_folder(given.temporary_folder) as folder, own_prefect(folder):
        server = Server(str(folder))
        try:
            warm_up(folder / "warm")
            for pause in given.pauses:
                title(
                    f"{given.samples} JPEGs of {given.size}×{given.size}, "
                    f"{1000 * pause:.0f} ms more a request"
                )
                rates, asked = {}, {}
                for side, run in (("loop", loop), ("ours", ours)):
                    name = f"{side}-{pause}"
                    use(server.port)
                    fill(name, given.samples, given.size)
                    proxy = Proxy(server.port, pause)
                    use(proxy.port)
                    took = run(name, given.samples)
                    rates[side], asked[side] = given.samples / took, proxy.requests / given.samples
                    figure(side, rates[side], "samples/s", 0)
                    figure("    requests", asked[side], "a sample", 2)
                    proxy.end()
                against = rates["ours"] / rates["loop"]
                figure("ours against the loop", against, "×", 2)
                ratio("    by requests", against * asked["ours"] / asked["loop"], at_least=0.8)
        finally:
            server.end()


if __name__ == "__main__":
    main()
