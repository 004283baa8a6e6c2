"""The parts of a card: where files lie, what values mean, who looked for what."""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from abdoseg.types import SplitName

LabelTarget = str | list[str]
"""A structure, or ``[right, left]`` where the source draws both sides with one value."""

SliceAxis = Literal["sagittal", "coronal", "axial", "first", "second", "third"]
"""Along which axis slices are counted: a plane of the body, or an axis of the file's array."""


class Part(BaseModel):
    """Base of everything in a card: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Layout(Part):
    """One way in which the source's files lie on disk.

    Templates are paths below a root that is searched for (nested roots are found). ``{name}`` stands for the
    regular expression ``groups[name]``; the same name means the same text in image, label and case.
    """

    name: str = Field(description="for messages")
    image: str = Field(description="template of the image file; of the folder, with series = true")
    pairs: str | None = Field(
        default=None, description="name of a CSV with a row a case; then {name} is its column, and paths start at it"
    )
    series: bool = Field(default=False, description="the image is a folder that holds the files of one DICOM series")
    label: str | None = Field(default=None, description="template of the label map")
    masks: str | None = Field(default=None, description="template of one mask file, with {mask}")
    image_key: str | None = Field(default=None, description="dataset of the image in an HDF5 file")
    label_key: str | None = Field(default=None, description="dataset of the label in an HDF5 file")
    case: str = Field(description="template of the case id")
    patient: str | None = Field(default=None, description="template of the patient's pseudonym; default: the case id")
    pair: Literal["root", "name"] = Field(
        default="root",
        description="root: image and label lie below one root; name: anywhere, when only one label has the names",
    )
    groups: dict[str, str] = Field(default={}, description="regular expression for each {name}")
    ranges: dict[str, tuple[int, int]] = Field(default={}, description="numbers allowed for a group, inclusive")

    @model_validator(mode="after")
    def _templates_use_known_groups(self) -> "Layout":
        used = names_in(self.image, self.case, self.patient, self.label, self.masks)
        missing = used - set(self.groups) if self.pairs is None else set()
        if missing:
            msg = f"layout {self.name}: no expression in groups for {', '.join(sorted(missing))}"
            raise ValueError(msg)
        for name, expression in self.groups.items():
            require_expression(f"layout {self.name}, group {name}", expression)
        if self.label is not None and self.masks is not None:
            msg = f"layout {self.name}: label and masks; give a label map, or masks (one file a structure), or neither"
            raise ValueError(msg)
        self._check_references()
        self._check_expressions()
        return self

    def _check_expressions(self) -> None:
        """Raise ValueError where a group is an expression by itself, but not within a path."""
        for name, expression in self.groups.items():
            where = f"layout {self.name}, group {name}: '{expression}' is not a regular expression within the path"
            try:
                path_pattern(f"{{{name}}}", self.groups)
            except re.error as error:
                raise ValueError(f"{where} ({error})") from error
        for template in (self.image, self.label, self.masks) if self.pairs is None else ():
            try:
                path_pattern(template or "", self.groups)
            except re.error as error:
                msg = f"layout {self.name}: its groups make '{template}' not a regular expression ({error})"
                raise ValueError(msg) from error

    def _check_references(self) -> None:
        if self.masks is not None and "{mask}" not in self.masks:
            msg = f"layout {self.name}: masks lacks {{mask}}, the part of the path that names the structure"
            raise ValueError(msg)
        if not names_in(self.case):
            raise ValueError(f"layout {self.name}: case has no {{name}}, so all cases would be one")
        for field in ("image", "label", "masks"):
            template = getattr(self, field)
            known = template is None or self.pairs is not None
            if not known and not names_in(self.case, self.patient) <= names_in(template):
                msg = f"layout {self.name}: {field} lacks a {{name}} that case or patient is made of"
                raise ValueError(msg)
        named = {n for e in self.groups.values() for n in re.findall(r"\(\?P<(\w+)>", e)} | set(self.groups)
        if set(self.ranges) - named:
            strange = ", ".join(sorted(set(self.ranges) - named))
            msg = f"layout {self.name}: ranges of {strange}, which no group captures"
            raise ValueError(msg)

    @property
    def labels(self) -> str | None:
        """Template of the label map or of the masks."""
        return self.label or self.masks


def path_pattern(template: str, groups: dict[str, str]) -> re.Pattern[str]:
    """Return the expression of a template's paths; its group ``root`` is what stands before them."""
    seen: set[str] = set()

    def part(match: re.Match[str]) -> str:
        name = match[1]
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>{groups[name]})"

    pieces = re.split(r"({\w+})", template)
    body = "".join(re.sub(r"{(\w+)}", part, p) if p.startswith("{") else re.escape(p) for p in pieces)
    return re.compile(rf"(?P<root>(?:.*?/)??){body}")  # the shortest root: names may hold folders


