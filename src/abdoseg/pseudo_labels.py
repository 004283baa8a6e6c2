"""The first half of self-training: a finished run labels the training cases of another run."""

import hashlib

import numpy as np

from abdoseg.annotation import Annotation
from abdoseg.case import Case, CaseFacts, Foreground
from abdoseg.devices import choose_device
from abdoseg.errors import CaseError, ConfigError, RunError, UnknownNameError
from abdoseg.inference import sliding_window_logits
from abdoseg.methods.pseudo_label import label_case
from abdoseg.model import SegmentationModel
from abdoseg.progress import Progress
from abdoseg.runs import Run, load_run
from abdoseg.store import Workspace
from abdoseg.trained import checkpoint_of, load_model
from abdoseg.training_set import derived_cases, shown_training_cases
from abdoseg.types import UNKNOWN_LABEL


def label_training_cases(workspace: Workspace, run: Run, device: str, progress: Progress) -> None:
    """Write the training cases of a run with complete labels, in its folder; those that are there already stay.

    Parameters
    ----------
    workspace, run
        Whose training cases; ``run.config.start_from`` names the run that labels them.
    device
        Where to predict.
    progress
        Told after every case.

    Raises
    ------
    ConfigError
        If the run that labels has other structures, spacing or windows.
    RunError
        If it has no weights, or a case the run froze is gone or changed.
    CaseError
        If a case cannot be written.
    """
    cases, target = shown_training_cases(workspace, run), derived_cases(run)
    complete = all(target.is_there(facts.key) for facts, _ in cases)
    # Whoever has the teacher's name since: a training that has begun keeps the labels it began with.
    if complete and run.checkpoint_file.is_file():
        return
    try:
        teacher = load_run(workspace, run.config.start_from)
    except (UnknownNameError, RunError):
        if complete:  # nothing is left for it to do
            return
        raise
    if teacher.data.settings != run.data.settings:
        raise ConfigError(f"run {teacher.name}: has other structures, spacing or windows than this workspace")
    by = _teacher_digest(teacher, run.config.confidence)
    todo = [(f, a) for f, a in cases if not target.holds(f.key, _digest(f, a, by))]
    if not todo:
        return
    model, _ = load_model(teacher, choose_device(device))
    progress.start(len(todo), f"labelling by {teacher.name}")
    unsure = 0.0
    for facts, annotation in todo:
        labelled = _labelled(workspace, model, facts, annotation, run.config.confidence, _digest(facts, annotation, by))
        target.write(labelled)
        unsure += float((labelled.label == UNKNOWN_LABEL).mean()) / len(todo)
        progress.advance(note=facts.key)
    told = f"{len(todo)} training cases labelled by {teacher.name}, all but {100 * unsure:.1f} % of their voxels"
    progress.say(told)


def _labelled(
    workspace: Workspace,
    model: SegmentationModel,
    facts: CaseFacts,
    annotation: Annotation,
    confidence: float,
    digest: str,
) -> Case:
    """Return a case with complete labels."""
    case = workspace.read_case(facts.key)
    try:
        scores = sliding_window_logits(model.network, case.intensity(), model.settings())
    except RunError as error:
        raise CaseError(f"{facts.key}: {error}") from error
    label = label_case(case.label, annotation, scores, confidence, independent=model.independent_heads)
    names = model.anatomy.names
    complete = Annotation.partial(range(1, len(names) + 1), len(names))
    foreground = Foreground.of(label, len(names))
    counts = dict(zip(names, foreground.counts().tolist(), strict=True))
    changed = facts.model_copy(
        update={
            "annotation": complete.to_json(),
            "voxels": {name: count for name, count in counts.items() if count},
            "occupied": {names[i - 1]: runs for i, runs in foreground.occupied(label.shape).items()},
            "digest": digest,
        }
    )
    return Case(changed, case.image, label)


def _teacher_digest(teacher: Run, confidence: float) -> bytes:
    weights = hashlib.sha256(checkpoint_of(teacher).read_bytes()).digest()
    return weights + np.float64(confidence).tobytes()


def _digest(facts: CaseFacts, annotation: Annotation, by: bytes) -> str:
    """Return what names a labelled case: of what voxels and annotation it was made, by whom."""
    told = facts.digest + str(annotation.to_json())
    return hashlib.sha256(told.encode() + by).hexdigest()
