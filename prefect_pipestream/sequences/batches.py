"""A sequence in tuples of samples."""

from collections.abc import Iterator, Sequence

from prefect_pipestream.sequences.sample import Sample


def batches(
    samples: Sequence[Sample], size: int, drop_last: bool, fill: Sample
) -> Iterator[tuple[Sample, ...]]:
    """See `SamplesSequence.batch`."""
    if size < 1:
        raise ValueError(f"the batch size is {size}, expected at least 1.")
    return _batches(samples, size, drop_last, fill)


def _batches(
    samples: Sequence[Sample], size: int, drop_last: bool, fill: Sample
) -> Iterator[tuple[Sample, ...]]:
    length = len(samples)
    for start in range(0, length, size):
        batch = tuple(samples[idx] for idx in range(start, min(start + size, length)))
        if len(batch) < size:
            if drop_last:
                return
            batch += (fill,) * (size - len(batch))
        yield batch
