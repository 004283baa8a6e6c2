"""Inspect: a page per source that shows what ingest measured, odd cases first."""

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from abdoseg.cards import Expected
from abdoseg.case import CaseFacts, Measure
from abdoseg.errors import unknown_name
from abdoseg.files import write_text
from abdoseg.pictures import PLANES, Panel, save_overlays
from abdoseg.plausibility import Ranges
from abdoseg.progress import SILENT, Progress
from abdoseg.store import Workspace

ODD_FROM = 3.5
"""Robust z-score of a log volume, among the source's cases, from which it is marked (Iglewicz and Hoaglin's limit)."""

_FEW = 8
"""With fewer cases nothing is said about what is usual among them."""


@dataclass(frozen=True)
class InspectReport:
    """What :func:`inspect` wrote.

    Parameters
    ----------
    pages
        Source -> its page.
    odd
        Key -> what is odd about the case; the oddest first.
    """

    pages: dict[str, Path]
    odd: dict[str, tuple[str, ...]]


def inspect(
    workspace: Workspace,
    source: str | None = None,
    case: str | None = None,
    *,
    folder: Path | None = None,
    pictures: int = 40,
    progress: Progress = SILENT,
) -> InspectReport:
    """Write a page for every source, for one, or for one case.

    Parameters
    ----------
    workspace, source, case
        What to look at.
    folder
        Where the pages go; default: ``inspect`` in the workspace.
    pictures
        For how many cases of each source, the oddest first, to draw the overlays.
    progress
        Told after every picture.

    Raises
    ------
    UnknownNameError
        If there is no such source or case.
    WorkspaceError
        If nothing can be written.
    """
    keys = workspace.case_keys([source] if source else None)
    if case is not None and f"{source}/{case}" not in keys:
        raise unknown_name("case", f"{source}/{case}", keys)
    by_source: dict[str, list[CaseFacts]] = {}
    for key in keys:
        by_source.setdefault(key.partition("/")[0], []).append(workspace.read_facts(key))
    pages: dict[str, Path] = {}
    odd: dict[str, tuple[str, ...]] = {}
    records = workspace.records()
    for name, facts in by_source.items():
        expected = Expected.model_validate(records[name].card.get("expected", {})) if name in records else Expected()
        order = _odd_first(facts)
        if case is not None:
            order = [(f, reasons) for f, reasons in order if f.case == case]
        target = (folder or workspace.path / "inspect") / name
        drawn = _draw(workspace, [f for f, _ in order[:pictures]], target, progress)
        pages[name] = target / ("index.html" if case is None else f"{case}.html")
        write_text(pages[name], _page(name, facts, order, drawn, Ranges.of(expected)))
        odd |= {f.key: reasons for f, reasons in order if reasons}
    return InspectReport(pages, odd)


def _odd_first(facts: Sequence[CaseFacts]) -> list[tuple[CaseFacts, tuple[str, ...]]]:
    """Return the cases with what is odd about each, those with most of it first."""
    usual = _usual(facts)
    told = [(f, (*f.suspicions, *f.warnings, *_unusual(f, usual))) for f in facts]
    return sorted(told, key=lambda item: (-len(item[1]), item[0].case))


def _usual(facts: Sequence[CaseFacts]) -> dict[str, tuple[float, float]]:
    """Return structure -> (median, spread) of its log volumes where it lies wholly in the view."""
    found = {}
    names = {name for f in facts for name in f.measures}
    for name in names:
        logs = np.log([f.measures[name].ml for f in facts if name in f.measures and not f.measures[name].cut])
        if logs.size >= _FEW:
            median = float(np.median(logs))
            found[name] = (median, 1.4826 * float(np.median(np.abs(logs - median))) + 1e-3)
    return found


