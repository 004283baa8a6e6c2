"""Evaluation of volumes, cases and folders of files."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from abdoseg.anatomy import ABDOMEN, Anatomy
from abdoseg.annotation import Annotation
from abdoseg.cards import load_card
from abdoseg.case import CaseFacts
from abdoseg.errors import AbdosegError, CardError, CaseError, UnknownNameError
from abdoseg.steps.evaluate import EvalSettings, Outcome, evaluate_cases, score_case, summarise
from abdoseg.steps.evaluate_folders import evaluate_folders, evaluate_pairs, folder_rules, pair_folders

ORGANS = ABDOMEN.subset(("spleen", "liver", "aorta"))
ALL_KNOWN = Annotation.partial((1, 2, 3), 3)
SPACING = (1.0, 2.0, 5.0)


def volume(boxes, shape=(10, 10, 10)):
    """Slabs of 10 x 10 voxels: value -> (first, last + 1) along X."""
    label = np.zeros(shape, dtype=np.uint8)
    for value, (first, last) in boxes.items():
        label[first:last] = value
    return label


def by_structure(scores, metric="dsc"):
    return {score.structure: (score.outcome, score.value) for score in scores if score.metric == metric}


REFERENCE = volume({1: (0, 4), 2: (6, 8)})
PREDICTION = volume({1: (1, 4), 2: (6, 10), 3: (4, 6)})


def test_score_case_by_hand():
    found = by_structure(score_case(PREDICTION, REFERENCE, ALL_KNOWN, SPACING, ORGANS))
    assert found == {
        "spleen": (Outcome.SCORED, pytest.approx(100 * 6 / 7)),  # 2 x 3 / (3 + 4) slabs
        "liver": (Outcome.SCORED, pytest.approx(100 * 4 / 6)),  # 2 x 2 / (4 + 2)
        "aorta": (Outcome.ABSENT, None),
    }


def test_unannotated_structure_gets_no_score_whatever_is_predicted():
    annotation = Annotation.partial((2,), 3)
    for settings in (EvalSettings(), EvalSettings(absent="score")):
        scores = score_case(PREDICTION, REFERENCE, annotation, SPACING, ORGANS, settings)
        found = by_structure(scores)
        assert found["spleen"] == found["aorta"] == (Outcome.NOT_ANNOTATED, None)
        assert found["liver"][1] == pytest.approx(100 * 4 / 6)
        assert [score.annotated for score in scores] == [False, True, False]


def test_unlabelled_scan_gets_no_score():
    scores = score_case(PREDICTION, REFERENCE, Annotation.partial((), 3), SPACING, ORGANS)
    assert {score.outcome for score in scores} == {Outcome.NOT_ANNOTATED}
    assert summarise(scores, ("structure",)) == []


@pytest.mark.parametrize("formula", ["plain", "authors"])
def test_absent_structures_may_count_as_false_positives(formula):
    settings = EvalSettings(metrics=("dsc", "volume_error"), dsc=formula, absent="score")
    scores = score_case(PREDICTION, REFERENCE, ALL_KNOWN, SPACING, ORGANS, settings)
    assert by_structure(scores)["aorta"] == (Outcome.FALSE_POSITIVE, 0.0)
    assert by_structure(scores, "volume_error")["aorta"] == (
        Outcome.FALSE_POSITIVE,
        pytest.approx(2.0),
    )  # 200 x 10 mm^3
    nothing = score_case(volume({}), REFERENCE, ALL_KNOWN, SPACING, ORGANS, settings)
    assert by_structure(nothing)["aorta"] == (Outcome.ABSENT, None)
    assert by_structure(nothing)["spleen"][0] is Outcome.SCORED


def test_small_structures_are_left_out():
    settings = EvalSettings(min_voxels=201)
    found = by_structure(score_case(PREDICTION, REFERENCE, ALL_KNOWN, SPACING, ORGANS, settings))
    assert found["liver"] == (Outcome.TOO_SMALL, None)  # 200 voxels
    assert found["spleen"][0] is Outcome.SCORED
    exactly = EvalSettings(min_voxels=200)
    assert by_structure(score_case(PREDICTION, REFERENCE, ALL_KNOWN, SPACING, ORGANS, exactly))["liver"][1] is not None


def test_formula_of_the_authors():
    found = by_structure(score_case(PREDICTION, REFERENCE, ALL_KNOWN, SPACING, ORGANS, EvalSettings(dsc="authors")))
    assert found["liver"][1] == pytest.approx(100 * 401 / 601)


def test_empty_prediction_scores_zero_and_perfect_one_hundred():
    assert by_structure(score_case(volume({}), REFERENCE, ALL_KNOWN, SPACING, ORGANS))["liver"][1] == 0.0
    assert by_structure(score_case(REFERENCE, REFERENCE, ALL_KNOWN, SPACING, ORGANS))["liver"][1] == 100.0


def test_structure_that_lies_in_hidden_slices_only_is_absent():
    rows = np.array([[True, True, True], [False, False, False]])
    groups = np.ones(10, dtype=np.int32)
    groups[:5] = 0  # the liver starts at slice 6
    found = by_structure(score_case(PREDICTION, REFERENCE, Annotation(rows, {0: groups}), SPACING, ORGANS))
    assert found["liver"] == (Outcome.ABSENT, None)
    assert found["spleen"][1] == pytest.approx(100 * 6 / 7)


def test_score_case_refuses_what_does_not_fit():
    with pytest.raises(CaseError, match="annotation: found 3 structures; expected the anatomy's 16"):
        score_case(PREDICTION, REFERENCE, ALL_KNOWN, SPACING)
    with pytest.raises(UnknownNameError, match=r"metric 'dcs' is not known. Did you mean dsc"):
        score_case(PREDICTION, REFERENCE, ALL_KNOWN, SPACING, ORGANS, EvalSettings(metrics=("dcs",)))


def facts(case, source="word", modality="CT"):
    affine = np.diag([2.0, 2.0, 2.0, 1.0]).tolist()
    return CaseFacts(
        case=case, source=source, modality=modality, patient=case, shape=(10, 10, 10), affine=affine,
        native_shape=(10, 10, 10), native_affine=affine, scale=1, offset=0, window=(0, 1),
        annotation=ALL_KNOWN.to_json(), voxels={}, fingerprint="", digest="d", settings_digest="s", card_digest="c",
    )  # fmt: skip


class Count:
    """Progress that counts."""

    def __init__(self):
        self.total, self.done = 0, []

    def start(self, total, title):
        self.total = total

    def advance(self, amount=1, note=""):
        self.done.append(note)

    def say(self, text):
        """Do nothing."""


def test_evaluate_cases_names_each_case():
    items = [
        (facts("1"), ALL_KNOWN, REFERENCE, PREDICTION),
        (facts("7", "amos-mri", "MR"), Annotation.partial((1,), 3), REFERENCE, REFERENCE),
    ]
    progress = Count()
    settings = EvalSettings(metrics=("dsc", "volume_error"))
    scores = evaluate_cases(iter(items), settings, ORGANS, progress)
    assert progress.done == ["word/1", "amos-mri/7"]
    assert {(s.dataset, s.subject, s.modality) for s in scores} == {
        ("word", "word/1", "CT"),
        ("amos-mri", "amos-mri/7", "MR"),
    }
    means = {row.keys["dataset"]: row.mean for row in summarise(scores, ("dataset",)) if row.metric == "dsc"}
    first = (100 * 6 / 7 + 100 * 4 / 6) / 2
    assert means == pytest.approx({"word": first, "amos-mri": 100.0, "all": (first + 100) / 2})
    errors = {s.structure: s.value for s in scores if s.metric == "volume_error" and s.dataset == "word"}
    assert errors["liver"] == pytest.approx(1.6)  # 200 voxels of 8 mm^3


def test_evaluate_cases_says_which_case_is_wrong():
    with pytest.raises(CaseError, match=r"^word/2: prediction: found label values 9; expected 0 to 3"):
        evaluate_cases([(facts("2"), ALL_KNOWN, REFERENCE, volume({9: (0, 1)}))], anatomy=ORGANS)
    small = volume({}, (10, 10, 9))
    with pytest.raises(CaseError, match=r"^word/2: label: found shape \(10, 10, 9\); expected \(10, 10, 10\)"):
        evaluate_cases([(facts("2"), ALL_KNOWN, small, small)], anatomy=ORGANS)


AFFINE = np.diag([1.0, 2.0, 5.0, 1.0])


def write(path: Path, label, affine=AFFINE):
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(label, affine), path)
    return path


@pytest.fixture
def folders(tmp_path):
    """Two pairs: a, which agrees in part, and b, perfect."""
    for name, prediction in (("a", PREDICTION), ("b", REFERENCE)):
        write(tmp_path / "ref" / f"{name}.nii.gz", REFERENCE)
        write(tmp_path / "pred" / f"{name}.nii.gz", prediction)
    return tmp_path / "pred", tmp_path / "ref"


def test_folders(folders):
    pred, ref = folders
    (pred / "._a.nii.gz").write_bytes(b"resource fork")
    (ref / "readme.txt").write_text("not a label")
    result = evaluate_folders(pred, ref, anatomy=ORGANS)
    assert result.notes == ()
    assert {(s.dataset, s.subject, s.modality) for s in result.scores} == {("ref", n, "unknown") for n in "ab"}
    values = {s.subject: s.value for s in result.scores if s.structure == "liver"}
    assert values == pytest.approx({"a": 100 * 4 / 6, "b": 100.0})


def test_spacing_of_files_is_their_own(folders):
    scores = evaluate_folders(*folders, anatomy=ORGANS, settings=EvalSettings(metrics=("volume_error",))).scores
    errors = {s.subject: s.value for s in scores if s.structure == "liver"}
    assert errors == pytest.approx({"a": 2.0, "b": 0.0})  # 200 voxels of 1 x 2 x 5 mm


def test_pairs_show_progress(folders):
    pairs, _ = pair_folders(*folders)
    progress = Count()
    evaluate_pairs(pairs, folder_rules(folders[1], anatomy=ORGANS), progress=progress)
    assert (progress.total, progress.done) == (2, ["a", "b"])


def test_two_files_are_one_pair(folders):
    pred, ref = folders
    result = evaluate_folders(pred / "b.nii.gz", ref / "a.nii.gz", anatomy=ORGANS)
    assert {(s.dataset, s.subject) for s in result.scores} == {("ref", "a")}
    assert {s.value for s in result.scores if s.value is not None} == {100.0}


def test_other_axis_order_and_suffix_are_the_same_space(folders):
    pred, ref = folders
    (pred / "a.nii.gz").unlink()
    turned = np.ascontiguousarray(PREDICTION.transpose(2, 0, 1)[::-1])
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[2, 3], affine[3, 3] = -5.0, 1.0, 2.0, 45.0, 1.0
    write(pred / "a.nii", turned, affine)
    values = {s.structure: s.value for s in evaluate_folders(pred, ref, anatomy=ORGANS).scores if s.subject == "a"}
    assert values["liver"] == pytest.approx(100 * 4 / 6)
    assert values["spleen"] == pytest.approx(100 * 6 / 7)


def test_whole_floats_and_wide_integers_are_labels(folders):
    pred, ref = folders
    write(pred / "a.nii.gz", PREDICTION.astype(np.float32))
    write(ref / "b.nii.gz", REFERENCE.astype(np.int16)[..., None])
    values = [s.value for s in evaluate_folders(pred, ref, anatomy=ORGANS).scores if s.structure == "liver"]
    assert values == pytest.approx([100 * 4 / 6, 100.0])


def test_unknown_voxels_of_a_reference(folders):
    pred, ref = folders
    label = REFERENCE.copy()
    label[8:] = 255  # where the prediction of a holds liver that the reference does not
    write(ref / "a.nii.gz", label)
    values = {s.subject: s.value for s in evaluate_folders(pred, ref, anatomy=ORGANS).scores if s.structure == "liver"}
    assert values == {"a": 100.0, "b": 100.0}


def test_missing_predictions(folders):
    pred, ref = folders
    (pred / "b.nii.gz").unlink()
    write(pred / "c.nii.gz", PREDICTION)
    with pytest.raises(AbdosegError, match=r"pred: found no prediction for 1 of 2 references \(b\); predict them"):
        evaluate_folders(pred, ref, anatomy=ORGANS)
    skipped = evaluate_folders(pred, ref, anatomy=ORGANS, missing="skip")
    assert {s.subject for s in skipped.scores} == {"a"}
    assert skipped.notes == (
        "references without a prediction (1 of 2) were skipped: b",
        "predictions without a reference (1) were not scored: c",
    )
    zero = evaluate_folders(pred, ref, anatomy=ORGANS, missing="zero")
    assert {s.value for s in zero.scores if s.subject == "b" and s.outcome.has_value} == {0.0}
    assert "count as empty" in zero.notes[0]
    with pytest.raises(UnknownNameError, match="missing 'ignore' is not known"):
        evaluate_folders(pred, ref, anatomy=ORGANS, missing="ignore")


def truncated(path):
    """Most of a file that is too long for the header to be all that is left."""
    write(path, np.random.default_rng(0).integers(0, 4, (40, 40, 40), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-4000])


def cut_inside(path):
    """A whole gzip stream of a file that lacks half of its voxels."""
    raw = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(raw[: len(raw) // 2]))


BREAKS = {
    "shape": (
        lambda p: write(p, PREDICTION[:, :, :9]),
        r"found shape \(10, 10, 9\) \(as RAS\+\); expected the reference's \(10, 10, 10\); resample",
    ),
    "affine": (
        lambda p: write(p, PREDICTION, AFFINE @ np.diag([1, 1, 1.1, 1])),
        r"found corners 0.9 voxels off the reference's; expected at most 0.5; resample",
    ),
    "values": (lambda p: write(p, volume({7: (0, 1), 200: (1, 2)})), "found label values 7, 200; expected 0 to 3; map"),
    "unknown": (lambda p: write(p, volume({255: (0, 1)})), "found label values 255; expected 0 to 3; map"),
    "negative": (
        lambda p: write(p, REFERENCE.astype(np.int16) - 1),
        r"found label values -1; expected 0 to 255; check",
    ),
    "large": (lambda p: write(p, REFERENCE.astype(np.int16) * 300), r"found label values 300, 600; expected 0 to 255"),
    "probabilities": (
        lambda p: write(p, REFERENCE.astype(np.float32) * 0.25),
        r"found the value 0.25; expected whole numbers \(labels, not probabilities\); write labels as uint8",
    ),
    "nan": (
        lambda p: write(p, np.where(REFERENCE, np.nan, 0).astype(np.float32)),
        "found the value nan; expected whole",
    ),
    "channels": (lambda p: write(p, np.zeros((10, 10, 10, 2), np.uint8)), "found 4-D .*expected 3-D"),
    "truncated": (truncated, "damaged or cut off .*fetch the file again"),
    "half": (cut_inside, "cannot be read .*fetch the file again"),
    "text": (lambda p: p.write_text("hello"), "fetch the file again"),
    "sheared": (lambda p: write(p, PREDICTION, AFFINE + np.eye(4, k=1)), "the scan is sheared"),
}


@pytest.mark.parametrize("fault", BREAKS)
def test_faulty_file_is_one_clear_line(folders, fault):
    pred, ref = folders
    make, expected = BREAKS[fault]
    make(pred / "a.nii.gz")
    with pytest.raises(CaseError, match=expected) as caught:
        evaluate_folders(pred, ref, anatomy=ORGANS)
    message = str(caught.value)
    assert message.startswith(str(pred / "a.nii.gz"))
    assert "\n" not in message


def test_faulty_reference_is_named(folders):
    pred, ref = folders
    write(ref / "a.nii.gz", volume({9: (0, 1)}))
    with pytest.raises(CaseError, match=r"ref/a.nii.gz: reference: found label values 9; expected 0 to 3 or 255"):
        evaluate_folders(pred, ref, anatomy=ORGANS)


def test_folder_faults(folders, tmp_path):
    pred, ref = folders
    empty = tmp_path / "empty"
    empty.mkdir()
    for left, right, expected in (
        (pred, tmp_path / "nowhere", "nowhere: does not exist; expected a folder"),
        (empty, ref, "empty: found no label map; expected files ending in"),
        (pred, empty, "empty: found no label map"),
        (pred, ref / "a.nii.gz", r"a\.nii\.gz: is a file and the other is not"),
    ):
        with pytest.raises(AbdosegError, match=expected):
            evaluate_folders(left, right, anatomy=ORGANS)
    write(empty / "z.nii.gz", PREDICTION)
    with pytest.raises(AbdosegError, match=r"no file is named like one of .*\(a, b\)"):
        evaluate_folders(empty, ref, anatomy=ORGANS, missing="zero")
    write(pred / "a.nii", PREDICTION)
    with pytest.raises(AbdosegError, match=r"found a\.nii and a\.nii\.gz; expected one file a case; remove one"):
        evaluate_folders(pred, ref, anatomy=ORGANS)


def test_card_translates_raw_values(tmp_path):
    # WORD: 1 liver, 2 spleen, 3 left kidney, 10 colon (dropped), 12 both adrenal glands
    write(tmp_path / "ref" / "a.nii.gz", volume({1: (0, 2), 3: (2, 4), 10: (4, 6), 12: (6, 8)}))
    ids = {name: ABDOMEN.id_of(name) for name in ABDOMEN.names}
    prediction = volume({ids["liver"]: (0, 2), ids["left_kidney"]: (2, 5), ids["right_adrenal_gland"]: (6, 8)})
    prediction[8:] = ids["aorta"]  # WORD does not annotate the aorta
    write(tmp_path / "pred" / "a.nii.gz", prediction)
    result = evaluate_folders(tmp_path / "pred", tmp_path / "ref", card="word")
    found = by_structure(result.scores)
    assert found["liver"] == (Outcome.SCORED, 100.0)
    assert found["left_kidney"] == (Outcome.SCORED, pytest.approx(80.0))  # 2 x 2 / (2 + 3)
    assert found["spleen"] == (Outcome.ABSENT, None)
    for name in ("aorta", "right_adrenal_gland", "left_adrenal_gland"):
        assert found[name] == (Outcome.NOT_ANNOTATED, None)
    ids_note, sides_note = result.notes
    assert "predictions are read as abdoseg's structure ids" in ids_note
    assert sides_note == "word draws right_adrenal_gland and left_adrenal_gland as one value; neither is scored"
    assert {(s.dataset, s.modality) for s in result.scores} == {("word", "CT")}
    write(tmp_path / "ref" / "a.nii.gz", volume({77: (0, 2), 255: (3, 4)}))
    with pytest.raises(
        CaseError, match=r"a\.nii\.gz: found label values 77, 255; expected 0, 1, 2, 3, .*; check which"
    ):
        evaluate_folders(tmp_path / "pred", tmp_path / "ref", card=load_card("word"))


def test_card_with_structures_beyond_the_anatomy(tmp_path):
    write(tmp_path / "ref" / "a.nii.gz", volume({1: (0, 2), 5: (2, 4)}))
    write(tmp_path / "pred" / "a.nii.gz", volume({1: (0, 2)}))
    liver = Anatomy(ABDOMEN.subset(("liver",)).structures)
    result = evaluate_folders(tmp_path / "pred", tmp_path / "ref", card="word", anatomy=liver)
    assert by_structure(result.scores) == {"liver": (Outcome.SCORED, 100.0)}


def test_cards_that_cannot_say_what_values_mean(tmp_path):
    with pytest.raises(CardError, match="card totalsegmentator: describes no label map"):
        folder_rules(tmp_path, "totalsegmentator")


def test_structures_left_out_in_some_cases_are_not_scored(tmp_path):
    text = load_card("word").model_dump()
    text["exceptions"] = [{"not_annotated": ("bladder",), "unless": {"sex": ("f",)}, "reason": "test"}]
    text["table"] = {"path": "meta.csv", "key": "case"}
    card = type(load_card("word")).model_validate(text)
    rules = folder_rules(tmp_path, card)
    assert ABDOMEN.id_of("bladder") not in rules.annotation.structure_ids
    assert ABDOMEN.id_of("liver") in rules.annotation.structure_ids
    assert "word does not annotate bladder in every case; it is not scored" in rules.notes
