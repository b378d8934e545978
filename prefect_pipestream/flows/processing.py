"""`process_samples`: the flow that maps the tasks across the samples of a dataset."""

import time
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from prefect import flow, get_run_logger
from prefect.context import FlowRunContext
from prefect.states import Failed
from pydantic import Field, InstanceOf

from prefect_pipestream.blocks import (
    CreateNewUnderfolder,
    DataStreamBlock,
    OutputUnderfolder,
    PipedDataStream,
    ReadWriteUnderfolder,
)
from prefect_pipestream.errors import DatasetError, PipestreamError, RunTakenOverError
from prefect_pipestream.flows.by_chunk import run_by_chunk
from prefect_pipestream.flows.by_sample import run_by_sample
from prefect_pipestream.flows.gating import OnInvalid, finish_undo, gate, pack_ledger, take_back
from prefect_pipestream.flows.planning import as_report, check_planning, plan_run
from prefect_pipestream.flows.process_run import ProcessRun, identity_of
from prefect_pipestream.flows.provenance import provenance_of
from prefect_pipestream.flows.redoing import check_redo, take_back_chosen
from prefect_pipestream.flows.runner import explained_death
from prefect_pipestream.flows.selection import (
    Choice,
    Select,
    select_samples,
    warning_of_another_transform,
)
from prefect_pipestream.flows.space import warn_of_space
from prefect_pipestream.reporting.artifacts import artifact_key, publish_report
from prefect_pipestream.reporting.events import tell_of_run
from prefect_pipestream.reporting.progress import shown_progress
from prefect_pipestream.reporting.reports import FailedSample, RunReport, TooManyFailedError
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.sequences.query import parse_where
from prefect_pipestream.underfolder.format.run_key import check_run_key, new_run_key
from prefect_pipestream.underfolder.ledger.provenance import SourceState
from prefect_pipestream.validation import ItemRule, SampleRules
from prefect_pipestream.work.chunk import Transform
from prefect_pipestream.work.limits import Limits
from prefect_pipestream.work.streams import opened, opened_to_plan, run_key_in_force

__all__ = ["FailedSample", "RunReport", "Select", "TooManyFailedError", "process_samples"]

AnyStream = InstanceOf[DataStreamBlock] | InstanceOf[DataStream]
Source = ReadWriteUnderfolder | PipedDataStream | AnyStream | Path
Target = (
    CreateNewUnderfolder
    | OutputUnderfolder
    | ReadWriteUnderfolder
    | PipedDataStream
    | AnyStream
    | Path
)


