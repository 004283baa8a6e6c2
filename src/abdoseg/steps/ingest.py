"""Ingest: find a source's cases, check, harmonise and store them.

The path of one case: card + folder -> :mod:`abdoseg.readers.layouts` (files) -> :mod:`abdoseg.intake` (one harmonised
case in memory) -> :mod:`abdoseg.store` (whole or not at all). A broken case is quarantined with its reason; the others
go on.
"""

import ctypes
import dataclasses
import os
import signal
import sys
from collections.abc import Collection, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from filelock import Timeout

from abdoseg.cards import Card, check_structures
from abdoseg.case import CaseFacts
from abdoseg.errors import CardError, CaseError, ConfigError, WorkspaceError
from abdoseg.intake import build_case, card_digest
from abdoseg.places import locked, make_folder, reason_of, remove_tree, storage_errors
from abdoseg.progress import SILENT, Progress
from abdoseg.readers.layouts import CaseFiles, Finding, find_cases
from abdoseg.reviews import SideDecision, load_reviews
from abdoseg.side_files import read_listed_slices, read_table, refuse_other_labels, require_labels
from abdoseg.slice_rows import ListedSlice
from abdoseg.store import IngestRecord, Workspace
from abdoseg.store.arrays import is_case, open_source, write_case

THREAD_VARIABLES = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What the libraries of a worker read, when they are loaded, to know how many threads to use."""

DASK_SECONDS = 10.0
"""How long to wait for a scheduler to answer."""


@dataclass
class IngestReport:
    """What an ingest did, by case.

    Parameters
    ----------
    source
        Card id.
    taken
        Facts of the cases stored now.
    present
        Ids of cases that were there already.
    quarantined
        Case id -> reason.
    skipped
        Reason -> images passed over by the source's own design.
    warnings
        About the source as a whole.
    """

    source: str
    taken: list[CaseFacts] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    quarantined: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether something was quarantined."""
        return bool(self.quarantined)


@dataclass(frozen=True)
class _Job:
    """Everything one worker needs for one case."""

    card: Card
    files: CaseFiles
    row: dict[str, str]
    listed: tuple[ListedSlice, ...]
    decisions: dict[str, SideDecision]
    workspace: Workspace


def ingest(
    workspace: Workspace,
    card: Card,
    folder: Path,
    *,
    replace: bool = False,
    limit: int | None = None,
    only: Collection[str] | None = None,
    unlabelled: bool = False,
    executor: Executor | None = None,
    progress: Progress = SILENT,
) -> IngestReport:
    """Take a source into the workspace.

    Parameters
    ----------
    workspace
        Where the cases go.
    card
        What the source is.
    folder
        Where its files lie.
    replace
        Take cases again that are there already.
    limit
        Take at most so many cases that are not there yet.
    only
        Look at these cases and leave the others as they are.
    unlabelled
        Take images without a label, too, as scans of which nothing is known.
    executor
        Where cases are worked on; default: this process, one at a time.
    progress
        Told after every case.

    Raises
    ------
    ConfigError, CardError
        If the folder is missing or empty, or no file fits the card.
    WorkspaceError
        If the workspace cannot be written, or another ingest of this source is running.
    """
    check_structures(card, workspace.settings.known)
    require_labels(card)
    finding = find_cases(card, folder, unlabelled=unlabelled)
    if only is not None:
        finding.cases[:] = [files for files in finding.cases if files.case in only]
        finding = dataclasses.replace(finding, faults={c: r for c, r in finding.faults.items() if c in only})
    refuse_other_labels(card, (files.image for files in finding.cases), folder)
    report = IngestReport(card.id, quarantined=dict(finding.faults), skipped=dict(finding.skipped))
    for case in [c for c in finding.faults if not replace and _is_unlabelled(workspace, f"{card.id}/{c}")]:
        del report.quarantined[case]  # taken without labels by an earlier ingest
        report.present.append(case)
    report.warnings.extend(finding.notes)
    for case in [c for c in card.exclude if any(f.case == c for f in finding.cases)]:
        report.quarantined[case] = f"excluded by the card: {card.exclude[case]}"
    with _locked(workspace, card.id):
        jobs = _jobs(workspace, card, folder, finding, report, replace=replace)[:limit]
        progress.start(len(jobs), f"ingesting {card.id}")
        for job, outcome in _run(jobs, executor):
            _note(report, job.files.case, outcome)
            progress.advance(1, job.files.case)
        report.taken.sort(key=lambda facts: facts.case)
        _check_whole(card, finding, report)
        tried = {job.files.case for job in jobs} | set(report.present) | set(report.quarantined)
        found = None if only is not None else {files.case for files in finding.cases}
        _write_record(workspace, report, card, folder, tried, found)
        if report.taken or report.present:  # present: an ingest that was killed may have left no index
            workspace.briefs([card.id])  # brings the source's index up to date
    return report


