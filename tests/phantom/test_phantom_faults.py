"""Planted faults: the list is true, every file on it is there and carries what the list says."""

import gzip
import json

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from scipy import ndimage

from abdoseg.anatomy import ABDOMEN
from abdoseg.phantom import damage, nih_pancreas, word, write, write_phantoms
from abdoseg.phantom.body import Key
from abdoseg.phantom.faults import plant
from abdoseg.phantom.layouts import save_nifti
from abdoseg.phantom.scanner import scan_person
from abdoseg.phantom.write import LAYOUTS

SCALE = 6.0
LPS = np.diag([-2.0, -2.0, 3.0, 1.0])


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """All sources with a case of each and all faults; one person a protocol, as the faults are of files."""
    scans = {}

    def scan(key, protocol, spacing_scale):
        if protocol not in scans:
            scans[protocol] = scan_person(key, protocol, spacing_scale)
        return scans[protocol]

    out = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "scan_person", scan)
        cases = write_phantoms(out, ("all",), cases=1, faults=True, spacing_scale=SCALE)
    return out, cases, json.loads((out / "faults.json").read_text())


@pytest.fixture(scope="module")
def entry(planted):
    """Look up (entry, its files) by case."""
    out, _, entries = planted
    return lambda case: next((e, [out / f for f in e["files"]]) for e in entries if e["case"] == case)


def array(path):
    return np.asanyarray(nib.load(path).dataobj)


def truth(out, case, source):
    return array(out / "truth" / source / f"{case}.nii.gz")


def affine_error(path):
    affine = nib.load(path).affine[:3, :3]
    directions = affine / np.linalg.norm(affine, axis=0)
    return np.abs(directions.T @ directions - np.eye(3)).max()


def test_the_list_is_complete_and_its_files_exist(planted):
    out, _, entries = planted
    assert len({(e["source"], e["case"]) for e in entries}) == len(entries)
    assert [e["case"] for e in entries] == [f.case for layout in LAYOUTS.values() for f in layout.faults]
    for e in entries:
        assert set(e) == {"source", "case", "files", "fault", "expected", "why"}
        assert e["expected"] in ("taken", "repaired", "quarantined", "passed over")
        assert e["files"]
        assert all((out / file).exists() for file in e["files"]), e
        assert e["fault"]
        assert e["why"]


def test_every_source_has_faults_and_sound_cases_stay_sound(planted):
    _, cases, entries = planted
    assert {e["source"] for e in entries} == set(LAYOUTS)
    faulty = {(c.source, c.case_id) for c in cases if c.fault}
    assert faulty <= {(e["source"], e["case"]) for e in entries}
    # One sound case a source: AMOS makes its single one CT.
    assert sorted(c.source for c in cases if not c.fault) == sorted(LAYOUTS)


def test_truth_follows_the_geometry_that_the_image_states(planted):
    _, cases, _ = planted
    moved = {"Case_00011", "Case_00278", "Case_00964", "s0909", "urogram_904"}
    for case in cases:
        if case.case_id in moved:
            image, held = nib.load(case.image), nib.load(case.truth)
            assert image.shape == held.shape
            np.testing.assert_allclose(image.affine, held.affine, atol=1e-3)


# --- AbdomenCT-1K --------------------------------------------------------------------------------------------------


def test_a_mask_lies_beside_the_parts(planted, entry):
    out, _, _ = planted
    _, (mask,) = entry("Case_00399")
    assert mask.parent == out / "abdomenct1k"
    assert not (out / "abdomenct1k/Mask" / mask.name).exists()
    assert (out / "abdomenct1k/AbdomenCT-1K-ImagePart1/Case_00399_0000.nii.gz").is_file()
    assert set(np.unique(array(mask))) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(("case", "error"), [("Case_00011", 5e-4), ("s0909", 1.2e-4)])
