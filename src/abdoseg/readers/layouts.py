"""Find a source's cases on disk by its card's layouts.

Roots may be nested and several: whatever stands before the part of a path that a template describes is the
root, and image, label and masks of one case must share root and names.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from abdoseg.cards import Card, Layout, names_in, path_pattern
from abdoseg.csv_files import read_csv
from abdoseg.errors import CardError, ConfigError, NoCasesError

_JUNK = re.compile(r"(^|/)(\._|__MACOSX/|\.DS_Store|desktop\.ini|Thumbs\.db)")


@dataclass(frozen=True)
class CaseFiles:
    """Files of one case.

    Parameters
    ----------
    case, patient
        Ids by the card's templates.
    image
        The image file, or the folder of a DICOM series.
    label
        The label map, or ``None`` for mask files and unlabelled scans.
    masks
        Mask name -> file.
    names
        Text of each named group of the layout.
    layout
        The layout that found it.
    """

    case: str
    patient: str
    image: Path
    label: Path | None
    masks: dict[str, Path]
    names: dict[str, str]
    layout: Layout

    @property
    def has_label(self) -> bool:
        """Whether there is a label map or a mask file."""
        return self.label is not None or bool(self.masks)


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


def find_cases(card: Card, folder: Path, *, unlabelled: bool = False) -> Finding:
    """Return the cases of ``card`` below ``folder``, by the first layout that finds one.

    Parameters
    ----------
    card, folder
        What to look for, and where.
    unlabelled
        Take images that have no label, too, as cases of which nothing is known.

    Raises
    ------
    ConfigError
        If the folder is missing, not a folder or empty.
    NoCasesError
        If no layout of the card fits.
    """
    paths = list_files(folder)
    try:
        findings = [_find_layout(card, layout, folder, paths, unlabelled=unlabelled) for layout in card.layouts]
    except CardError as error:
        raise CardError(f"card {card.id}: {error}") from error
    # Labels alone fit many layouts: a layout that finds complete cases comes before one that finds faults.
    for finding in (*(f for f in findings if f.cases), *(f for f in findings if f.faults or f.skipped)):
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


def list_files(folder: Path) -> list[str]:
    """Return the paths of all files below ``folder``, relative to it, without the junk that archives carry.

    Raises
    ------
    ConfigError
        If the folder is missing, not a folder or empty.
    """
    require_source_folder(folder)
    paths = [(Path(base) / name).relative_to(folder).as_posix() for base, names in _walk(folder) for name in names]
    if not paths:
        raise ConfigError(f"{folder}: the folder is empty; give the folder in which the source was unpacked")
    return sorted(path for path in paths if not _JUNK.search(path))


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Give every folder once with its files; links are followed, but not round and round."""
    seen: set[tuple[int, int]] = set()
    for base, folders, names in os.walk(folder, followlinks=True):
        place = os.stat(base)  # noqa: PTH116 -- a walk gives names
        folders.sort()
        if (place.st_dev, place.st_ino) in seen:
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        yield base, names


def _is_plain(case: str) -> bool:
    """Whether a case id can be a folder of the source's Zarr group, and be printed."""
    return bool(case) and case.isprintable() and "/" not in case and not case.startswith(".") and case != "zarr.json"


def _readable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def _fill(template: str, names: dict[str, str]) -> str:
    return re.sub(r"{(\w+)}", lambda match: names[match[1]], template)


def _match(template: str, layout: Layout, paths: list[str]) -> dict[str, dict[str, str]]:
    pattern = path_pattern(template, layout.groups)
    found = ((path, pattern.fullmatch(path)) for path in paths)
    matches = {path: {k: v or "" for k, v in match.groupdict().items()} for path, match in found if match}
    return {path: names for path, names in matches.items() if _in_range(layout, names)}


def _in_range(layout: Layout, names: dict[str, str]) -> bool:
    for group, (low, high) in layout.ranges.items():
        if not re.fullmatch("[0-9]{1,18}", names[group]):
            msg = (
                f"card, layout {layout.name}: range of {group}, but '{names[group][:20]}' is no number; mend its group"
            )
            raise CardError(msg)
        if not low <= int(names[group]) <= high:
            return False
    return True


def _find_layout(card: Card, layout: Layout, folder: Path, paths: list[str], *, unlabelled: bool) -> Finding:
    if layout.pairs is not None:
        return _find_pairs(layout, layout.pairs, folder, paths, unlabelled=unlabelled)
    images = _match(layout.image, layout, _folders_of(paths) if layout.series else paths)
    labels = _Labels(layout, paths)
    finding = Finding(layout.name, [])
    skipped: Counter[str] = Counter()
    for path, names in images.items():
        own = labels.take(names)
        reason = next((u.reason for u in card.unlabelled if re.search(u.match, path)), None)
        if not own and reason and not unlabelled:
            skipped[reason] += 1
        elif not own and layout.labels is not None and not unlabelled:
            expected = names["root"] if layout.pair == "root" else "(anywhere) "
            template = layout.labels.replace("{mask}", "*")
            wanted = f"{expected}{_fill_known(template, names)}"
            missing = f"{path}: an image without a label; expected {wanted}, or --unlabelled to take it without"
            finding.faults[_fill(layout.case, names)] = missing
        else:
            _add(finding, layout, folder, (path, names), own)
    for path, names in labels.orphans():
        case = _fill(layout.case, names)
        if case in card.withdrawn:
            skipped[card.withdrawn[case]] += 1
            continue
        reason = f"{path}: a label without an image; expected {_fill_known(layout.image, names)}"
        finding.faults.setdefault(case, reason)
    for case in {c.case for c in finding.cases} & set(finding.faults):
        # The case is complete; what is left over is a copy of a part of it.
        finding.notes.append(f"not used, as {case} is complete elsewhere: {finding.faults.pop(case)}")
    # Two complete copies of a case: nobody can know which one is meant.
    finding.cases[:] = [c for c in finding.cases if c.case not in finding.twice]
    finding.faults.update(finding.twice)
    finding.skipped.update(skipped)
    return finding


