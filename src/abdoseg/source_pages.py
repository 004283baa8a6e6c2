"""A page a source, made from its card: what it holds, how to get it, what its values mean, what is done with it.

A page says what the card says and nothing else. Change the card, then write the pages again (`nox -s docs`).
"""

import re
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from abdoseg.anatomy import ABDOMEN
from abdoseg.cards import Card, LabelTarget, Layout, list_cards, names_in
from abdoseg.files import write_text

WIDTH = 120
"""Characters a line of running text; tables and file trees are as wide as they must be."""

SHOWN_CASES = 6
"""Cases named for one reason; further ones are counted."""

_SHOWN_EXPRESSION = 60
"""A regular expression is shown up to this length."""


def source_page(card: Card, known: Collection[str] = ()) -> str:
    """Return the page of a source, Markdown.

    Parameters
    ----------
    card
        The source.
    known
        Ids of the sources that have a page: those it overlaps with become links.
    """
    parts = (
        f"# {_text(card.title)}",
        _prose(f"Made from `registry/{card.id}.toml`; change the card, not this page. [All sources](README.md)"),
        *_facts(card),
        *_access(card),
        *_files(card),
        *_values(card),
        *_structures(card),
        *_section("What abdoseg does with it", _items(_handling(card))),
        *_section("Cases to look at", _items(_cases_to_look_at(card))),
        *_section("Overlaps", _items(_overlaps(card, known))),
        *_section("Evidence", _items(_text(line) for line in card.evidence)),
    )
    return "\n\n".join(parts) + "\n"


def index_page(cards: Sequence[Card]) -> str:
    """Return the page that lists the sources, Markdown."""
    rows = [
        (f"[{card.id}]({card.id}.md)", card.modality, _how_many(card), _cases(card), _licence(card)) for card in cards
    ]
    drawn = [
        (f"[{card.id}]({card.id}.md)", *("x" if name in card.annotated else "" for name in ABDOMEN.names))
        for card in cards
    ]
    parts = (
        "# Sources",
        _prose(
            "The sources whose cards ship with abdoseg. A source that is not here needs [a card](../own-dataset.md), "
            "and no program. The number of cases is that of a complete copy, where it is known. Made from "
            "`registry/*.toml`; check the licence at the source itself before you use it."
        ),
        _table(("card", "modality", "structures", "cases", "licence"), rows),
        "## Who draws what",
        _table(("card", *(s.abbreviation for s in ABDOMEN.structures)), drawn),
        _prose("; ".join(f"{s.abbreviation} {s.title}" for s in ABDOMEN.structures) + "."),
        _prose("A structure without an x is not annotated there: its voxels are unknown, not background."),
    )
    return "\n\n".join(parts) + "\n"


def write_source_pages(folder: Path) -> list[Path]:
    """Write ``<id>.md`` for every card of the registry and ``README.md``, which lists them; return the paths.

    Raises
    ------
    WorkspaceError
        If a page cannot be written.
    """
    cards = sorted(list_cards(), key=lambda card: card.id)
    known = {card.id for card in cards}
    pages = {folder / f"{card.id}.md": source_page(card, known) for card in cards}
    pages[folder / "README.md"] = index_page(cards)
    for path, text in pages.items():
        write_text(path, text)
    return list(pages)


# -- sections ------------------------------------------------------------------------------------------------------


def _facts(card: Card) -> Iterator[str]:
    rows = [
        ("card", f"`{card.id}`" + (f", one of those that `{card.alias}` stands for" if card.alias else "")),
        ("version", _text(card.version) or "-"),
        ("modality", card.modality),
        ("structures", _how_many(card)),
        ("cases", _cases(card)),
    ]
    if card.expected.spacing_mm:
        low, high = card.expected.spacing_mm
        rows.append(("sides of its voxels", f"{low:g} to {high:g} mm"))
    yield _table(("", ""), rows)
    options = " --labels 1=liver,2=right_kidney+left_kidney" if card.labels_by_user else ""
    yield f"    abdoseg ingest {card.id} FOLDER{options}"


def _access(card: Card) -> Iterator[str]:
    if card.access is None:
        return
    lines = (
        f"<{card.access.url}>: {_text(card.access.how)}",
        f"Licence: {_text(card.access.licence)}",
        f"Cite: {_text(card.access.citation)}",
    )
    yield from _section("How to get it", _items(lines))


def _files(card: Card) -> Iterator[str]:
    yield "## Files"
    yield _prose(
        "FOLDER is what `ingest` is given; the files may lie deeper in it. "
        + ("The first layout that finds cases is taken." if len(card.layouts) > 1 else "")
    )
    for layout in card.layouts:
        yield f"### Layout: {_text(layout.name)}"
        yield "```text\n" + "\n".join(_tree(_branches(layout))) + "\n```"
        yield _items(_layout_notes(layout))
    if card.table:
        yield _prose(
            f"A table `{card.table.path}` anywhere in FOLDER has a row a case: columns are separated by "
            f"`{card.table.separator}`, `{card.table.key}` is the case."
        )