def test_skewed_directions_are_refused_by_itk(entry, case, error):
    _, paths = entry(case)
    for path in paths:
        assert affine_error(path) == pytest.approx(error, rel=0.01)
        with pytest.raises(RuntimeError, match="orthonormal"):
            sitk.ReadImage(str(path))


def test_an_invented_spacing(entry):
    _, paths = entry("Case_00278")
    for path in paths:
        assert nib.load(path).header.get_zooms() == (1, 1, 1)
        assert nib.affines.voxel_sizes(nib.load(path).affine) == pytest.approx([1, 1, 1])
        assert sitk.ReadImage(str(path)).GetSpacing() == pytest.approx((1, 1, 1))


def test_one_scan_is_there_twice_and_one_is_nihs_too():
    plans = {f.case: f.plan for f in LAYOUTS["abdomenct1k"].faults}
    first, second, shared = plans["Case_00297"], plans["Case_00928"], plans["Case_01062"]
    # The voxels hang on source, number and protocol alone.
    assert (first.index, first.protocol) == (second.index, second.protocol)
    nih = nih_pancreas.LAYOUT.plan(1)[0]
    assert (shared.person_of, shared.index, shared.protocol) == ("nih-pancreas", nih.index, nih.protocol)


def test_twins_have_equal_voxels_under_both_names(entry):
    _, (image, mask, image_2, mask_2) = entry("Case_00928")
    np.testing.assert_array_equal(array(image), array(image_2))
    np.testing.assert_array_equal(array(mask), array(mask_2))
    assert {image.parent.name, image_2.parent.name} == {"AbdomenCT-1K-ImagePart1", "AbdomenCT-1K-ImagePart3"}


def test_a_scan_of_another_source_is_the_same_person(planted, entry):
    out, _, _ = planted
    _, (image, mask) = entry("Case_01062")
    series = next((out / "nih-pancreas").glob("manifest*/*/PANCREAS_0001/*/*"))
    last = pydicom.dcmread(max(series.iterdir()))
    volume = array(image)
    np.testing.assert_array_equal(volume[:, :, -1], last.pixel_array.T.astype(int) - 1024)
    assert (array(mask) == 4).sum() == (truth(out, "PANCREAS_0001", "nih-pancreas") == 10).sum()


def test_odd_header_axes(entry):
    _, (image, mask) = entry("Case_00964")
    for path in (image, mask):
        assert nib.aff2axcodes(nib.load(path).affine)[2] in "AP"
    assert nib.load(image).header.get_zooms()[2] == pytest.approx(5.0 * SCALE, rel=1e-5)


@pytest.mark.parametrize(
    ("case", "missing"),
    [
        ("Case_00010", "abdomenct1k/Mask/Case_00010.nii.gz"),
        ("word_0910", "word/WORD-V0.1.0/labelsTs/word_0910.nii.gz"),
        ("img0992", "btcv/RawData/Training/label/label0992.nii.gz"),
    ],
)
def test_images_without_a_label(planted, entry, case, missing):
    out, _, _ = planted
    _, (image,) = entry(case)
    assert array(image).ndim == 3
    assert not (out / missing).exists()
    assert (out / missing).parent.is_dir()


# --- AMOS, BTCV, FLARE22 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "limit"), [("amos_0401", 0.002), ("s0901", 0.1)])
def test_label_headers_differ_a_little(planted, entry, case, limit):
    image = next(c.image for c in planted[1] if c.case_id == case)
    for path in entry(case)[1]:
        moved = np.abs(nib.load(path).affine - nib.load(image).affine).max()
        assert 1e-4 < moved < limit
        assert nib.load(path).shape == nib.load(image).shape


def test_a_coronal_scan(planted, entry):
    _, cases, _ = planted
    _, (image, label) = entry("amos_0600")
    assert next(c for c in cases if c.case_id == "amos_0600").modality == "MR"
    assert nib.aff2axcodes(nib.load(image).affine)[2] in "AP"
    np.testing.assert_allclose(nib.load(label).affine, nib.load(image).affine)