@flow(name="process-samples")
def process_samples(
    source: Source,
    transform: Any,
    target: Target | None = None,
    indices: list[int] | InstanceOf[range] | None = None,
    keys: list[str] | None = None,
    tasks_per: Literal["chunk", "sample"] = "chunk",
    chunk_size: Annotated[int, Field(gt=0)] | None = None,
    sample_retries: Annotated[int, Field(ge=0)] = 2,
    max_failed: Annotated[float, Field(ge=0, le=1)] = 0.0,
    run_key: str | None = None,
    select: Select = "all",
    artifacts: bool = True,
    encoder_options: dict[str, dict[str, Any]] | None = None,
    where: str | None = None,
    sample_timeout: Annotated[float, Field(gt=0)] | None = None,
    sample_memory: Annotated[float, Field(gt=0)] | None = None,
    rules: list[ItemRule] | None = None,
    allow_other_items: bool = True,
    on_invalid: OnInvalid = "fail",
    plan: bool = False,
    follow: str | None = None,
    redo: bool = False,
) -> RunReport:
    """Reads, transforms and writes samples, in place or from a source to a target.

    A bad sample never stops the others: it is tried again, then recorded in the report and in
    the dataset's ledger. What is done is committed in batches; a retry of the flow run, or a new
    run given the same run key, goes on where the last one was stopped.

    Args:
        source: The dataset to read, or its folder.
        transform: What to do with each sample: a list of operations, each "name" or
            {"name": arguments}, such as ["verify-items", {"resize-images": {"size": [64, 64]}}];
            "package.module:name" names a stage of your own. From Python also a stage, or a
            function from a sample to a sample, to None (write nothing), to a pair of a sample
            and its new index, or to `REMOVE`.
        target: The dataset to write, or the folder of a new one; by default the source itself.
        indices: The samples to process; by default all.
        keys: The items to write; by default all.
        tasks_per: "chunk" processes many samples in each task run. "sample" runs three tasks
            for each sample, so that every one is seen in the UI; it costs some 30 ms a sample.
        chunk_size: How many samples a chunk has; by default a few seconds of work.
        sample_retries: How often a sample that fails is tried again, each time after a pause
            twice as long as the last.
        max_failed: The share of the samples that may fail before the run counts as failed.
        run_key: The run's name in the dataset's ledger; by default the flow run's id, or, where
            another flow calls this one, one made of that one's. Give that of an earlier run, or
            the name that it was given, to go on with it.
        select: Which samples: "all"; "changed" since a run of the same transform saw them;
            "failed" in the run of the run key, or, where none is given, in the last run.
        artifacts: Whether the flow run gets a progress artifact and a report with pictures.
        encoder_options: How items that change are encoded, by key, such as {"image": {"quality":
            90, "metadata": "strip"}}; by default as their files were, whose metadata they keep.
        where: A query that is to be true of the samples of the source, such as "metadata.label == 3
            and not metadata.reviewed"; see `Sample.match`. What `indices` and `select` say is to be
            so, too. A run that is gone on with keeps to the query that it was begun with.
        sample_timeout: The time in seconds after which a sample fails that is still being read,
            transformed and encoded, with where it stood. With it, or `sample_memory`, chunks are
            worked on by processes that are ended where a sample hangs, crashes or calls
            `os._exit`: that sample alone fails. The transform is to be picklable (by cloudpickle).
        sample_memory: The memory in MiB that such a process may take beyond what it had before;
            on Linux.
        rules: What is expected of items, as for `validate_dataset`. Each sample is held against
            them as it would be on disk, with the items that are not written and the shared ones,
            before it is committed: one that is not valid fails, and is not tried again. None, or
            empty, checks nothing. A run that is gone on with keeps to its rules.
        allow_other_items: With rules, whether samples may have items that no rule is about.
        on_invalid: What becomes of the run where more than the share `max_failed` failed: "fail",
            and the others stay written; or "undo": it takes itself back when no retry is left, with
            all that earlier attempts at it wrote. It counts for nothing then, and a later retry
            begins it anew.
        plan: Whether the run is only to be planned: which samples it would process and why, how
            long it would take, what undo would hold, and some samples before and after. Nothing
            of a dataset is written; a few samples are transformed, in memory.
        follow: The key of a plan: just the samples that it has are processed, and of those the
            ones that are still as they were. What was changed, is gone or came since is named in
            the warnings of the report. The samples are chosen as they were for the plan. A run
            whose `run_key` is the key of a plan goes by that one.
        redo: Whether samples that the run of the `run_key` has done are processed once more: those
            of `indices` and `where` are taken back first, as `undo_run` does it.

    Returns:
        What became of the samples. With `plan`, the plan: a `RunPlan` (see `plan_of`).

    Raises:
        PipeBuildingError: If the transform's name, an argument, an encoder option or a rule is
            wrong, or the rules are others than those of the run; nothing was written.
        QueryError: If the query cannot be understood, which is a `PipeBuildingError`; or asks what
            cannot be answered, or is another than that of the run; nothing was written.
        TooManyFailedError: If more than the share `max_failed` failed; it has the report, which
            tells whether the run took itself back, or why it could not.
        PlanError: If the plan to follow is not there, or is of another transform or dataset;
            nothing was written.
        DatasetError: If a dataset cannot be opened or written.
        IndexError: If the source has no sample of one of the indices.
        RunNotFoundError: If failed samples are asked for, and there is no run of the run key,
            or none at all.
        RunTakenOverError: If another attempt at the run began meanwhile.
        WorkerDiedError: If a worker process was killed; the run can be gone on with.
        UndoRefusedError: If a sample is to be redone that somebody changed since.
        ValueError: If there is a limit, and `tasks_per` is "sample"; or if samples are to be
            redone, and no run is named, or a plan.

    Example:
        ```python
        from prefect_pipestream.blocks import ReadWriteUnderfolder
        from prefect_pipestream.flows.processing import process_samples

        if __name__ == "__main__":
            dataset = ReadWriteUnderfolder(folder="datasets/mini_mnist")
            report = process_samples(dataset, ["invert"])
            print(report.summary())
        ```
    """
    if isinstance(source, Path):
        source = ReadWriteUnderfolder(folder=source)
    if isinstance(target, Path):
        target = CreateNewUnderfolder(folder=target)
    prepared = Transform(transform, encoder_options)
    limits = Limits.of(sample_timeout, sample_memory)
    if limits is not None and tasks_per == "sample":
        raise ValueError(
            "sample_timeout, sample_memory: with tasks_per='sample' samples have no limits. Use "
            "tasks_per='chunk', or the tasks with `timeout_seconds`."
        )
    if where is not None:
        parse_where(where)
    given = SampleRules.gate(rules, allow_other_items)
    check_planning(plan, follow)
    check_redo(redo, run_key, plan, follow)
    choice = Choice(select, indices, is_named=run_key is not None, where=where, follow=follow)
    log = get_run_logger()
    if plan:
        reader, writer = _opened_to_plan(source, target, run_key)
    else:
        key = run_key_in_force() if run_key is None else check_run_key(run_key)
        key = key or new_run_key("run")
        reader = opened(source, key)
        output = reader if target is None else opened(target, key)
        if redo:
            choice = take_back_chosen(reader, output, choice, log)
        # What workers of an earlier attempt still have under way is refused from here on.
        writer = output.for_attempt()
        reader = writer if target is None else reader
    run = ProcessRun(reader, writer, prepared, keys, sample_retries, log, limits)
    if plan:
        gate(run, given)
        return as_report(plan_run(run, choice, identity_of(run), artifacts))
    return run_to_its_end(
        run,
        choice,
        tasks_per,
        chunk_size,
        max_failed,
        artifacts,
        rules=given,
        on_invalid=on_invalid,
    )