def _branches(layout: Layout) -> dict[str, str]:
    """Return path -> what it is."""
    start = f"{layout.pairs}: a row a case" if layout.pairs else ""
    image = "image" + (f", dataset {layout.image_key}" if layout.image_key else "")
    label = "label" + (f", dataset {layout.label_key}" if layout.label_key else "")
    found = {start: "paths are its columns"} if start else {}
    found[layout.image + ("/*" if layout.series else "")] = "image: a DICOM series" if layout.series else image
    if layout.label == layout.image:
        found[layout.image] = f"{image}; {label}"
    elif layout.label:
        found[layout.label] = label
    elif layout.masks:
        found[layout.masks] = "a mask file a structure"
    return found


def _tree(branches: Mapping[str, str]) -> list[str]:
    """Return the lines of a file tree; ``branches`` are path -> what it is."""
    nested: dict[str, dict[str, str]] = {}
    for path, what in branches.items():
        head, _, rest = path.partition("/")
        nested.setdefault(head, {})[rest] = what
    return ["FOLDER/", *_below(nested, "")]


def _below(nested: Mapping[str, Mapping[str, str]], indent: str) -> Iterator[str]:
    for number, (head, inside) in enumerate(nested.items(), start=1):
        last = number == len(nested)
        ahead = f"{indent}{'└── ' if last else '├── '}"
        leaf = inside.get("")
        yield f"{ahead}{head}    ({leaf})" if leaf else f"{ahead}{head}/"
        deeper: dict[str, dict[str, str]] = {}
        for path, what in inside.items():
            if path:
                first, _, rest = path.partition("/")
                deeper.setdefault(first, {})[rest] = what
        yield from _below(deeper, indent + ("    " if last else "│   "))


def _layout_notes(layout: Layout) -> Iterator[str]:
    used = names_in(layout.image, layout.labels, layout.case, layout.patient)
    for name, expression in layout.groups.items():
        if name in used:
            limits = [f"{a} to {b}" for group, (a, b) in layout.ranges.items() if f"(?P<{group}>" in expression]
            only = f", numbers {limits[0]} only" if limits else ""
            yield f"`{{{name}}}` is `{expression}`{only}"
    yield f"the case is `{layout.case}`" + (f", the patient `{layout.patient}`" if layout.patient else "")
    if layout.pair == "name":
        yield "labels may lie anywhere in FOLDER: they are paired with their images by name"


def _values(card: Card) -> Iterator[str]:
    if card.masks:
        yield "## Mask files"
        rows = [(f"`{name}`", f"`{structure}`") for name, structure in card.masks.items()]
        yield _table(("mask", "structure"), rows)
        yield _prose("Where masks overlap, the later in this table wins. Other mask files are not read.")
    numbered = [(int(v), f"`{v}`", _target(t), "") for v, t in card.labels.items()]
    numbered += [(int(v), f"`{v}`", "background", _text(what)) for v, what in card.dropped.items()]
    numbered += [(int(v), f"`{v}`", "unknown", _text(why)) for v, why in card.ignored.items()]
    if numbered:
        yield "## Label values"
        lines = [row[1:] for row in sorted(numbered)]
        yield _table(("value in the file", "becomes", "what it is"), lines)
        yield _prose("`0` is background. A file with any other value is quarantined.")
    for variant in card.variants:
        values = ", ".join(f"`{v}` becomes {_target(t)}" for v, t in variant.labels.items())
        yield _prose(f"Another form, {_told_by(variant.present, variant.absent)}: {values} ({_text(variant.reason)}).")


def _told_by(present: Iterable[int], absent: Iterable[int]) -> str:
    there, missing = (" and ".join(f"`{v}`" for v in values) for values in (present, absent))
    return f"in a file that holds {there}" + (f" and not {missing}" if missing else "")


def _structures(card: Card) -> Iterator[str]:
    yield "## Structures"
    if card.labels_by_user:
        yield _prose("Those that you state with `--labels`: VALUE=STRUCTURE, RIGHT+LEFT where both share a value.")
        return
    if card.unlabelled_source:
        yield _prose("None: no scan of this source has labels. Only the entropy term of the loss learns from it.")
        return
    yield _prose(f"Annotated, present or not: {_names(n for n in ABDOMEN.names if n in card.annotated)}.")
    others = [name for name in ABDOMEN.names if name not in card.annotated]
    if others:
        yield _prose(f"Not annotated, so unknown and not background: {_names(others)}.")
    yield from ([_items(_not_always(card))] if card.exceptions or card.releases else [])


def _not_always(card: Card) -> Iterator[str]:
    for rule in card.exceptions:
        allowed = " or ".join(
            f"`{column}` is {' or '.join(f'`{v}`' for v in values)}" for column, values in rule.unless.items()
        )
        yield f"{_names(rule.not_annotated)}: annotated only where {allowed} in the table ({_text(rule.reason)})"
    for release in card.releases:
        masks = _few(tuple(f"`{name}`" for name in release.masks))
        without = f": not annotated are {_names(release.not_annotated)}" if release.not_annotated else ""
        yield f"release {_text(release.name)}, told by any of the mask files {masks}{without}"