def test_a_file_is_cut_off(entry):
    _, (image,) = entry("amos_0402")
    with pytest.raises(EOFError):
        array(image)


def test_junk_is_no_image(entry):
    _, (junk,) = entry("._amos_0403")
    assert junk.parent.name == "imagesTr"
    with pytest.raises(nib.filebasedimages.ImageFileError):
        nib.load(junk)


def test_gibsons_duodenum(planted, entry):
    out, _, _ = planted
    _, (label,) = entry("img0991")
    np.testing.assert_array_equal(array(label) == 14, truth(out, "img0991", "btcv") == ABDOMEN.id_of("duodenum"))
    assert (array(label) == 14).any()


def test_a_tumour_of_flare23(planted, entry):
    out, _, _ = planted
    _, (label,) = entry("FLARE22_Tr_0901")
    pancreas = truth(out, "FLARE22_Tr_0901", "flare22") == ABDOMEN.id_of("pancreas")
    assert set(np.unique(array(label)[pancreas])) == {4, 14}
    assert not (array(label)[~pancreas] == 14).any()


def test_files_of_other_sets_lie_among_a_sources_own(entry):
    _, (image, label) = entry("Organ12_0001")
    assert (image.name, label.name) == ("Organ12_0001_0000.nii.gz", "Organ12_0001.nii.gz")
    _, (image, label) = entry("liver_10")
    top = image.parents[1]
    assert (image.name, label.name) == ("liver_10_word_image.nii.gz", "liver_10_word_label.nii.gz")
    assert (top.name, label.parent.name) == ("addition_validation_from_LiTS", "lablesTs")
    info = json.loads((top.parent / "dataset.json").read_text())
    listed = json.dumps([info["training"], info["validation"], info["test"]])
    assert "liver" not in listed
    assert '{"image": "./imagesTs/word_0910.nii.gz"}' in listed


# --- NIH -----------------------------------------------------------------------------------------------------------


def test_withdrawn_images_leave_cropped_labels_of_number_2(planted, entry):
    out, _, _ = planted
    for case in ("PANCREAS_0025", "PANCREAS_0070"):
        _, (label,) = entry(case)
        assert label.name == f"label{case[-4:]}.nii.gz"
        assert not list((out / "nih-pancreas").glob(f"manifest*/*/{case}"))
        assert not (out / f"truth/nih-pancreas/{case}.nii.gz").exists()
        # One person a protocol here: number 1 is number 2.
        whole = array(out / "nih-pancreas/TCIA_pancreas_labels-02-05-2017/label0001.nii.gz")
        np.testing.assert_array_equal(array(label), whole[:, :, whole.shape[2] - array(label).shape[2] :])
        assert array(label).shape[2] < whole.shape[2]


def test_a_slice_is_missing(planted, entry):
    out, _, _ = planted
    _, (series,) = entry("PANCREAS_0901")
    numbers = sorted(int(pydicom.dcmread(p).InstanceNumber) for p in series.iterdir())
    label = array(out / "nih-pancreas/TCIA_pancreas_labels-02-05-2017/label0901.nii.gz")
    gone = set(range(1, label.shape[2] + 1)) - set(numbers)
    assert len(gone) == 1
    assert not gone & {1, label.shape[2]}


def test_two_series_share_a_folder(entry):
    _, (series,) = entry("PANCREAS_0902")
    identifiers = sitk.ImageSeriesReader().GetGDCMSeriesIDs(str(series))
    assert len(identifiers) == 2
    slices = [pydicom.dcmread(p) for p in series.iterdir()]
    assert len({s.SOPInstanceUID for s in slices}) == len(slices)
    assert len({s.StudyInstanceUID for s in slices}) == 1


def test_a_label_lies_the_other_way_round_and_does_not_say_so(planted, entry):
    out, _, _ = planted
    _, (label,) = entry("PANCREAS_0903")
    pancreas = truth(out, "PANCREAS_0903", "nih-pancreas") == ABDOMEN.id_of("pancreas")
    assert not np.array_equal(array(label) > 0, pancreas)
    np.testing.assert_array_equal(array(label)[:, ::-1] > 0, pancreas)
    assert nib.aff2axcodes(nib.load(label).affine) == ("L", "A", "I")