def _unusual(facts: CaseFacts, usual: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    for name, found in facts.measures.items():
        if name in usual and not found.cut:
            median, spread = usual[name]
            z = (np.log(found.ml) - median) / spread
            if abs(z) > ODD_FROM:
                yield f"{name} of {found.ml:.3g} ml, unusual among this source's (median {np.exp(median):.3g} ml)"


def _draw(workspace: Workspace, cases: Sequence[CaseFacts], folder: Path, progress: Progress) -> dict[str, str]:
    """Write the overlays of some cases; return case -> file name."""
    progress.start(len(cases), "drawing")
    names = {}
    for facts in cases:
        case = workspace.read_case(facts.key)
        name = f"{facts.case}.png"
        panel = Panel(facts.case, case.intensity(), {"labels": case.label})
        save_overlays(folder / "pictures" / name, [panel], workspace.anatomy, tuple(PLANES))
        names[facts.case] = f"pictures/{name}"
        progress.advance(1, facts.case)
    return names


_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1b1b1b; }
table { border-collapse: collapse; margin: .6rem 0 1.2rem; font-variant-numeric: tabular-nums; }
td, th { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
td:first-child, th:first-child { text-align: left; }
.odd { background: #ffe3d6; } .grey { color: #777; } h2 { margin: 2.2rem 0 .3rem; }
img { max-width: 100%; border: 1px solid #ddd; } ul { margin: .3rem 0; } li { color: #a33a00; }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #eee; } .odd { background: #5a2b14; }
  td, th, img { border-color: #444; } li { color: #ffab85; } }
"""


def _page(
    source: str,
    facts: Sequence[CaseFacts],
    order: Sequence[tuple[CaseFacts, tuple[str, ...]]],
    drawn: Mapping[str, str],
    ranges: Ranges,
) -> str:
    n_odd = sum(1 for _, reasons in order if reasons)
    shown = "".join(_case(f, reasons, drawn.get(f.case), ranges) for f, reasons in order if reasons or f.case in drawn)
    quiet = [f.case for f, reasons in order if not reasons and f.case not in drawn]
    rest = f"<p class=grey>{len(quiet)} more cases with nothing odd about them have no picture.</p>" if quiet else ""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(source)}: inspection</title>"
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>"
        f"<h1>{html.escape(source)}</h1><p>{len(facts)} cases, {n_odd} with something odd, these first. "
        "What is odd need not be wrong: look.</p>" + _overview(facts, ranges) + shown + rest + "</html>\n"
    )


def _overview(facts: Sequence[CaseFacts], ranges: Ranges) -> str:
    rows = []
    for name in dict.fromkeys(name for f in facts for name in f.measures):
        found = [f.measures[name] for f in facts if name in f.measures]
        whole = [m.ml for m in found if not m.cut] or [m.ml for m in found]
        low, high = ranges.volume_ml.get(name, (0.0, np.inf))
        rows.append(
            f"<tr><td>{html.escape(name)}<td>{len(found)}<td>{_number(float(np.median(whole)))}<td>{_number(min(whole))}"
            f"<td>{_number(max(whole))}<td>{low:g} to {high:g}<td>{_number(float(np.median([m.mean for m in found])))}"
        )
    head = "<tr><th>structure<th>cases<th>median ml<th>least<th>most<th>expected ml<th>mean intensity"
    note = "<p class=grey>Volumes of structures that lie wholly in the view, where any do; intensity in HU (CT).</p>"
    return f"<table>{head}{''.join(rows)}</table>{note}"


def _case(facts: CaseFacts, reasons: Sequence[str], picture: str | None, ranges: Ranges) -> str:
    told = "".join(f"<li>{html.escape(reason)}</li>" for reason in reasons)
    alt = f"overlays of {html.escape(facts.case)}"
    image = f"<p><img loading=lazy alt='{alt}' src='{html.escape(picture)}'></p>" if picture else ""
    rows = "".join(_measure_row(name, m, ranges) for name, m in facts.measures.items())
    head = "<tr><th>structure<th>ml<th>expected<th>mean<th>gas<th>in view"
    spacing = " x ".join(f"{np.linalg.norm([row[axis] for row in facts.native_affine[:3]]):.3g}" for axis in range(3))
    shape = " x ".join(str(n) for n in facts.native_shape)
    return (
        f"<h2>{html.escape(facts.case)}</h2><p class=grey>{shape} voxels of {spacing} mm; {'; '.join(facts.done)}</p>"
        f"{f'<ul>{told}</ul>' if told else ''}{image}"
        f"<details><summary>measurements</summary><table>{head}{rows}</table></details>"
    )


def _measure_row(name: str, found: Measure, ranges: Ranges) -> str:
    low, high = ranges.volume_ml.get(name, (0.0, np.inf))
    odd = found.ml > high or (found.ml < low and not found.cut)
    return (
        f"<tr{' class=odd' if odd else ''}><td>{html.escape(name)}<td>{_number(found.ml)}<td>{low:g} to {high:g}"
        f"<td>{_number(found.mean)}<td>{found.gas:.0%}<td>{'cut off' if found.cut else 'whole'}"
    )


def _number(value: float) -> str:
    """Return three digits, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
