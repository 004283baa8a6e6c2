"""Ingest: find a source's cases, check, harmonise and store them.

The path of one case: card + folder -> :mod:`abdoseg.readers.layouts` (files) -> :mod:`abdoseg.readers` (voxels)
-> :mod:`abdoseg.relabel` (structure ids, sides) -> :mod:`abdoseg.harmonise` (RAS+, spacing, window) ->
:mod:`abdoseg.store` (whole or not at all). A broken case is quarantined with its reason; the others go on.
"""

import csv
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from abdoseg import geometry, harmonise, relabel
from abdoseg.anatomy import Anatomy
from abdoseg.annotation import Annotation
from abdoseg.cards import Card
from abdoseg.case import Case, CaseFacts, Foreground
from abdoseg.errors import CardError, CaseError, WorkspaceError
from abdoseg.progress import SILENT, Progress
from abdoseg.readers import Scan, read_scan
from abdoseg.readers.layouts import CaseFiles, Finding, find_cases
from abdoseg.store import IngestRecord, Workspace
from abdoseg.store.arrays import is_case, write_case
from abdoseg.types import SplitName


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
    workspace: Workspace


def ingest(
    workspace: Workspace,
    card: Card,
    folder: Path,
    *,
    replace: bool = False,
    limit: int | None = None,
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
    finding = find_cases(card, folder)
    report = IngestReport(card.id, quarantined=dict(finding.faults), skipped=dict(finding.skipped))
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
        workspace.write_record(
            IngestRecord(
                source=card.id,
                card_digest=card_digest(card),
                quarantined=dict(sorted(report.quarantined.items())),
                skipped=report.skipped,
            )
        )
    return report


@contextmanager
def worker_pool(jobs: int) -> Iterator[Executor | None]:
    """Give an executor of ``jobs`` local processes; ``None`` for one (work in this process).

    Processes are spawned, not forked: numba's and torch's threads do not survive a fork.
    """
    if jobs <= 1:
        yield None
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield pool


def card_digest(card: Card) -> str:
    """Return a hash of what a card says about files, labels and annotation."""
    return hashlib.sha256(card.model_dump_json().encode()).hexdigest()[:16]


def _note(report: IngestReport, case: str, outcome: CaseFacts | str) -> None:
    if isinstance(outcome, str):
        report.quarantined[case] = outcome
    else:
        report.taken.append(outcome)


def _jobs(
    workspace: Workspace, card: Card, folder: Path, finding: Finding, report: IngestReport, *, replace: bool
) -> list[_Job]:
    rows = _read_table(card, folder, report)
    jobs = []
    for files in finding.cases:
        if files.case in report.quarantined:
            continue
        if not replace and is_case(workspace.case_folder(f"{card.id}/{files.case}")):
            report.present.append(files.case)
        else:
            jobs.append(_Job(card, files, rows.get(files.case, {}), workspace))
    record = workspace.records().get(card.id)
    if report.present and record is not None and record.card_digest != card_digest(card):
        report.warnings.append("the card changed since the present cases were taken; --replace takes them again")
    return jobs


def _run(jobs: list[_Job], executor: Executor | None) -> Iterator[tuple[_Job, CaseFacts | str]]:
    if executor is None:
        for job in jobs:
            yield job, _ingest_case(job)
        return
    futures = {executor.submit(_ingest_case, job): job for job in jobs}
    for future in as_completed(futures):
        yield futures[future], future.result()


def _ingest_case(job: _Job) -> CaseFacts | str:
    """Work on one case; return its facts, or the reason why it cannot be used."""
    try:
        case = build_case(job.card, job.files, job.row, job.workspace)
        foreground = Foreground.of(case.label, len(job.workspace.anatomy))
        write_case(job.workspace.case_folder(case.facts.key), job.workspace.incoming, case, foreground)
    except (CaseError, CardError) as error:
        return str(error)
    except MemoryError:
        return f"{job.files.image.name}: not enough memory for this scan"
    return case.facts


def build_case(card: Card, files: CaseFiles, row: dict[str, str], workspace: Workspace) -> Case:
    """Read and harmonise one case; nothing is written.

    Raises
    ------
    CaseError
        If image or label cannot be used; the message says why.
    """
    settings = workspace.settings
    image = read_scan(files.image)
    relabelled = _read_label(card, files, row, image, settings.anatomy)
    harmonised = harmonise.harmonise_image(
        image.array, image.affine, card.modality, settings.windows, settings.spacing_mm
    )
    label = harmonise.harmonise_label(relabelled.label, image.affine, harmonised.grid)
    ids = settings.anatomy.ids_of(relabelled.annotated)
    suspect = (f"suspect: {card.suspect[files.case]}",) if files.case in card.suspect else ()
    facts = CaseFacts(
        case=files.case,
        source=card.id,
        modality=card.modality,
        patient=files.patient,
        split=_official_side(card, files, row),
        shape=harmonised.grid.shape,
        affine=harmonised.grid.affine.tolist(),
        native_shape=image.grid.shape,
        native_affine=image.affine.tolist(),
        scale=harmonised.scale,
        offset=harmonised.offset,
        window=harmonised.window,
        annotation=Annotation.partial(ids, len(settings.anatomy)).to_json(),
        voxels=_count(label, settings.anatomy),
        fingerprint=_fingerprint(harmonised.image),
        warnings=(*image.warnings, *relabelled.warnings, *suspect),
        done=(*_geometry_done(image, settings.spacing_mm), *relabelled.done),
    )
    return Case(facts, harmonised.image, label)


def _read_label(card: Card, files: CaseFiles, row: dict[str, str], image: Scan, anatomy: Anatomy) -> relabel.Relabelled:
    annotated = card.annotated_in(row)
    if files.label is not None:
        return relabel.relabel_map(files.label, image, card, annotated, anatomy)
    return relabel.relabel_masks(files.masks, image, card, annotated, anatomy)


def _geometry_done(image: Scan, spacing_mm: float) -> tuple[str, ...]:
    codes = geometry.axis_codes(image.affine)
    spacing = " x ".join(f"{s:.3g}" for s in image.grid.spacing_mm)
    turned = (f"turned {codes} to RAS",) if codes != "RAS" else ()
    return (*turned, f"resampled {spacing} mm to {spacing_mm:g} mm")


def _count(label: NDArray[np.uint8], anatomy: Anatomy) -> dict[str, int]:
    counts = np.bincount(label.reshape(-1), minlength=len(anatomy) + 1)
    return {name: int(counts[i]) for i, name in enumerate(anatomy.names, start=1) if counts[i]}


def _fingerprint(image: NDArray[np.int16]) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes() + str(image.shape).encode()).hexdigest()[:32]