@pytest.mark.parametrize(("case", "source"), [("PANCREAS_0904", "nih-pancreas"), ("urogram_903", "urogram")])
def test_a_label_with_fewer_slices(planted, entry, case, source):
    out, _, _ = planted
    shape, whole = array(entry(case)[1][0]).shape, truth(out, case, source).shape
    assert shape[:2] == whole[:2]
    assert shape[2] < whole[2]


# --- TotalSegmentator ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "place"),
    [("s0864", "totalsegmentator-v1/Totalsegmentator_dataset/s0864/ct.nii.gz"), ("amos_0404", "amos/amos22/imagesTr")],
)
def test_only_the_checksum_tells_of_a_damaged_image(planted, entry, case, place):
    out, _, _ = planted
    _, (image,) = entry(case)
    assert image.relative_to(out).as_posix().startswith(place)
    with pytest.raises(gzip.BadGzipFile, match="CRC"):
        gzip.decompress(image.read_bytes())
    assert 0x5555 in array(image)


def test_masks_overlap(planted, entry):
    out, _, _ = planted
    _, (liver,) = entry("s0902")
    full = truth(out, "s0902", "totalsegmentator")
    grown = array(liver) > 0
    assert grown[full == ABDOMEN.id_of("liver")].all()
    assert np.isin(full[grown], np.arange(1, 17)).sum() > (full == ABDOMEN.id_of("liver")).sum()


def test_legs_hold_none_of_the_structures(planted, entry):
    out, _, _ = planted
    _, masks = entry("s0903")
    assert not truth(out, "s0903", "totalsegmentator").any()
    assert not any(array(path).any() for path in masks)
    assert array(masks[0].parent / "femur_left.nii.gz").any()
    assert (array(masks[0].parents[1] / "ct.nii.gz") > 0).any()


def test_one_gender_is_missing(entry):
    _, (table,) = entry("s0904")
    rows = [line.split(";") for line in table.read_text().splitlines()]
    assert [row[0] for row in rows[1:] if row[2] not in ("m", "f")] == ["s0904"]


# --- WORD and Urogram ----------------------------------------------------------------------------------------------


def test_one_adrenal_is_in_two_pieces_on_its_own_side(tmp_path):
    fault = next(f for f in LAYOUTS["word"].faults if f.case == "word_0901")
    scan = scan_person(Key(0, "word", fault.plan.index), fault.plan.protocol, 2.5)
    LAYOUTS["word"].write(tmp_path, fault.plan, scan)
    (label,) = (tmp_path / file for file, _ in fault.changes)
    whole = array(label) == 12
    assert ndimage.label(whole, np.ones((3, 3, 3)))[1] == 2
    plant(tmp_path, fault)
    parts, n = ndimage.label(array(label) == 12, np.ones((3, 3, 3)))
    assert n == 3
    # LPS: the first axis runs to the patient's left; two pieces on one side, one on the other.
    sides = [scan.truth[parts == i] for i in (1, 2, 3)]
    names = [{ABDOMEN.names[v - 1] for v in np.unique(side)} for side in sides]
    assert all(len(name) == 1 for name in names)
    assert {"right_adrenal_gland"} in names
    assert {"left_adrenal_gland"} in names


def test_kidneys_share_a_value(planted, entry):
    out, _, _ = planted
    label = array(entry("word_0902")[1][0])
    full = truth(out, "word_0902", "word")
    kidneys = [ABDOMEN.id_of(f"{side}_kidney") for side in ("left", "right")]
    assert not (label == 4).any()
    np.testing.assert_array_equal(label == 3, np.isin(full, kidneys))