def _write_record(
    workspace: Workspace, report: IngestReport, card: Card, folder: Path, tried: set[str], found: set[str] | None
) -> None:
    """Save what could not be taken; what an earlier ingest said of cases that this one did not try stays.

    ``found`` are the cases that the folder holds; reasons about others are forgotten. ``None``: only some were wanted.
    """
    before = workspace.records().get(report.source)
    old = before.quarantined if before else {}
    kept = {c: r for c, r in old.items() if c not in tried and (found is None or c in found)}
    record = IngestRecord(
        source=report.source,
        quarantined=dict(sorted({**kept, **report.quarantined}.items())),
        skipped=before.skipped if found is None and before else report.skipped,
        folder=str(folder.resolve()),
        card=card.model_dump(mode="json", exclude_unset=True),
    )
    try:
        workspace.write_record(record)
    except WorkspaceError as error:
        # A full disk: the cases above have said so, and their reasons must still be shown.
        report.warnings.append(str(error))


@contextmanager
def worker_pool(jobs: int) -> Iterator[Executor | None]:
    """Give an executor of ``jobs`` local processes; ``None`` for one (work in this process).

    Processes are spawned, not forked: numba's and torch's threads do not survive a fork. Each uses one thread: the
    processes share the cores already.
    """
    if jobs <= 1:
        yield None
        return
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_end_with_parent)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextmanager
def dask_pool(address: str) -> Iterator[Executor]:
    """Give an executor on the Dask cluster whose scheduler is at ``address``, such as ``tcp://host:8786``.

    Its workers must see the source and the workspace under the same paths, and have the same version installed.

    Raises
    ------
    ConfigError
        If Dask is not installed, or nothing answers at the address.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigError(
            "--dask needs the package distributed; install abdoseg with the extra: abdoseg[dask]"
        ) from error
    try:
        client = Client(address, timeout=DASK_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        msg = f"--dask {address}: no scheduler answers there ({type(error).__name__}); check the address"
        raise ConfigError(msg) from error
    try:
        # Cases are not pure functions of their arguments: the file system is in them too.
        yield client.get_executor(pure=False, retries=0)
    finally:
        client.close()


def _end_with_parent() -> None:
    """Have this worker killed when its parent dies, lest it go on writing cases that nobody waits for."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _is_unlabelled(workspace: Workspace, key: str) -> bool:
    return is_case(workspace.case_folder(key)) and not workspace.read_facts(key).groups.has_annotation


def _note(report: IngestReport, case: str, outcome: CaseFacts | str) -> None:
    if isinstance(outcome, str):
        report.quarantined[case] = outcome
    else:
        report.taken.append(outcome)


