"""Evaluate plain folders: label maps paired by file name, for people who only want the metrics."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from abdoseg.anatomy import ABDOMEN, Anatomy
from abdoseg.annotation import Annotation
from abdoseg.cards import Card, load_card, merged_targets
from abdoseg.errors import CardError, CaseError, ConfigError, unknown_name
from abdoseg.geometry import AFFINE_TOLERANCE_VOXELS, Grid, corner_distance_voxels, same_grid
from abdoseg.label_maps import read_label_map
from abdoseg.metrics import DEFAULTS, EvalSettings, Score
from abdoseg.progress import SILENT, Progress
from abdoseg.readers import READERS, stem_of
from abdoseg.steps.evaluate import of_case, score_case
from abdoseg.types import UNKNOWN_LABEL, Label

Missing = Literal["error", "zero", "skip"]
"""Reference without a prediction: an error, an empty prediction, or left out."""


@dataclass(frozen=True)
class FolderScores:
    """What came of comparing two folders.

    Parameters
    ----------
    scores
        Of all pairs.
    notes
        What the user should know: references skipped, predictions unused, structures that cannot be scored.
    """

    scores: list[Score]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """A reference file and its prediction; ``prediction`` is ``None`` where an empty one is meant."""

    subject: str
    prediction: Path | None
    reference: Path


def evaluate_folders(
    pred: Path,
    ref: Path,
    *,
    card: Card | str | None = None,
    anatomy: Anatomy = ABDOMEN,
    missing: Missing = "error",
    settings: EvalSettings = DEFAULTS,
) -> FolderScores:
    """Score a folder of predictions against a folder of references, both label maps paired by file name.

    The same as :func:`folder_rules`, :func:`pair_folders` and :func:`evaluate_pairs` (which shows progress).

    Parameters
    ----------
    pred
        Predictions; values are structure ids 0..N. A file instead of a folder, with ``ref`` a file too, is one pair.
    ref
        References. Without a card: values are structure ids 0..N or 255 (unknown), and all structures are taken
        to be annotated.
    card
        Card (or its name or path) whose raw values the references use; it also says which structures are
        annotated, and its id is the dataset's name.
    anatomy
        Names of the structures.
    missing
        What to do with references that have no prediction.
    settings
        Metrics and rules.

    Raises
    ------
    ConfigError, CardError
        If the folders or the card cannot be used.
    CaseError
        If a file cannot be read, or its grid or values do not fit.
    """
    rules = folder_rules(ref, card, anatomy)
    pairs, notes = pair_folders(pred, ref, missing)
    return FolderScores(evaluate_pairs(pairs, rules, settings), rules.notes + notes)


def pair_folders(pred: Path, ref: Path, missing: Missing = "error") -> tuple[list[Pair], tuple[str, ...]]:
    """Pair the label maps of two folders by name without suffix, and say what is left over.

    Raises
    ------
    ConfigError
        If a folder is missing or has no label map, or a reference has no prediction and ``missing`` is ``error``.
    """
    if missing not in get_args(Missing):
        raise unknown_name("missing", missing, list(get_args(Missing)))
    if pred.is_file() and ref.is_file():
        return [Pair(_stem(ref), pred, ref)], ()
    predictions, references = _label_files(pred), _label_files(ref)
    lacking = [name for name in references if name not in predictions]
    _check_lacking(lacking, pred, ref, references, missing)
    unused = [name for name in predictions if name not in references]
    notes = []
    if lacking:
        done = "count as empty predictions" if missing == "zero" else "were skipped"
        notes.append(f"references without a prediction ({len(lacking)} of {len(references)}) {done}: {_some(lacking)}")
    if unused:
        notes.append(f"predictions without a reference ({len(unused)}) were not scored: {_some(unused)}")
    kept = [name for name in references if name in predictions or missing == "zero"]
    return [Pair(name, predictions.get(name), references[name]) for name in kept], tuple(notes)


@dataclass(frozen=True, eq=False)
class Rules:
    """What the values of a folder's references mean.

    Parameters
    ----------
    dataset, modality
        For the scores.
    anatomy
        Names of the structures.
    annotation
        Which of them are known, in all voxels.
    values
        Raw value -> structure id; ``None``: values are structure ids already.
    notes
        What the user should know.
    """

    dataset: str
    modality: str
    anatomy: Anatomy
    annotation: Annotation
    values: dict[int, int] | None = None
    notes: tuple[str, ...] = ()


def folder_rules(ref: Path, card: Card | str | None = None, anatomy: Anatomy = ABDOMEN) -> Rules:
    """Return what the references' values mean: structure ids, or a card's raw values.

    A merged value (both kidneys drawn as one, say) becomes background and its structures are not scored: the
    reference does not tell the sides apart. Structures that the card leaves out in some cases, by a table that
    plain folders do not have, are not scored either.
    """
    if card is None:
        n = len(anatomy)
        folder = ref.resolve().parent if ref.is_file() else ref.resolve()
        return Rules(folder.name, "unknown", anatomy, Annotation.partial(range(1, n + 1), n))
    card = load_card(card) if isinstance(card, str) else card
    if not card.labels:
        msg = f"card {card.id}: describes no label map; expected a value a structure; ingest it and evaluate there"
        raise CardError(msg)
    sided = merged_targets(card.label_targets())
    merged = {name for sides in sided.values() for name in sides}
    by_case = set(card.annotated) - set(card.annotated_in({}))
    scored = [name for name in card.annotated if name in anatomy.names and name not in merged | by_case]
    values = dict.fromkeys(card.dropped_values() | set(sided), 0) | {0: 0}
    values |= dict.fromkeys(card.ignored_values(), UNKNOWN_LABEL)
    singles = {raw: name for raw, name in card.label_targets().items() if isinstance(name, str)}
    values |= {raw: anatomy.id_of(name) if name in anatomy.names else 0 for raw, name in singles.items()}
    notes = ["predictions are read as abdoseg's structure ids (spleen 1, ...), only references by the card's values"]
    notes += [f"{card.id} draws {' and '.join(sides)} as one value; neither is scored" for sides in sided.values()]
    notes += [f"{card.id} does not annotate {name} in every case; it is not scored" for name in sorted(by_case)]
    annotation = Annotation.partial(anatomy.ids_of(tuple(scored)), len(anatomy))
    return Rules(card.id, card.modality, anatomy, annotation, values, tuple(notes))


def evaluate_pairs(
    pairs: Sequence[Pair],
    rules: Rules,
    settings: EvalSettings = DEFAULTS,
    progress: Progress = SILENT,
    *,
    resample: bool = False,
) -> list[Score]:
    """Score pairs of files one after the other.

    ``resample`` brings a prediction on another grid to its reference's by nearest neighbour, and says so; outside
    the prediction's grid is background.

    Raises
    ------
    CaseError
        If a file cannot be read, or its grid or values do not fit; the message begins with the file.
    """
    progress.start(len(pairs), "evaluating")
    scores = []
    for pair in pairs:
        reference, grid = read_label_map(pair.reference, rules.values)
        prediction = np.zeros(grid.shape, dtype=np.uint8)
        if pair.prediction is not None:
            prediction, predicted_grid = read_label_map(pair.prediction, None)
            if resample and not same_grid(grid, predicted_grid):
                progress.say(f"{pair.prediction.name}: brought to the reference's grid by nearest neighbour")
                prediction = _resampled(prediction, predicted_grid, grid)
            else:
                _check_grids(pair.prediction, predicted_grid, grid)
        try:
            found = score_case(prediction, reference, rules.annotation, grid.spacing_mm, rules.anatomy, settings)
        except CaseError as error:
            raise CaseError(f"{pair.prediction} against {pair.reference}: {error}") from error
        scores += of_case(found, rules.dataset, pair.subject, rules.modality)
        progress.advance(note=pair.subject)
    return scores


def _stem(path: Path) -> str:
    """Return the file's name without its suffix."""
    stem = stem_of(path)
    if stem == path.name:
        raise ConfigError(f"{path}: is not a label map; expected a name that ends in one of {', '.join(READERS)}")
    return stem