@pytest.mark.parametrize(
    ("case", "dtype"), [("word_0903", np.float32), ("word_0905", np.int64), ("word_0906", np.uint16)]
)
def test_labels_of_other_types_hold_the_same_numbers(planted, entry, case, dtype):
    out, _, _ = planted
    label = array(entry(case)[1][0])
    assert label.dtype == dtype
    sound = array(out / "word/WORD-V0.1.0/labelsTr/word_0001.nii.gz")
    np.testing.assert_array_equal(label, sound)
    header = nib.load(entry(case)[1][0]).header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 0)


def test_fractions_in_a_label(entry):
    label = array(entry("word_0904")[1][0])
    assert np.abs(label - np.rint(label)).max() > 0.1


def test_images_with_nan_or_a_fourth_axis(planted, entry):
    out, _, _ = planted
    sound = array(out / "word/WORD-V0.1.0/imagesTr/word_0001.nii.gz")
    with_nan = array(entry("word_0907")[1][0])
    assert 0 < np.isnan(with_nan).sum() < 100
    one, two = (array(entry(case)[1][0]) for case in ("word_0908", "word_0909"))
    np.testing.assert_array_equal(one, sound[..., None])
    np.testing.assert_array_equal(two, np.stack([sound, sound], axis=-1))


def test_urogram_faults(planted, entry):
    out, _, _ = planted
    sound = nib.load(out / "urogram/labels/urogram_001.nii.gz")
    assert set(np.unique(array(entry("urogram_901")[1][0]))) == {0, 1, 2, 9}
    turned = nib.load(entry("urogram_902")[1][0])
    assert nib.aff2axcodes(turned.affine) == ("S", "R", "A")
    back, wanted = nib.as_closest_canonical(turned), nib.as_closest_canonical(sound)
    np.testing.assert_array_equal(np.asanyarray(back.dataobj), np.asanyarray(wanted.dataobj))
    np.testing.assert_allclose(back.affine, wanted.affine, atol=1e-3)
    for path in entry("urogram_904")[1]:
        header = nib.load(path).header
        assert (int(header["qform_code"]), int(header["sform_code"])) == (0, 0)


# --- the list and the damages themselves ---------------------------------------------------------------------------


def test_lists_of_several_runs_are_joined(tmp_path, monkeypatch):
    scan = scan_person(Key(0, "word", 1), word.PROTOCOL, 8.0)
    monkeypatch.setattr(write, "scan_person", lambda *_: scan)
    for source in ("word", "urogram"):
        write_phantoms(tmp_path, (source,), cases=1, faults=True, spacing_scale=8.0)
    entries = json.loads((tmp_path / "faults.json").read_text())
    assert [e["source"] for e in entries] == ["word"] * 11 + ["urogram"] * 4


def test_a_damage_without_its_structure_leaves_the_file(tmp_path):
    path = tmp_path / "label.nii.gz"
    save_nifti(path, np.ones((8, 9, 10), np.uint8), LPS)
    for harm in (damage.one_cut_in_two(12), damage.half_revalued(12, 3)):
        harm(path)
        assert (array(path) == 1).all()


def test_the_largest_piece_is_cut_across_its_longest_axis(tmp_path):
    label = np.zeros((12, 12, 16), np.uint8)
    label[1:3, 1:3, 1:4] = 12
    label[7:10, 7:10, 2:13] = 12
    path = tmp_path / "label.nii.gz"
    save_nifti(path, label, LPS)
    damage.one_cut_in_two(12)(path)
    gone = np.argwhere(array(path) != label)
    assert set(gone[:, 2]) == {7}
    assert len(gone) == 9


def test_a_skewed_axis_keeps_its_length(tmp_path):
    path = tmp_path / "image.nii.gz"
    save_nifti(path, np.zeros((8, 9, 10), np.int16), LPS)
    damage.skewed(0.01)(path)
    affine = nib.load(path).affine
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), (2, 2, 3), rtol=1e-6)
    assert affine_error(path) == pytest.approx(0.01, rel=1e-4)
