"""Find a source's cases on disk by its card's layouts.

Roots may be nested and several: whatever stands before the part of a path that a template describes is the
root, and image, label and masks of one case must share root and names.
"""

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from abdoseg.cards import Card, Layout
from abdoseg.errors import ConfigError, NoCasesError

_JUNK = re.compile(r"(^|/)(\._|__MACOSX/|\.DS_Store|desktop\.ini|Thumbs\.db)")


@dataclass(frozen=True)
class CaseFiles:
    """Files of one case.

    Parameters
    ----------
    case, patient
        Ids by the card's templates.
    image
        The image file.
    label
        The label map, or ``None`` for mask files.
    masks
        Mask name -> file.
    names
        Text of each named group of the layout.
    """

    case: str
    patient: str
    image: Path
    label: Path | None
    masks: dict[str, Path]
    names: dict[str, str]


@dataclass(frozen=True)
class Finding:
    """What a folder holds for a card.

    Parameters
    ----------
    layout
        Name of the layout that fits.
    cases
        Complete cases, by id.
    faults
        Case id -> why it cannot be used.
    skipped
        Reason -> number of images passed over by the source's own design.
    notes
        Files that were left out although their case is taken.
    twice
        Those of ``faults`` that are complete in two places.
    """

    layout: str
    cases: list[CaseFiles]
    faults: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    twice: dict[str, str] = field(default_factory=dict)


def find_cases(card: Card, folder: Path) -> Finding:
    """Return the cases of ``card`` below ``folder``, by the first layout that finds an image.

    Raises
    ------
    ConfigError
        If the folder is missing, not a folder or empty.
    NoCasesError
        If no layout of the card fits.
    """
    paths = _list_files(folder)
    for layout in card.layouts:
        finding = _find_layout(card, layout, folder, paths)
        if finding.cases or finding.faults or finding.skipped:
            return finding
    expected = " or ".join(f"{layout.image}" for layout in card.layouts)
    msg = (
        f"{folder}: none of its {len(paths)} files fits card {card.id}; expected {expected}; "
        f"check the folder, or see `abdoseg cards show {card.id}`"
    )
    raise NoCasesError(msg)


def require_source_folder(folder: Path) -> None:
    """Raise ConfigError unless ``folder`` is a folder with something in it."""
    if not folder.exists():
        raise ConfigError(f"{folder}: no such folder; give the folder in which the source was unpacked")
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is a file, expected a folder; unpack an archive first")
    if not any(folder.iterdir()):
        raise ConfigError(f"{folder}: the folder is empty; give the folder in which the source was unpacked")


def _list_files(folder: Path) -> list[str]:
    require_source_folder(folder)
    paths = [
        (Path(base) / name).relative_to(folder).as_posix()
        for base, _, names in os.walk(folder, followlinks=True)
        for name in names
    ]
    if not paths:
        raise ConfigError(f"{folder}: the folder is empty; give the folder in which the source was unpacked")
    return sorted(path for path in paths if not _JUNK.search(path))


def _template(template: str, groups: dict[str, str]) -> re.Pattern[str]:
    seen: set[str] = set()

    def part(match: re.Match[str]) -> str:
        name = match[1]
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>{groups[name]})"

    pieces = re.split(r"({\w+})", template)
    body = "".join(re.sub(r"{(\w+)}", part, p) if p.startswith("{") else re.escape(p) for p in pieces)
    return re.compile(rf"(?P<root>(?:.*/)?){body}")


def _fill(template: str, names: dict[str, str]) -> str:
    return re.sub(r"{(\w+)}", lambda match: names[match[1]], template)


def _match(template: str, layout: Layout, paths: list[str]) -> dict[str, dict[str, str]]:
    pattern = _template(template, layout.groups)
    found = ((path, pattern.fullmatch(path)) for path in paths)
    matches = {path: {k: v or "" for k, v in match.groupdict().items()} for path, match in found if match}
    return {path: names for path, names in matches.items() if _in_range(layout, names)}


def _in_range(layout: Layout, names: dict[str, str]) -> bool:
    return all(low <= int(names[group]) <= high for group, (low, high) in layout.ranges.items())


def _find_layout(card: Card, layout: Layout, folder: Path, paths: list[str]) -> Finding:
    images = _match(layout.image, layout, paths)
    labels = _match(layout.label or layout.masks or "", layout, paths)
    by_place: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for path, names in labels.items():
        by_place.setdefault(_place(names), []).append(path)
    finding = Finding(layout.name, [])
    skipped: Counter[str] = Counter()
    for path, names in images.items():
        own = by_place.pop(_place(names), [])
        reason = next((u.reason for u in card.unlabelled if re.search(u.match, path)), None)
        if not own and reason:
            skipped[reason] += 1
        else:
            _add(finding, layout, folder, (path, names), {p: labels[p] for p in own})
    for place, orphans in by_place.items():
        case = _fill(layout.case, dict(place))
        reason = f"{orphans[0]}: a label without an image; expected {_fill(layout.image, dict(place))}"
        finding.faults.setdefault(case, reason)
    for case in {c.case for c in finding.cases} & set(finding.faults):
        # The case is complete; what is left over is a copy of a part of it.
        finding.notes.append(f"not used, as {case} is complete elsewhere: {finding.faults.pop(case)}")
    # Two complete copies of a case: nobody can know which one is meant.
    finding.cases[:] = [c for c in finding.cases if c.case not in finding.twice]
    finding.faults.update(finding.twice)
    finding.skipped.update(skipped)
    return finding


def _place(names: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((k, v) for k, v in names.items() if k != "mask"))


def _add(
    finding: Finding, layout: Layout, folder: Path, image: tuple[str, dict[str, str]], own: dict[str, dict[str, str]]
) -> None:
    path, names = image
    case = _fill(layout.case, names)
    if not own:
        template = layout.label or layout.masks or ""
        expected = _fill(template.replace("{mask}", "*"), names)
        finding.faults[case] = f"{path}: an image without a label; expected {names['root']}{expected}"
        return
    if "/" in case or case.startswith("."):
        finding.faults[case] = f"{path}: its case id would be '{case}', expected a plain name; mend the card's case"
        return
    twin = next((c for c in finding.cases if c.case == case), None)
    if twin:
        other = twin.image.relative_to(folder).as_posix()
        finding.twice[case] = f"{path}: case {case} is there twice (also {other}); keep one"
        return
    masks = {names["mask"]: folder / p for p, names in own.items()} if layout.masks else {}
    label = None if layout.masks else folder / next(iter(own))
    patient = _fill(layout.patient, names) if layout.patient else case
    finding.cases.append(CaseFiles(case, patient, folder / path, label, masks, names))
