"""One run over the samples of a dataset, as far as it is, and its report."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.flows.following import Identity
from prefect_pipestream.reporting.progress import Log
from prefect_pipestream.reporting.reports import ChunkReport, ChunkTime, RunReport, failed_sample
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.stages.noted import noted_transform
from prefect_pipestream.underfolder.opening import undo_bytes_of
from prefect_pipestream.work.chunk import Transform
from prefect_pipestream.work.limits import Limits

_LONGEST_TEXT = 300


@dataclass
class ProcessRun:
    """One execution of `process_samples`.

    Args:
        source: Where samples are read.
        target: Where they are written; may be the source.
        transform: What happens in between.
        keys: The items to write; None is all.
        retries: How often a failed sample is tried again.
        log: The flow run's logger.
        limits: What one sample may take; then chunks are worked on by processes that may end.
        result: What became of samples so far; see `go_on_from`.
        chunks: The time of each chunk.
        warnings: What looks wrong, beside what is known only at the end.
        warned: Whether it was said already that no sample has an item that is to be written.
    """

    source: DataStream
    target: DataStream
    transform: Transform
    keys: Sequence[str] | None
    retries: int
    log: Log
    limits: Limits | None = None
    result: ChunkReport = field(default_factory=ChunkReport)
    chunks: list[ChunkTime] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    warned: bool = False

    _done_before: int = 0

    @property
    def key(self) -> str:
        """The key of the run."""
        return self.target.run_key

    @property
    def works_apart(self) -> bool:
        """Whether chunks are worked on by processes that may end."""
        return self.limits is not None

    def begin_attempt_apart(self) -> None:
        """Begins another attempt at the run, by processes that may end."""
        is_in_place = self.target is self.source
        self.limits = self.limits or Limits()
        self.target = self.target.for_attempt()
        self.source = self.target if is_in_place else self.source
        self.source.recover()
        self.target.recover()

    def go_on_from(self, before: ChunkReport) -> None:
        """Takes over what earlier attempts did."""
        self.result, self._done_before = before, before.total

    def warn(self, warning: str) -> None:
        """Says what looks wrong: in the log now, and in the report."""
        self.log.warning(warning)
        self.warnings.append(warning)

    def add(self, report: ChunkReport, name: str) -> None:
        """Adds what became of a chunk of this name."""
        self.chunks.append(ChunkTime(name, dict(report.counts), report.seconds))
        self.result.add(report)
        self._warn_of_keys()

    def _warn_of_keys(self) -> None:
        """Says early, and once, if no sample has an item that is to be written: a typing error."""
        if self.result.unseen_keys and not self.warned:
            self.warned = True
            for warning in self._warnings():
                self.log.warning("So far: %s", warning)

    def _warnings(self) -> list[str]:
        processed = self.result.total - self._done_before
        return [
            f"keys: none of the {processed:,} samples processed had an item {key!r} to write."
            for key in sorted(self.result.unseen_keys or ())
        ]

    def report(self, seconds: float) -> RunReport:
        """The report on the whole run, of which this attempt took so many seconds."""
        undo_bytes = self._undo_bytes()  # which may warn
        processed = self.result.total - self._done_before
        return RunReport(
            run_key=self.target.run_key,
            counts=self.result.counts,
            failures=sorted(self.result.failures, key=lambda failure: failure.idx),
            duration_s=seconds,
            samples_per_second=processed / seconds if seconds > 0 else 0.0,
            done_before=self._done_before,
            warnings=[*self.warnings, *self._warnings()],
            undo_bytes=undo_bytes,
        )

    def _undo_bytes(self) -> int:
        """The space that the run's undo files hold; a run does not fail for not knowing it."""
        run = self.target.run
        try:
            return undo_bytes_of(self.target.output_folder, run.key)
        except (DatasetError, OSError) as error:
            self.warn(f"It is not known what the undo of run {run.key!r} holds: {error}")
            return 0

    def report_when_stopped(self, error: BaseException, seconds: float) -> RunReport:
        """The report on a run that cannot go on: what its ledger has, and why it stopped."""
        run = self.target.run
        report = self.report(seconds)
        stopped = f"The run stopped before its end: {type(error).__name__}: {error}"
        found = {
            "counts": run.counts(),
            "failures": list(map(failed_sample, run.failures())),
            "warnings": [stopped, *report.warnings],
        }
        return report.model_copy(update=found)


def identity_of(run: ProcessRun, fingerprint: str | None = None) -> Identity:
    """What a run's transform is known by.

    Args:
        run: The run.
        fingerprint: By what later runs know it; by default its own fingerprint.
    """
    noted = json.dumps(noted_transform(run.transform.stage), ensure_ascii=False)
    text = noted if len(noted) <= _LONGEST_TEXT else noted[: _LONGEST_TEXT - 1] + "…"
    return Identity(fingerprint or run.transform.fingerprint(run.keys), text)