def _check_lacking(lacking: list[str], pred: Path, ref: Path, references: Collection[str], missing: Missing) -> None:
    """Raise ConfigError when no reference has a prediction, or not every one and that is an error."""
    if len(lacking) == len(references):
        msg = f"{pred}: no file is named like one of {ref} ({_some(lacking)}); name predictions as their references"
        raise ConfigError(msg)
    if lacking and missing == "error":
        msg = (
            f"{pred}: found no prediction for {len(lacking)} of {len(references)} references ({_some(lacking)}); "
            "predict them, or give --missing zero or --missing skip"
        )
        raise ConfigError(msg)


def _label_files(folder: Path) -> dict[str, Path]:
    """Return stem -> file of the label maps of a folder, by name; hidden files are passed over."""
    if not folder.is_dir():
        what = "is a file and the other is not" if folder.exists() else "does not exist"
        raise ConfigError(f"{folder}: {what}; expected a folder of label maps; check the path")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.name.lower().endswith(tuple(READERS)):
            continue
        other = files.setdefault(_stem(path), path)
        if other != path:
            raise ConfigError(f"{folder}: found {other.name} and {path.name}; expected one file a case; remove one")
    if not files:
        raise ConfigError(f"{folder}: found no label map; expected files ending in one of {', '.join(READERS)}")
    return files


def _check_grids(path: Path, predicted: Grid, reference: Grid) -> None:
    if predicted.shape != reference.shape:
        msg = f"found shape {predicted.shape} (as RAS+); expected the reference's {reference.shape}"
    elif not same_grid(reference, predicted):
        distance = corner_distance_voxels(reference, predicted)
        msg = f"found corners {distance:.2g} voxels off the reference's; expected at most {AFFINE_TOLERANCE_VOXELS}"
    else:
        return
    raise CaseError(f"{path}: {msg}; resample the prediction to the reference's grid (--resample)")


def _resampled(label: Label, grid: Grid, target: Grid) -> Label:
    """Return the nearest voxels of a label on another grid, 0 outside; obliquity is taken into account."""
    from scipy.ndimage import affine_transform

    to_voxels = np.linalg.inv(grid.affine) @ target.affine
    moved = affine_transform(
        label, to_voxels[:3, :3], to_voxels[:3, 3], output_shape=target.shape, order=0, mode="grid-constant"
    )
    return np.asarray(moved, dtype=np.uint8)


def _some(items: Sequence[object], at_most: int = 5) -> str:
    return ", ".join(map(str, items[:at_most])) + (", ..." if len(items) > at_most else "")