def _official_side(card: Card, files: CaseFiles, row: dict[str, str]) -> SplitName | None:
    if card.split is None:
        return None
    text = files.names.get(card.split.group or "") or row.get(card.split.column or "", "")
    return card.split.sides.get(text.strip())


def _read_table(card: Card, folder: Path, report: IngestReport) -> dict[str, dict[str, str]]:
    """Return case -> row of the source's table; a missing table is a warning, a malformed one an error."""
    if card.table is None:
        return {}
    found = sorted(folder.rglob(card.table.path))
    if not found:
        report.warnings.append(f"no {card.table.path} found: official split and exceptions of the card do not apply")
        return {}
    try:
        with found[0].open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter=card.table.separator))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CardError(f"{found[0]}: cannot be read as a table ({error})") from error
    if rows and card.table.key not in rows[0]:
        msg = f"{found[0]}: columns {', '.join(rows[0])}, expected one called {card.table.key}"
        raise CardError(msg)
    return {row[card.table.key]: {k: v or "" for k, v in row.items() if isinstance(k, str)} for row in rows}


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
    """Hold the source's lock and clean up what a killed ingest of it left behind."""
    path = workspace.path / "sources" / f".{source}.lock"
    try:
        workspace.incoming.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        msg = f"{workspace.path}: cannot be written ({error.strerror}); check permissions or choose --workspace"
        raise WorkspaceError(msg) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WorkspaceError(f"{source}: another ingest of this source is running; wait for it to end") from error
        for leftover in workspace.incoming.glob(f"{source}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
    finally:
        os.close(handle)
