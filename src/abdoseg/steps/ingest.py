"""Ingest: find a source's cases, check, harmonise and store them.

The path of one case: card + folder -> :mod:`abdoseg.readers.layouts` (files) -> :mod:`abdoseg.readers` (voxels)
-> :mod:`abdoseg.relabel` (structure ids, sides) -> :mod:`abdoseg.harmonise` (RAS+, spacing, window) ->
:mod:`abdoseg.store` (whole or not at all). A broken case is quarantined with its reason; the others go on.
"""

import csv
import ctypes
import hashlib
import json
import shutil
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from abdoseg import geometry, harmonise, relabel
from abdoseg.anatomy import Anatomy
from abdoseg.annotation import Annotation
from abdoseg.cards import Card, check_structures
from abdoseg.case import Case, CaseFacts, Foreground
from abdoseg.errors import CardError, CaseError, WorkspaceError
from abdoseg.modality import modality_warning
from abdoseg.progress import SILENT, Progress
from abdoseg.readers import Scan, read_scan
from abdoseg.readers.layouts import CaseFiles, Finding, find_cases
from abdoseg.store import IngestRecord, Workspace
from abdoseg.store.arrays import is_case, open_source, write_case
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
    check_structures(card)
    finding = find_cases(card, folder)
    report = IngestReport(card.id, quarantined=dict(finding.faults), skipped=dict(finding.skipped))
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
        _write_record(workspace, report, {files.case for files in finding.cases} - {j.files.case for j in jobs})
    return report


def _write_record(workspace: Workspace, report: IngestReport, untried: set[str]) -> None:
    """Save what could not be taken; what an earlier ingest said of cases that this one did not try stays."""
    before = workspace.records().get(report.source)
    kept = {c: r for c, r in before.quarantined.items() if c in untried} if before else {}
    for case in report.present:
        kept.pop(case, None)
    quarantined = dict(sorted({**kept, **report.quarantined}.items()))
    try:
        workspace.write_record(IngestRecord(source=report.source, quarantined=quarantined, skipped=report.skipped))
    except WorkspaceError as error:
        # A full disk: the cases above have said so, and their reasons must still be shown.
        report.warnings.append(str(error))


@contextmanager
def worker_pool(jobs: int) -> Iterator[Executor | None]:
    """Give an executor of ``jobs`` local processes; ``None`` for one (work in this process).

    Processes are spawned, not forked: numba's and torch's threads do not survive a fork.
    """
    if jobs <= 1:
        yield None
        return
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_end_with_parent)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """Have this worker killed when its parent dies, lest it go on writing cases that nobody waits for."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def card_digest(card: Card) -> str:
    """Return a hash of what a card says about labels, annotation and split."""
    facts = card.model_dump_json(include={"modality", "annotated", "labels", "dropped", "masks", "split", "exceptions"})
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


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
        except BrokenProcessPool:
            outcome = "its process was killed, perhaps for memory; run the same command with fewer --jobs"
        yield futures[future], outcome


def _ingest_case(job: _Job) -> CaseFacts | str:
    """Work on one case; return its facts, or the reason why it cannot be used."""
    try:
        case = build_case(job.card, job.files, job.row, job.workspace)
        foreground = Foreground.of(case.label, len(job.workspace.anatomy))
        write_case(job.workspace.case_folder(case.facts.key), job.workspace.incoming / job.card.id, case, foreground)
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
    annotation = Annotation.partial(ids, len(settings.anatomy)).to_json()
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
        annotation=annotation,
        voxels=_count(label, settings.anatomy),
        fingerprint=_fingerprint(harmonised.image),
        digest=_digest(harmonised, label, annotation),
        settings_digest=settings.digest(),
        card_digest=card_digest(card),
        warnings=(*image.warnings, *modality_warning(image.array, card.modality), *relabelled.warnings, *suspect),
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


def _digest(harmonised: harmonise.HarmonisedImage, label: NDArray[np.uint8], annotation: dict[str, Any]) -> str:
    facts = json.dumps([annotation, np.round(harmonised.grid.affine, 4).tolist(), harmonised.window])
    hashed = hashlib.sha256(facts.encode())
    hashed.update(np.ascontiguousarray(harmonised.image).tobytes())
    hashed.update(np.ascontiguousarray(label).tobytes())
    return hashed.hexdigest()[:32]


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
    """Hold the source's lock, clean up what a killed ingest of it left behind, and make its Zarr group."""
    try:
        (workspace.path / "sources").mkdir(parents=True, exist_ok=True)
        with FileLock(workspace.path / "sources" / f".{source}.lock", timeout=0):
            shutil.rmtree(workspace.incoming / source, ignore_errors=True)
            (workspace.incoming / source).mkdir(parents=True)
            open_source(workspace.source_folder(source), {"abdoseg_source": source})
            yield
            shutil.rmtree(workspace.incoming / source, ignore_errors=True)
    except WorkspaceError:
        raise
    except Timeout as error:
        raise WorkspaceError(f"{source}: another ingest of this source is running; wait for it to end") from error
    except OSError as error:
        msg = f"{workspace.path}: cannot be written ({error.strerror}); check space, permissions or --workspace"
        raise WorkspaceError(msg) from error