def _opened_to_plan(
    source: AnyStream, target: AnyStream | None, run_key: str | None
) -> tuple[DataStream, DataStream]:
    """Opens where a run would read and write, which may be the same; nothing is made."""
    key = new_run_key("run") if run_key is None else check_run_key(run_key)
    reader = opened_to_plan(source, key)
    return reader, reader if target is None else opened_to_plan(target, key)


def run_to_its_end(
    run: ProcessRun,
    choice: Choice,
    tasks_per: Literal["chunk", "sample"] = "chunk",
    chunk_size: int | None = None,
    max_failed: float = 0.0,
    artifacts: bool = True,
    fingerprint: str | None = None,
    origin: SourceState | None = None,
    rules: SampleRules | None = None,
    on_invalid: OnInvalid = "fail",
    **facts: Any,
) -> RunReport:
    """Processes what is left of a run, and reports; see `process_samples`.

    Args:
        run: The run.
        choice: Which samples it is about.
        tasks_per: "chunk" or "sample".
        chunk_size: How many samples a chunk has; None: a few seconds of work.
        max_failed: The share of the samples that may fail.
        artifacts: Whether there are a progress artifact and a report.
        fingerprint: By what later runs know the transform; by default its own fingerprint.
        origin: What is read, where it is no stream that can be asked.
        rules: What samples are to be like that it writes; None: as it was begun.
        on_invalid: Whether the run takes itself back where too many samples failed.
        **facts: What is noted of the run, beside its transform.
    """
    identity = identity_of(run, fingerprint)
    run.source.recover()  # a commit that a killed attempt had logged counts as done
    run.target.recover()
    if on_invalid == "undo":
        finish_undo(run)
    facts |= gate(run, rules)
    log, writer = run.log, run.target
    selection = select_samples(run.source, writer, choice, identity, log)
    todo, before = selection.todo, selection.before
    log.info("Run %s: %d samples to process, %d done before.", run.key, len(todo), before.total)
    run.go_on_from(before)
    for warning in selection.warnings:
        run.warn(warning)
    another = warning_of_another_transform(writer, identity.fingerprint)
    if before.total and another is not None:
        run.warn(another)
    began = time.perf_counter()
    if len(todo):
        facts |= provenance_of(run, origin)
        warn_of_space(run, todo)
        writer.begin_run(fingerprint=identity.fingerprint, **selection.facts, **facts)
        artifact = artifact_key("progress", writer.output_folder) if artifacts else None
        try:
            with (
                shown_progress(selection.total, before.total, artifact, log) as advance,
                explained_death(run.key),
            ):
                if tasks_per == "chunk":
                    run_by_chunk(run, todo, chunk_size, advance)
                else:
                    run_by_sample(run, todo, advance)
        except RunTakenOverError:
            raise  # the attempt that has the run now tells of it
        except PipestreamError as error:
            if artifacts:
                _tell_of_stop(run, error, time.perf_counter() - began)
            raise
    seconds = time.perf_counter() - began
    return _reported(run, seconds, len(todo), max_failed, artifacts, on_invalid)