def names_in(*templates: str | None) -> set[str]:
    """Return the ``{name}`` s that templates use."""
    return {name for template in templates if template for name in re.findall(r"{(\w+)}", template)}


def require_expression(where: str, expression: str) -> None:
    """Raise ValueError unless ``expression`` is a regular expression."""
    try:
        re.compile(expression)
    except re.error as error:
        msg = f"{where}: '{expression}' is not a regular expression ({error})"
        raise ValueError(msg) from error


class Table(Part):
    """A table beside the images with one row a case."""

    path: str = Field(description="file name, searched below the source's folder")
    separator: str = ","
    key: str = Field(description="column that holds the case id")


class Split(Part):
    """Where the official split is written: a named group of the layout, or a column of the table."""

    group: str | None = None
    column: str | None = None
    sides: dict[str, SplitName] = Field(description="text -> train, val or test")

    @model_validator(mode="after")
    def _one_place(self) -> "Split":
        if (self.group is None) == (self.column is None):
            msg = "split: give either group (of the layout) or column (of the table)"
            raise ValueError(msg)
        return self


class AnnotationException(Part):
    """Structures that are not annotated in some cases."""

    not_annotated: tuple[str, ...]
    unless: dict[str, tuple[str, ...]] = Field(description="table column -> values for which the rule does not apply")
    reason: str


class Release(Part):
    """A release of the source that some files give away, and what is different in it."""

    name: str
    masks: tuple[str, ...] = Field(description="mask names of which any tells this release")
    not_annotated: tuple[str, ...] = Field(default=(), description="structures this release does not draw")
    exclude: dict[str, str] = Field(default={}, description="case id -> why it must not be used")
    suspect: dict[str, str] = Field(default={}, description="case id -> what to look at")


class Variant(Part):
    """Other meanings of raw values, told by a value that is missing from a file."""

    present: tuple[int, ...] = Field(description="values the file must hold")
    absent: tuple[int, ...] = Field(description="values the file must not hold")
    labels: dict[str, LabelTarget] = Field(description="raw value -> structure or [right, left], instead of labels")
    reason: str


class Sparse(Part):
    """How the source tells which slices its annotators drew."""

    kind: Literal["non-empty", "table"] = Field(description="slices with any label; or those a side-car table lists")
    axis: SliceAxis | None = Field(default=None, description="along which slices are counted (non-empty)")
    table: str | None = Field(default=None, description="file name of a table: case, axis, slice, structures")
    separator: str = ","
    first: Literal[0, 1] = Field(default=0, description="number of the first slice in the table")

    @model_validator(mode="after")
    def _complete(self) -> "Sparse":
        if (self.kind == "non-empty") != (self.axis is not None) or (self.kind == "table") != (self.table is not None):
            msg = "sparse: non-empty needs axis, table needs table (the name of the file), and neither the other's"
            raise ValueError(msg)
        return self


class OrientationTest(Part):
    """Trust no header: try the ways in which a label can lie on its image, and score them by HU under the mask."""

    structure: str
    hu: tuple[float, float] = Field(description="range that voxels of the structure have")
    inside: float = Field(description="least part of the voxels in that range")
    spread: float = Field(description="largest standard deviation, HU")
    contrast: float = Field(description="least mean inside less mean of a shell around, HU")


class Unlabelled(Part):
    """Images that have no label by the source's own design; they are passed over with this reason."""

    match: str = Field(description="regular expression searched in the image's path")
    reason: str


class Access(Part):
    """How a user gets the data."""

    url: str
    how: str
    licence: str
    citation: str


class Expected(Part):
    """What a complete copy looks like; a difference is a warning."""

    cases: int | None = None
    spacing_mm: tuple[float, float] | None = Field(default=None, description="smallest and largest voxel side")
    volume_ml: dict[str, tuple[float, float]] = Field(default={}, description="structure -> usual volumes")
    mean_hu: dict[str, tuple[float, float]] = Field(default={}, description="structure -> usual mean HU (CT)")