def _handling(card: Card) -> Iterator[str]:
    merged = {tuple(t) for t in (*card.labels.values(), *_variant_targets(card)) if isinstance(t, list)}
    for right, left in sorted(merged):
        yield (
            f"`{right}` and `{left}` that share a value are split by the side of the body on which each connected part "
            "lies; doubtful splits are shown by `abdoseg review`"
        )
    if card.truncated:
        yield (
            f"{_names(card.truncated)}: drawn over a part of their length. Each is known from its first to its last "
            "labelled axial slice and unknown above and below"
        )
    yield from _handling_of_slices(card)
    if card.orientation_test:
        test = card.orientation_test
        yield (
            f"how a label lies on its image is found by the intensities under `{test.structure}`, as headers do not "
            f"tell: at least {100 * test.inside:g} % in {test.hu[0]:g} to {test.hu[1]:g} HU, a standard deviation of "
            f"at most {test.spread:g} HU, at least {test.contrast:g} HU above the surroundings; a case with no plain "
            "winner is quarantined"
        )
    if card.dataset_json:
        yield "a `dataset.json` beside the images that gives a value another meaning is refused: it is another source"
    for rule in card.unlabelled:
        where = f" (path with `{rule.match}`)" if len(rule.match) <= _SHOWN_EXPRESSION else ""
        yield f"images passed over where they have no label{where}: {_text(rule.reason)}"
    yield _split(card)


def _variant_targets(card: Card) -> Iterator[LabelTarget]:
    for variant in card.variants:
        yield from variant.labels.values()


def _handling_of_slices(card: Card) -> Iterator[str]:
    if card.sparse is None:
        return
    if card.sparse.axis:
        yield f"sparse labels: {card.sparse.axis} slices with any label are annotated, the others are unknown"
    else:
        yield f"sparse labels: the table `{card.sparse.table}` lists the annotated slices, the others are unknown"


def _split(card: Card) -> str:
    if card.split is None:
        return "it has no official split that is used: patients are dealt to train, validation and test"
    where = f"the column `{card.split.column}`" if card.split.column else f"`{{{card.split.group}}}` of the path"
    sides = ", ".join(f"`{text}` is {side}" for text, side in card.split.sides.items())
    return f"the official split is kept, by {where}: {sides}"


def _cases_to_look_at(card: Card) -> Iterator[str]:
    yield from _by_reason("never used", card.exclude)
    yield from _by_reason("image withdrawn, its label alone is passed over", card.withdrawn)
    for release in card.releases:
        yield from _by_reason(f"never used in release {release.name}", release.exclude)
        yield from _by_reason(f"suspect in release {release.name}", release.suspect)
    yield from _by_reason("suspect, taken with a warning", card.suspect)
    for cases in card.same_patient:
        yield f"one patient, never on two sides of the split: {_few(tuple(f'`{case}`' for case in cases))}"


def _by_reason(what: str, cases: Mapping[str, str]) -> Iterator[str]:
    of_reason: dict[str, list[str]] = {}
    for case, reason in cases.items():
        of_reason.setdefault(reason, []).append(f"`{case}`")
    for reason, found in of_reason.items():
        yield f"{what}, {_few(found)}: {_text(reason)}"


def _overlaps(card: Card, known: Collection[str]) -> Iterator[str]:
    for other, what in card.overlaps.items():
        yield f"{f'[{other}]({other}.md)' if other in known else _text(other)}: {_text(what)}"


# -- words and Markdown --------------------------------------------------------------------------------------------


def _how_many(card: Card) -> str:
    if card.labels_by_user:
        return "as you state them"
    return f"{len(card.annotated)} of {len(ABDOMEN)}" if card.annotated else "none"


def _cases(card: Card) -> str:
    return "not known" if card.expected.cases is None else str(card.expected.cases)


def _licence(card: Card) -> str:
    return _text(card.access.licence) if card.access else "-"


def _target(target: LabelTarget) -> str:
    return f"`{target}`" if isinstance(target, str) else f"{_names(target)}, split by side"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _few(items: Sequence[str]) -> str:
    more = len(items) - SHOWN_CASES
    return ", ".join(items[:SHOWN_CASES]) + (f" and {more} more" if more > 0 else "")


def _section(title: str, body: str) -> Iterator[str]:
    if body:
        yield f"## {title}"
        yield body


def _items(lines: Iterable[str]) -> str:
    return "\n".join(_wrapped(f"- {line}", "  ") for line in lines)


def _prose(text: str) -> str:
    return _wrapped(text.strip(), "")


def _wrapped(text: str, indent: str) -> str:
    wrapper = textwrap.TextWrapper(WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return wrapper.fill(text)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (head, ("---",) * len(head), *rows)
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _text(text: str) -> str:
    """Return free text with what Markdown would take for marks escaped."""
    escaped = re.sub(r"([\\`*\[\]<>])", r"\\\1", text)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", escaped)


if __name__ == "__main__":
    write_source_pages(Path(sys.argv[1]))
