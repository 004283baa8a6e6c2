"""A card: what a source holds, how its files are found, what its annotators looked for."""

import re
from collections.abc import Iterable, Mapping
from functools import cached_property

from pydantic import Field, model_validator

from abdoseg.cards.parts import (
    Access,
    AnnotationException,
    Expected,
    LabelTarget,
    Layout,
    OrientationTest,
    Part,
    Release,
    Sparse,
    Split,
    Table,
    Unlabelled,
    Variant,
    require_expression,
)
from abdoseg.types import Crossing, Modality


class Card(Part):
    """A source."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    version: str = ""
    alias: str | None = Field(default=None, description="name that ingests all cards that carry it")
    modality: Modality
    annotated: tuple[str, ...] = Field(default=(), description="structures the annotators looked for, present or not")
    layouts: tuple[Layout, ...] = Field(min_length=1)
    labels: dict[str, LabelTarget] = Field(default={}, description="raw value -> structure or [right, left]")
    dropped: dict[str, str] = Field(default={}, description="raw value -> what it is; becomes background")
    ignored: dict[str, str] = Field(default={}, description="raw value -> why nothing is known in its voxels")
    variants: tuple[Variant, ...] = Field(default=(), description="other meanings, by what a file holds")
    masks: dict[str, str] = Field(default={}, description="mask file -> structure, a later one wins")
    unlabelled_source: bool = Field(default=False, description="no scan of this source has labels")
    labels_by_user: bool = Field(default=False, description="the user states the label map, as no public one exists")
    split_crossing: Crossing = Field(
        default="unknown", description="of a joined organ, what becomes of a part that crosses the body's midline"
    )
    truncated: tuple[str, ...] = Field(
        default=(), description="structures drawn over a limited z range; unknown above and below it"
    )
    sparse: Sparse | None = None
    table: Table | None = None
    split: Split | None = None
    exceptions: tuple[AnnotationException, ...] = ()
    releases: tuple[Release, ...] = ()
    unlabelled: tuple[Unlabelled, ...] = ()
    dataset_json: bool = Field(default=False, description="labels of a dataset.json beside the files must agree")
    orientation_test: OrientationTest | None = None
    exclude: dict[str, str] = Field(default={}, description="case id -> why it must not be used")
    suspect: dict[str, str] = Field(default={}, description="case id -> what to look at")
    withdrawn: dict[str, str] = Field(
        default={}, description="case id -> why its image is no longer there; its label alone is passed over"
    )
    same_patient: tuple[tuple[str, ...], ...] = Field(default=(), description="case ids that are one patient's")
    overlaps: dict[str, str] = Field(default={}, description="other source -> what they share")
    expected: Expected = Expected()
    access: Access | None = None
    evidence: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> "Card":
        faults = [*self._label_faults(), *self._value_faults(), *self._reference_faults()]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _label_faults(self) -> Iterable[str]:
        drawn = structures_of(self.labels.values()) | set(self.masks.values())
        drawn |= {name for variant in self.variants for name in structures_of(variant.labels.values())}
        if drawn - set(self.annotated):
            yield f"labels name {', '.join(sorted(drawn - set(self.annotated)))}, which annotated does not list"
        if set(self.annotated) - drawn:
            yield f"annotated lists {', '.join(sorted(set(self.annotated) - drawn))}, which no label or mask maps to"
        if not self.annotated and not self.unlabelled_source and not self.labels_by_user:
            yield "annotated is empty; list the structures drawn, or set unlabelled_source = true"
        if self.unlabelled_source and (self.annotated or any(layout.labels for layout in self.layouts)):
            yield "unlabelled_source, but annotated or a layout names labels"
        if not self.unlabelled_source and any(layout.labels is None for layout in self.layouts):
            yield "a layout has neither label nor masks; set unlabelled_source = true if no scan has labels"
        yield from self._duplicate_faults()

    def _duplicate_faults(self) -> Iterable[str]:
        twice = sorted({name for name in self.annotated if self.annotated.count(name) > 1})
        if twice:
            yield f"annotated lists {', '.join(twice)} twice"
        for first, second, text in (
            (self.labels, self.dropped, "mapped and dropped"),
            (self.labels, self.ignored, "mapped and ignored"),
            (self.dropped, self.ignored, "dropped and ignored"),
        ):
            both = set(first) & set(second)
            if both:
                yield f"values {', '.join(sorted(both))} are both {text}"

    def _value_faults(self) -> Iterable[str]:
        variants = [value for variant in self.variants for value in variant.labels]
        for value in (*self.labels, *self.dropped, *self.ignored, *variants):
            if not re.fullmatch(r"\d{1,5}", value) or not 0 < int(value) < 65536:
                yield f"label value '{value}', expected a whole number from 1 to 65535 (0 is background)"
        targets = [*self.labels.values(), *(t for v in self.variants for t in v.labels.values())]
        if any(isinstance(target, list) and len(target) != 2 for target in targets):
            yield "labels: a merged value maps to exactly [right, left]"

    def _reference_faults(self) -> Iterable[str]:
        group = self.split.group if self.split else None
        if group is not None and not any(group in layout.groups for layout in self.layouts):
            yield f"split: no layout has a group called {group}"
        if self.split is not None and self.split.column is not None and self.table is None:
            yield f"split: column {self.split.column}, but the card has no table"
        if self.exceptions and self.table is None:
            yield "exceptions go by columns of a table, but the card has no table"
        for rule in self.unlabelled:
            try:
                require_expression("unlabelled", rule.match)
            except ValueError as error:
                yield str(error)
        named = {
            "truncated": set(self.truncated),
            "exceptions": {name for rule in self.exceptions for name in rule.not_annotated},
            "releases": {name for release in self.releases for name in release.not_annotated},
            "orientation_test": {self.orientation_test.structure} if self.orientation_test else set(),
            "expected.volume_ml": set(self.expected.volume_ml),
            "expected.mean_hu": set(self.expected.mean_hu),
        }
        for field, names in named.items():
            if names - set(self.annotated):
                yield f"{field} names {', '.join(sorted(names - set(self.annotated)))}, which annotated does not list"

    def label_targets(self, present: Iterable[int] = ()) -> dict[int, LabelTarget]:
        """Return raw value -> target for a file with these values; keys are numbers (as text, 10 comes before 2)."""
        labels = {**self.labels, **{v: t for variant in self.variants_in(present) for v, t in variant.labels.items()}}
        return {int(value): target for value, target in labels.items()}

    def variants_in(self, present: Iterable[int]) -> list[Variant]:
        """Return the variants that a file with these values tells."""
        values = set(present)
        return [v for v in self.variants if values and set(v.present) <= values and not set(v.absent) & values]

    def dropped_values(self) -> set[int]:
        """Return the raw values that become background on purpose."""
        return {int(value) for value in self.dropped}

    def ignored_values(self) -> set[int]:
        """Return the raw values in whose voxels nothing is known."""
        return {int(value) for value in self.ignored}

    def annotated_in(self, row: Mapping[str, str], masks: Iterable[str] = ()) -> tuple[str, ...]:
        """Return the structures annotated in a case, by its table row and mask names (empty without them)."""
        left_out: set[str] = set()
        for rule in self.exceptions:
            applies = not any(row.get(column, "").strip() in values for column, values in rule.unless.items())
            left_out |= set(rule.not_annotated) if applies else set()
        release = self.release_of(masks)
        left_out |= set(release.not_annotated) if release else set()
        return tuple(name for name in self.annotated if name not in left_out)

    def release_of(self, masks: Iterable[str]) -> Release | None:
        """Return the release that a case's mask names tell, if any."""
        names = set(masks)
        return next((release for release in self.releases if names & set(release.masks)), None)

    @cached_property
    def patients(self) -> dict[str, str]:
        """Case id -> the first id of the cases of its patient, where the card knows several."""
        return {case: cases[0] for cases in self.same_patient for case in cases}


def structures_of(targets: Iterable[LabelTarget]) -> set[str]:
    """Return the names in label targets."""
    return {name for target in targets for name in ([target] if isinstance(target, str) else target)}


def merged_targets(targets: Mapping[int, LabelTarget]) -> dict[int, tuple[str, str]]:
    """Return raw value -> (right, left) for values that join both sides."""
    return {v: (t[0], t[1]) for v, t in targets.items() if isinstance(t, list)}