def _find_pairs(layout: Layout, table: str, folder: Path, paths: list[str], *, unlabelled: bool) -> Finding:
    """Return the cases that a CSV lists, a row a case; its paths start where it lies."""
    finding = Finding(layout.name, [])
    for path in (p for p in paths if p.rpartition("/")[2] == table):
        for row in read_csv(folder / path, names_in(layout.image, layout.label, layout.case, layout.patient)):
            case, here = _fill(layout.case, row), (folder / path).parent
            image, label = here / _fill(layout.image, row), here / _fill(layout.label or "", row)
            has_label = bool(layout.label and row[next(iter(names_in(layout.label)))].strip())
            if not image.exists() or (has_label and not label.is_file()):
                missing = label if image.exists() else image
                reason = f"{path}: case {case}: {missing} is not there; mend the table or add the file"
                finding.faults[_readable(case)] = _readable(reason)
            elif not has_label and layout.label and not unlabelled:
                finding.faults[case] = f"{path}: case {case} has no label; --unlabelled takes it without"
            else:
                _add_pair(finding, layout, CaseFiles(case, "", image, label if has_label else None, {}, row, layout))
    finding.cases[:] = [c for c in finding.cases if c.case not in finding.twice]
    finding.faults.update(finding.twice)
    return finding


def _add_pair(finding: Finding, layout: Layout, files: CaseFiles) -> None:
    if not _is_plain(files.case):
        shown = _readable(files.case)
        finding.faults[shown] = f"case id '{shown}', expected a plain name; mend the table's case column"
    elif any(c.case == files.case for c in finding.cases):
        finding.twice[files.case] = f"case {files.case} is in the table twice; keep one row"
    else:
        patient = _fill(layout.patient, files.names) if layout.patient else files.case
        finding.cases.append(replace(files, patient=patient))


def _folders_of(paths: list[str]) -> list[str]:
    """Return the folders that hold files, each once."""
    return sorted({path.rpartition("/")[0] for path in paths} - {""})


class _Labels:
    """Labels (or masks) of a layout by the names that tell whose they are."""

    def __init__(self, layout: Layout, paths: list[str]) -> None:
        found = _match(layout.labels, layout, paths) if layout.labels else {}
        shared = names_in(layout.image) & names_in(layout.labels)
        self._told_by = shared if layout.pair == "name" else {*shared, "root"}
        self._by_place: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
        for path, names in found.items():
            self._by_place.setdefault(self._place(names), {})[path] = names
        self._taken: set[tuple[str, ...]] = set()

    def _place(self, names: dict[str, str]) -> tuple[str, ...]:
        return tuple(names[name] for name in sorted(self._told_by))

    def take(self, image: dict[str, str]) -> dict[str, dict[str, str]]:
        """Return path -> names of the image's label files."""
        place = self._place(image)
        self._taken.add(place)
        return self._by_place.get(place, {})

    def orphans(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Give the first file of every place that no image asked for."""
        for place, files in self._by_place.items():
            if place not in self._taken:
                yield next(iter(files.items()))


def _fill_known(template: str, names: dict[str, str]) -> str:
    """Fill a template; what is not known is left as a star."""
    return re.sub(r"{(\w+)}", lambda match: names.get(match[1], "*"), template)


def _add(
    finding: Finding, layout: Layout, folder: Path, image: tuple[str, dict[str, str]], own: dict[str, dict[str, str]]
) -> None:
    path, names = image
    case = _fill(layout.case, names)
    if not _is_plain(case):
        shown = _readable(case)
        reason = f"{_readable(path)}: its case id would be '{shown}', expected a plain name; mend the card's case"
        finding.faults[shown] = reason
        return
    twin = next((c for c in finding.cases if c.case == case), None)
    if twin:
        other = twin.image.relative_to(folder).as_posix()
        finding.twice[case] = f"{path}: case {case} is there twice (also {other}); keep one"
        return
    if layout.label and len(own) > 1:
        finding.twice[case] = f"{path}: case {case} has {len(own)} labels ({', '.join(sorted(own)[:3])}); keep one"
        return
    masks = {files["mask"]: folder / p for p, files in own.items()} if layout.masks else {}
    label = folder / next(iter(own)) if layout.label and own else None
    patient = _fill(layout.patient, names) if layout.patient else case
    finding.cases.append(CaseFiles(case, patient, folder / path, label, masks, names, layout))