def _reported(
    run: ProcessRun,
    seconds: float,
    processed: int,
    max_failed: float,
    artifacts: bool,
    on_invalid: OnInvalid,
) -> RunReport:
    """Shows what became of a run that got to its end, and packs its ledger."""
    log, writer = run.log, run.target
    report = run.report(seconds)
    is_ok = report.is_within(max_failed)
    took = f" in {report.duration_s:.1f} s" if processed else "; nothing left to do"
    log.info("Run %s: %s%s", run.key, report.summary(), took)
    taken_back = None
    if on_invalid == "undo" and not is_ok and not _will_retry():
        report, taken_back = take_back(run, report, artifacts)
    if artifacts:
        publish_report(report, run.source, writer, run.chunks, log, taken_back)
    if is_ok or not _will_retry():
        tell_of_run(report, run.source, writer, is_ok)
    # Its last attempt may have been killed when all samples were done, and its end not noted.
    if taken_back is None and (processed or (report.done_before and not writer.run.has_ended())):
        pack_ledger(writer, log)
    return report if is_ok else _failed(report, max_failed)


def _tell_of_stop(run: ProcessRun, error: PipestreamError, seconds: float) -> None:
    """Shows what a run did that cannot go on: beside the error, which is what counts."""
    try:
        report = run.report_when_stopped(error, seconds)
    except DatasetError as second:
        run.log.warning("There is no report, as the run's ledger cannot be read: %s", second)
        return
    publish_report(report, run.source, run.target, run.chunks, run.log)


def _failed(report: RunReport, max_failed: float) -> RunReport:
    """Ends the flow run as failed with an error that carries the report."""
    error = TooManyFailedError(report, max_failed)
    if _will_retry():
        # Only after an exception does Prefect run the flow function again, up to its release 3.9.0.
        raise error
    # A state in place of a result ends the run without a stack trace in its log. Where the flow
    # was called from Python, Prefect raises the error.
    return cast(RunReport, Failed(message=str(error), data=error))


def _will_retry() -> bool:
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return True
    retries = context.flow_run.empirical_policy.retries or 0
    return context.flow_run.run_count <= retries
