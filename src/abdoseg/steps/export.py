"""Export stored cases for other programs; what an export has done is not done again."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from abdoseg.annotation import Annotation
from abdoseg.errors import AbdosegError, ConfigError, unknown_name
from abdoseg.files import write_text
from abdoseg.places import append_text
from abdoseg.progress import SILENT, Progress
from abdoseg.runs import decide_sides
from abdoseg.sharing import CASE_FORMATS, case_format
from abdoseg.sharing.parts import CasePlan, Record, SharedCase
from abdoseg.store import CaseBrief, Workspace, shown_annotation
from abdoseg.types import Modality, SplitName
from abdoseg.views import FULL_VIEW, View

JOURNAL = "abdoseg.cases.jsonl"
"""In the folder of an export of cases: what it is an export of, then one line a case that is done."""


@dataclass(frozen=True)
class CaseOptions:
    """Which cases are exported, and how.

    Parameters
    ----------
    split
        ``train``, ``val``, ``test`` or ``all``.
    modality
        ``CT`` or ``MR``; both when None.
    name, number
        Of an nnU-Net dataset.
    folds
        Number of folds in an nnU-Net ``splits_final.json``; 0: the workspace's split alone.
    force
        Whether to replace another export in the folder.
    """

    split: str = "all"
    modality: Modality | None = None
    name: str = "abdoseg"
    number: int = 501
    folds: int = 0
    force: bool = False


@dataclass(frozen=True)
class CasesReport:
    """What came of an export of cases.

    Parameters
    ----------
    folder
        Where they are.
    written, present
        How many were written now, and were there already.
    failed
        Case -> why.
    unlabelled
        Cases without annotation that were left out.
    notes
        What to tell.
    """

    folder: Path
    written: int
    present: int
    failed: dict[str, str]
    unlabelled: int
    notes: tuple[str, ...]


def export_cases(
    workspace: Workspace,
    names: Sequence[str],
    to: str,
    out: Path,
    options: CaseOptions | None = None,
    *,
    executor: Executor | None = None,
    progress: Progress = SILENT,
) -> CasesReport:
    """Write stored cases for another program.

    Parameters
    ----------
    workspace
        What holds them.
    names
        Sources, and at most one view; all sources when none is named, all labels when no view is.
    to
        Of :data:`abdoseg.sharing.CASE_FORMATS`.
    out
        Folder to write. Cases that it holds as they are now are not written again.
    options
        Which cases, and how.
    executor
        Where cases are written; default: this process, one at a time.
    progress
        Told after every case.

    Raises
    ------
    ConfigError
        If no case is chosen, the format cannot hold them, or the folder holds something else.
    UnknownNameError
        If a name is neither a source nor a view.
    WorkspaceError
        If a file cannot be written.
    """
    options = options or CaseOptions()
    if to not in CASE_FORMATS:
        raise unknown_name("--to", to, list(CASE_FORMATS), "These take sources or a view.")
    sources, view = _named(workspace, names)
    jobs, plan, unlabelled = _planned(workspace, sources, view, to, options)
    format_ = case_format(to)
    format_.check(plan)
    folder = format_.folder(out, plan)
    journal = _Journal.open(folder, _header(to, plan, view), force=options.force)
    open_jobs = [job for job in jobs if not journal.holds(job)]
    journal.forget_others({job.id for job in jobs}, {job.id for job in open_jobs})
    progress.start(len(open_jobs), f"exporting to {format_.title}")
    failed: dict[str, str] = {}
    for job, outcome in _run(open_jobs, plan, to, folder, executor):
        if isinstance(outcome, str):
            failed[job.key] = outcome
        else:
            journal.note(job, *outcome)
        progress.advance(1, job.key)
    records = {job.id: journal.facts[job.id] for job in jobs if job.id in journal.facts}
    notes = tuple(format_.finish(plan, records, folder)) if records else ()
    done = len(open_jobs) - len(failed)
    return CasesReport(folder, done, len(jobs) - len(open_jobs), failed, unlabelled, notes)


def _named(workspace: Workspace, names: Sequence[str]) -> tuple[list[str] | None, View | None]:
    """Tell sources and views apart."""
    there = workspace.sources()
    views = [FULL_VIEW, *(view.name for view in workspace.views())]
    for name in names:
        if name not in there and name not in views:
            raise unknown_name("source or view", name, [*there, *views], "`abdoseg status` shows both.")
    chosen = [name for name in names if name not in there]
    if len(chosen) > 1:
        raise ConfigError(f"views {' and '.join(chosen)}: one export shows one view; export them apart")
    sources = [name for name in names if name in there]
    return sources or None, workspace.view(chosen[0]) if chosen else None


@dataclass(frozen=True, eq=False)
class _Job:
    """One case to write."""

    id: str
    key: str
    digest: str
    annotation: Annotation
    side: SplitName
    workspace: Workspace


def _planned(
    workspace: Workspace, sources: list[str] | None, view: View | None, to: str, options: CaseOptions
) -> tuple[list[_Job], CasePlan, int]:
    """Return the cases to write, what holds for all of them, and how many have no annotation and are left out."""
    everything = workspace.briefs()
    sides = decide_sides(workspace, everything, workspace.settings.split_seed)
    jobs, chosen, unlabelled = [], [], 0
    for brief in everything:
        side = sides[brief.key]
        if (sources is not None and brief.source not in sources) or options.split not in (side, "all"):
            continue
        if options.modality not in (brief.modality, None):
            continue
        # As in training: a view thins training cases alone.
        annotation = shown_annotation(workspace, brief, view if side == "train" else None)
        if case_format(to).labelled_only and not annotation.has_annotation:
            unlabelled += 1
            continue
        jobs.append(_Job(_file_name(brief.key), brief.key, _digest(brief, annotation), annotation, side, workspace))
        chosen.append(brief)
    if not jobs:
        raise ConfigError(f"{workspace.path}: no case to export; `abdoseg status` shows what is there")
    _require_different([job.id for job in jobs], [job.key for job in jobs])
    listed = sorted({i for job in jobs for i in job.annotation.structure_ids})
    modalities = sorted({brief.modality for brief in chosen})
    folds = _folds(workspace, everything, jobs, options.folds)
    plan = CasePlan(workspace.anatomy, tuple(listed), tuple(modalities), options.name, options.number, folds)
    return jobs, plan, unlabelled


def _folds(
    workspace: Workspace, everything: list[CaseBrief], jobs: list[_Job], n: int
) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """Return the cases of each fold by id: those that ``abdoseg train``, or ``train --fold k/n``, has."""
    seed = workspace.settings.split_seed
    splits = [decide_sides(workspace, everything, seed, (k, n) if n else None) for k in range(1, max(n, 1) + 1)]
    folds = []
    for sides in splits:
        train, val = (tuple(job.id for job in jobs if sides[job.key] == side) for side in ("train", "val"))
        if train and val:
            folds.append((train, val))
    return tuple(folds)


def _file_name(key: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", key)


def _require_different(ids: list[str], keys: list[str]) -> None:
    first: dict[str, str] = {}
    for one, key in zip(ids, keys, strict=True):
        other = first.setdefault(one.lower(), key)
        if other != key:
            raise ConfigError(f"{other} and {key}: would have the same file name {one}; export their sources apart")


def _digest(brief: CaseBrief, annotation: Annotation) -> str:
    return _hash([brief.key, brief.digest, annotation.to_json()])


def _header(to: str, plan: CasePlan, view: View | None) -> dict[str, Any]:
    listed = list(plan.listed) if to == "nnunet" else None
    return {
        "abdoseg_export": 1,
        "to": to,
        "structures": list(plan.anatomy.names),
        "listed": listed,
        "view": FULL_VIEW if view is None else view.name,
    }


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


_HEADER = {"abdoseg_export"}
_LINE = {"id", "digest", "side", "files", "facts"}


class _Journal:
    """What of an export is done.

    Parameters
    ----------
    folder
        Of the export.
    facts
        By id, of the cases that are done.
    """

    def __init__(self, folder: Path, lines: list[dict[str, Any]]) -> None:
        self.folder = folder
        self.facts: dict[str, Record] = {}
        self._files: dict[str, list[str]] = {}
        self._digests: dict[str, tuple[str, str]] = {}
        for line in lines:
            self._take(line)

    @classmethod
    def open(cls, folder: Path, header: dict[str, Any], *, force: bool) -> "_Journal":
        """Return the journal of a folder; a new one where there is none, or another export is to be replaced."""
        file = folder / JOURNAL
        lines = _lines_of(file)
        if lines and lines[0] == header:
            # Written anew: a kill may have cut its last line, and the next one would go on there.
            write_text(file, "".join(json.dumps(line) + "\n" for line in lines))
            return cls(folder, lines[1:])
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder}: is a file; expected a folder for the export")
        if not force and folder.exists() and any(folder.iterdir()):
            what = "holds another export" if lines else "is not empty"
            raise ConfigError(f"{folder}: {what}; choose another --out, or --force to write into it")
        cls(folder, lines[1:]).forget_others(set(), set())
        write_text(file, json.dumps(header) + "\n")
        return cls(folder, [])

    def _take(self, line: dict[str, Any]) -> None:
        one = line["id"]
        self._digests[one] = (line["digest"], line["side"])
        self._files[one] = line["files"]
        self.facts[one] = line["facts"]

    def holds(self, job: _Job) -> bool:
        """Whether a case is done as it is now, and its files are there."""
        if self._digests.get(job.id) != (job.digest, job.side):
            return False
        return all((self.folder / name).is_file() for name in self._files[job.id])

    def forget_others(self, kept: set[str], again: set[str]) -> None:
        """Remove the files of cases that are no longer exported, or will be written again."""
        for one in [one for one in self._files if one not in kept or one in again]:
            for name in self._files.pop(one):
                with suppress(OSError):
                    (self.folder / name).unlink(missing_ok=True)
            del self.facts[one], self._digests[one]

    def note(self, job: _Job, files: tuple[Path, ...], facts: Record) -> None:
        """Note that a case is done."""
        line = {
            "id": job.id,
            "digest": job.digest,
            "side": job.side,
            "files": [path.relative_to(self.folder).as_posix() for path in files],
            "facts": {"case": job.key, "side": job.side, **facts},
        }
        append_text(self.folder / JOURNAL, json.dumps(line) + "\n")
        self._take(line)


def _lines_of(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a journal, up to one that a kill has cut."""
    lines: list[dict[str, Any]] = []
    if not file.is_file():
        return lines
    for text in file.read_bytes().splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # no JSON, or bytes that are no text
            break
        if not isinstance(line, dict) or not line.keys() >= (_LINE if lines else _HEADER):
            break
        lines.append(line)
    return lines