def _jobs(
    workspace: Workspace, card: Card, folder: Path, finding: Finding, report: IngestReport, *, replace: bool
) -> list[_Job]:
    rows = read_table(card, folder)
    if card.table is not None and rows is None:
        report.warnings.append(f"no {card.table.path} found: official split and exceptions of the card do not apply")
    strangers = [files.case for files in finding.cases if rows is not None and files.case not in rows]
    if strangers and card.table is not None:
        some = f"{', '.join(strangers[:5])}{', ...' if len(strangers) > 5 else ''}"
        report.warnings.append(
            f"{card.table.path} has no row of {some}: no official split, and the card's exceptions hold"
        )
    rows = rows or {}
    listed = read_listed_slices(card, folder)
    reviews = load_reviews(workspace.path, card.id)
    jobs = []
    for files in finding.cases:
        if files.case in report.quarantined:
            continue
        if not replace and is_case(workspace.case_folder(f"{card.id}/{files.case}")):
            report.present.append(files.case)
        else:
            row, slices = rows.get(files.case, {}), listed.get(files.case, ())
            jobs.append(_Job(card, files, row, slices, reviews.of(files.case), workspace))
    old = [c for c in report.present if workspace.read_facts(f"{card.id}/{c}").card_digest != card_digest(card)]
    if old:
        report.warnings.append(f"the card changed since {len(old)} cases were taken; --replace takes them again")
    return jobs


def _run(jobs: list[_Job], executor: Executor | None) -> Iterator[tuple[_Job, CaseFacts | str]]:
    if executor is None:
        for job in jobs:
            yield job, _ingest_case(job)
        return
    futures = {executor.submit(_ingest_case, job): job for job in jobs}
    for future in as_completed(futures):
        try:
            outcome = future.result()
        except _lost_worker():
            outcome = "its process was killed, perhaps for memory; run the same command with fewer --jobs"
        yield futures[future], outcome


def _lost_worker() -> tuple[type[BaseException], ...]:
    """Return what says that the process of a case died."""
    dask = sys.modules.get("distributed")
    return (BrokenProcessPool, dask.scheduler.KilledWorker) if dask else (BrokenProcessPool,)


def _ingest_case(job: _Job) -> CaseFacts | str:
    """Work on one case; return its facts, or the reason why it cannot be used."""
    try:
        case, foreground = build_case(
            job.card, job.files, job.row, job.workspace, listed=job.listed, decisions=job.decisions
        )
        write_case(job.workspace.case_folder(case.facts.key), job.workspace.incoming / job.card.id, case, foreground)
    except (CaseError, CardError) as error:
        return str(error)
    except MemoryError:
        return f"{job.files.image.name}: not enough memory for this scan"
    return case.facts


def _check_whole(card: Card, finding: Finding, report: IngestReport) -> None:
    names = {name for facts in report.taken for name in facts.voxels}
    annotated = {facts.groups.structure_ids for facts in report.taken}
    if len(report.taken) >= 10 and annotated:
        missing = [name for name in card.annotated if name not in names]
        if missing:
            report.warnings.append(
                f"never seen in {len(report.taken)} cases: {', '.join(missing)}; check the label map"
            )
    if card.expected.cases is not None and len(finding.cases) > card.expected.cases:
        report.warnings.append(f"{len(finding.cases)} cases found, the source is known to have {card.expected.cases}")


@contextmanager
def _locked(workspace: Workspace, source: str) -> Iterator[None]:
    """Hold the source's lock, clean up what a killed ingest of it left behind, and make its Zarr group."""
    try:
        make_folder(workspace.path / "sources")
        with locked(workspace.path / "sources" / f".{source}.lock"):
            remove_tree(workspace.incoming / source)
            make_folder(workspace.incoming / source)
            open_source(workspace.source_folder(source), {"abdoseg_source": source})
            yield
            remove_tree(workspace.incoming / source)
    except WorkspaceError:
        raise
    except Timeout as error:
        raise WorkspaceError(f"{source}: another ingest of this source is running; wait for it to end") from error
    except storage_errors() as error:
        msg = f"{workspace.path}: cannot be written ({reason_of(error)}); check space, permissions or --workspace"
        raise WorkspaceError(msg) from error
