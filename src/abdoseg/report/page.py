"""The page: a template, its style and script within, and a policy that lets nothing in from elsewhere."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from abdoseg.anatomy import Anatomy
from abdoseg.report.shown import ShownCase

ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Parameters
    ----------
    id, title
        For the address and the heading.
    notes
        Sentences under the heading.
    charts
        Heading -> SVG.
    tables
        Heading -> (column titles, rows); cells are numbers or text.
    heat
        Row and column titles and parts of a row in [0, 1], ``None`` where there is nothing.
    text
        Shown as it is, folded.
    """

    id: str
    title: str
    notes: Sequence[str] = ()
    charts: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]] = field(default_factory=dict)
    heat: tuple[Sequence[str], Sequence[str], Sequence[Sequence[float | None]]] | None = None
    text: str = ""


def render(
    title: str,
    facts: Mapping[str, str],
    sections: Sequence[Section],
    cases: Sequence[ShownCase],
    anatomy: Anatomy,
) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    title
        Of the page: the run's name.
    facts
        The head: name -> value.
    sections
        In order.
    cases
        To scroll through.
    anatomy
        Names and colours of the structures.
    """
    script = (ASSETS / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'; base-uri 'none'"
    )
    structures = [{"id": i, "title": s.title, "colour": s.colour} for i, s in enumerate(anatomy.structures, start=1)]
    data = {"structures": structures, "cases": [case.packed() for case in cases]}
    environment = Environment(loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined)
    environment.filters["svg"] = Markup  # made by ElementTree, which escapes
    page = environment.get_template("report.html")
    return page.render(
        title=title,
        facts=facts,
        sections=sections,
        cases=data["cases"],
        structures=structures,
        style=Markup((ASSETS / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        policy=policy,
        data=Markup(_harmless(json.dumps(data, allow_nan=False))),
    )


def _harmless(text: str) -> str:
    """Return JSON that cannot end the script element it stands in."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