_Outcome = tuple[tuple[Path, ...], Record] | str


def _run(
    jobs: list[_Job], plan: CasePlan, to: str, folder: Path, executor: Executor | None
) -> Iterator[tuple[_Job, _Outcome]]:
    if executor is None:
        for job in jobs:
            yield job, _write_case(job, plan, to, folder)
        return
    futures = {executor.submit(_write_case, job, plan, to, folder): job for job in jobs}
    for future in as_completed(futures):
        try:
            outcome = future.result()
        except BrokenProcessPool:
            outcome = "its process was killed, perhaps for memory; run the same command with fewer --jobs"
        yield futures[future], outcome


def _write_case(job: _Job, plan: CasePlan, to: str, folder: Path) -> _Outcome:
    """Write one case; return its files and facts, or why it cannot be read. What cannot be written ends the export."""
    try:
        case = job.workspace.read_case(job.key)
    except AbdosegError as error:
        return str(error)
    except MemoryError:
        return "not enough memory for this case"
    return case_format(to).write(SharedCase(job.id, case, job.annotation, job.side), plan, folder)


def modality_named(name: str | None) -> Modality | None:
    """Return ``CT`` or ``MR`` of a name in any case; None of None.

    Raises
    ------
    UnknownNameError
        If it is neither.
    """
    if name is None:
        return None
    if name.upper() not in ("CT", "MR"):
        raise unknown_name("--modality", name, ["ct", "mr"])
    return cast("Modality", name.upper())
