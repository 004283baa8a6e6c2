"""Duplicates: scans that are in the workspace more than once, however they were cropped, turned or re-windowed."""

from collections.abc import Mapping
from dataclasses import dataclass

from abdoseg.case import CaseFacts
from abdoseg.duplicates import Signature, candidate_pairs, groups, signature, verify
from abdoseg.geometry import spacing_of
from abdoseg.progress import SILENT, Progress
from abdoseg.store import Twin, Twins, Workspace, load_twins, save_twins


@dataclass(frozen=True)
class DuplicatesReport:
    """What :func:`duplicates` found.

    Parameters
    ----------
    cases
        Number of cases looked at.
    compared
        Candidate pairs whose voxels were compared now; others were compared by an earlier search.
    twins
        Pairs that show one scan.
    groups
        Keys of the cases that show one scan, set by set.
    """

    cases: int
    compared: int
    twins: tuple[Twin, ...]
    groups: tuple[tuple[str, ...], ...]


def duplicates(workspace: Workspace, progress: Progress = SILENT) -> DuplicatesReport:
    """Find repeated scans across all sources of a workspace, and remember them for its splits.

    Signatures made at ingest name the candidates; their voxels decide. Pairs that an earlier search compared are not
    compared again.

    Raises
    ------
    WorkspaceError
        If a case cannot be read, or the result not written.
    """
    facts = {f.key: f for f in workspace.facts()}
    prints = {key: f.fingerprint for key, f in facts.items()}
    before = load_twins(workspace.path)
    known = {twin.cases: twin for twin in before.of(prints)}
    different = {frozenset(pair) for pair in before.different}
    candidates = [tuple(sorted((a, b))) for a, b, _ in candidate_pairs(_signatures(workspace, facts))]
    new = [(a, b) for a, b in candidates if (a, b) not in known and frozenset((prints[a], prints[b])) not in different]
    progress.start(len(new), "comparing candidates")
    for a, b in new:
        twin = _compare(workspace, facts[a], facts[b])
        if twin is None:
            different.add(frozenset((prints[a], prints[b])))
        else:
            known[twin.cases] = twin
        progress.advance(1, f"{a}  {b}")
    twins = tuple(known[pair] for pair in sorted(known))
    save_twins(workspace.path, Twins(pairs=twins, different=tuple(_pairs(different))))
    sets = tuple(sorted(tuple(sorted(members)) for members in groups([twin.cases for twin in twins])))
    return DuplicatesReport(len(facts), len(new), twins, sets)


def _pairs(different: set[frozenset[str]]) -> list[tuple[str, str]]:
    return sorted((min(pair), max(pair)) for pair in different)


def _signatures(workspace: Workspace, facts: Mapping[str, CaseFacts]) -> dict[str, Signature]:
    """Return key -> signature; cases of an older ingest have none, and theirs are made from the voxels."""
    found = {}
    for key, f in facts.items():
        if f.signature is not None:
            found[key] = Signature.from_json(f.signature)
        else:
            found[key] = signature(workspace.read_case(key).image, f.affine_array)
    return found


def _compare(workspace: Workspace, a: CaseFacts, b: CaseFacts) -> Twin | None:
    image_a, image_b = (workspace.read_case(facts.key).image for facts in (a, b))
    match = verify(image_a, image_b, spacing_mm=spacing_of(a.affine_array)[0])
    if match is None:
        return None
    return Twin(
        cases=(a.key, b.key),
        fingerprints=(a.fingerprint, b.fingerprint),
        kinds=match.kinds,
        correlation=round(match.correlation, 4),
        overlap=round(match.overlap, 4),
        axes=match.axes,
    )
