"""Folders, names, label values and refusals of the phantom writers."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from abdoseg.anatomy import ABDOMEN
from abdoseg.errors import ConfigError, UnknownNameError
from abdoseg.phantom import (
    PhantomCase,
    abdomenct1k,
    amos,
    btcv,
    count_scans,
    flare22,
    source_names,
    totalsegmentator,
    totalsegmentator_v1,
    urogram,
    word,
    write_phantoms,
)
from abdoseg.phantom.body import Key
from abdoseg.phantom.scanner import scan_person
from abdoseg.phantom.write import DEFAULT_SOURCES, LAYOUTS, MAX_CASES

SCALE = 5.0
CASES = {
    "word": 5,
    "totalsegmentator": 5,
    "amos": 3,
    "btcv": 2,
    "totalsegmentator-v1": 2,
    "abdomenct1k": 4,
    "flare22": 2,
    "urogram": 2,
}
UNLABELLED = {("amos", "amos_0411"), ("btcv", "img0061"), ("flare22", "Case_01001")}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, list[PhantomCase], list[tuple[str, str]]]:
    out = tmp_path_factory.mktemp("phantoms") / "all"
    told: list[tuple[str, str]] = []
    cases = []
    for source, count in CASES.items():
        cases += write_phantoms(out, (source,), cases=count, spacing_scale=SCALE, on_case=lambda *c: told.append(c))
    return out, cases, told


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def voxels(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


def of(cases: list[PhantomCase], source: str) -> list[PhantomCase]:
    return [case for case in cases if case.source == source]


def test_every_source_gets_its_cases_and_each_case_is_told(made):
    _, cases, told = made
    assert {source: len(of(cases, source)) for source in CASES} == CASES
    assert {(c.source, c.case_id) for c in cases} <= set(told)
    assert set(told) - {(c.source, c.case_id) for c in cases} == UNLABELLED
    assert len(told) == sum(count_scans((source,), count) for source, count in CASES.items())
    assert not any(c.fault for c in cases)
    assert not (made[0] / "faults.json").exists()


def test_word_files(made):
    out, _, _ = made
    splits = {"Tr": (1, 2, 3), "Val": (4,), "Ts": (5,)}
    expected = {"WORD-V0.1.0/dataset.json"} | {
        f"WORD-V0.1.0/{part}{suffix}/word_{i:04d}.nii.gz"
        for suffix, numbers in splits.items()
        for i in numbers
        for part in ("images", "labels")
    }
    assert files(out / "word") == expected
    info = json.loads((out / "word/WORD-V0.1.0/dataset.json").read_text())
    assert info["labels"]["12"] == "adrenal"
    assert info["training"][0] == {
        "image": "./imagesTr/word_0001.nii.gz",
        "label": "./labelsTr/word_0001.nii.gz",
    }


def test_amos_files(made):
    out, cases, _ = made
    info = json.loads((out / "amos/amos22/dataset.json").read_text())
    assert info["labels"]["8"] == "arota"
    assert {c.case_id for c in of(cases, "amos") if c.modality == "MR"} == {"amos_0507"}
    names = files(out / "amos")
    assert "__MACOSX/._amos_0001.nii.gz" in names
    images = {n for n in names if n.startswith("amos22/images")}
    assert {f"__MACOSX/{n.replace('/amos_', '/._amos_')}" for n in images} < names
    assert "amos22/imagesTs/amos_0411.nii.gz" in names
    assert not any("labelsTs" in name for name in names)
    for entry in info["training"] + info["validation"]:
        assert {f"amos22/{entry['image'][2:]}", f"amos22/{entry['label'][2:]}"} <= names


def test_btcv_files(made):
    out, _, _ = made
    expected = {"RawData/Testing/img/img0061.nii.gz"}
    for i in (1, 2):
        expected |= {f"RawData/Training/img/img{i:04d}.nii.gz", f"RawData/Training/label/label{i:04d}.nii.gz"}
    assert files(out / "btcv") == expected


def test_totalsegmentator_files(made):
    out, cases, _ = made
    top = out / "totalsegmentator"
    lines = [line.split(";") for line in (top / "meta.csv").read_text().splitlines()]
    assert lines[0] == ["image_id", "age", "gender", "institute", "study_type", "split"]
    assert [line[5] for line in lines[1:]] == ["train", "train", "train", "val", "test"]
    assert {line[0]: line[2] for line in lines[1:]} == {c.case_id: c.sex for c in of(cases, "totalsegmentator")}
    names = {p.name.removesuffix(".nii.gz") for p in (top / "s0001/segmentations").iterdir()}
    assert len(names) == 117
    # These tell v2 from v1.
    assert {"prostate", "kidney_cyst_left", "skull", "sternum", "vertebrae_S1"} <= names
    assert not names & {"face", "pulmonary_artery", "heart_myocardium"}


# What v1 has and v2 has not, and the other way round, by the two class maps of TotalSegmentator.
ONLY_V1 = {
    *("face", "heart_myocardium", "heart_atrium_left", "heart_atrium_right", "heart_ventricle_left"),
    *("heart_ventricle_right", "pulmonary_artery"),
}
ONLY_V2 = {
    *("prostate", "kidney_cyst_left", "kidney_cyst_right", "heart", "skull", "sternum", "spinal_cord"),
    *("superior_vena_cava", "thyroid_gland", "vertebrae_S1", "costal_cartilages", "atrial_appendage_left"),
    *("pulmonary_vein", "brachiocephalic_trunk", "brachiocephalic_vein_left", "brachiocephalic_vein_right"),
    *("common_carotid_artery_left", "common_carotid_artery_right", "subclavian_artery_left"),
    "subclavian_artery_right",
}


def test_totalsegmentator_v1_files(made):
    out, cases, _ = made
    top = out / "totalsegmentator-v1/Totalsegmentator_dataset"
    assert {p.name for p in top.iterdir()} == {"meta.csv", "s0300", "s0301"}
    assert [c.case_id for c in of(cases, "totalsegmentator-v1")] == ["s0300", "s0301"]
    masks = {p.name.removesuffix(".nii.gz") for p in (top / "s0300/segmentations").iterdir()}
    v2 = {p.name.removesuffix(".nii.gz") for p in (out / "totalsegmentator/s0001/segmentations").iterdir()}
    assert len(masks) == 104
    assert masks - v2 == ONLY_V1
    assert v2 - masks == ONLY_V2


def test_totalsegmentator_v1_masks_are_the_truth(made):
    out, cases, _ = made
    for case in of(cases, "totalsegmentator-v1"):
        folder = out / "totalsegmentator-v1/Totalsegmentator_dataset" / case.case_id / "segmentations"
        full = voxels(case.truth)
        for name, file in totalsegmentator.FILES.items():
            np.testing.assert_array_equal(voxels(folder / f"{file}.nii.gz") > 0, full == ABDOMEN.id_of(name))


def test_kidney_cysts_are_kidney_in_v1_and_nobody_draws_the_prostate():
    v1, v2 = totalsegmentator_v1.tables(), totalsegmentator.tables()
    for side in ("left", "right"):
        np.testing.assert_array_equal(v1[f"kidney_{side}"], v2[f"kidney_{side}"] | v2[f"kidney_cyst_{side}"])
        assert v2[f"kidney_cyst_{side}"].any()
    assert v2["prostate"].any()
    assert not sum(table.astype(int) for table in v1.values())[v2["prostate"] > 0].any()


def test_abdomenct1k_files(made):
    out, cases, _ = made
    images = {f"AbdomenCT-1K-ImagePart{part}/Case_{n:05d}_0000.nii.gz" for part, n in ((1, 1), (2, 401), (3, 801))}
    images.add("AbdomenCT-1K-ImagePart1/Case_00002_0000.nii.gz")
    masks = {f"Mask/Case_{n:05d}.nii.gz" for n in (1, 2, 401, 801)}
    assert files(out / "abdomenct1k") == images | masks
    assert {c.case_id for c in of(cases, "abdomenct1k")} == {f"Case_{n:05d}" for n in (1, 2, 401, 801)}


def test_abdomenct1k_numbers_fit_their_part_and_have_a_public_mask():
    numbers = [int(plan.case_id[-5:]) for plan in abdomenct1k.LAYOUT.plan(MAX_CASES)]
    assert len(set(numbers)) == MAX_CASES
    assert len(abdomenct1k.UNLABELLED) == 62
    assert not set(numbers) & set(abdomenct1k.UNLABELLED)
    for number in numbers:
        part = 1 + (number > 400) + (number > 800)
        assert abdomenct1k.image_file(number).startswith(f"AbdomenCT-1K-ImagePart{part}/")


def test_flare22_files(made):
    out, _, _ = made
    training = "FLARE2022/Training"
    expected = {f"{training}/FLARE22_UnlabeledCase1001-2000/Case_01001_0000.nii.gz"}
    for i in (1, 2):
        expected.add(f"{training}/FLARE22_LabeledCase50/images/FLARE22_Tr_{i:04d}_0000.nii.gz")
        expected.add(f"{training}/FLARE22_LabeledCase50/labels/FLARE22_Tr_{i:04d}.nii.gz")
    assert files(out / "flare22") == expected


def test_flare22_stops_drawing_long_structures_early(made):
    _, cases, _ = made
    for case in of(cases, "flare22"):
        native, full = voxels(flare_label(case.image)), voxels(case.truth)
        assert nib.aff2axcodes(nib.load(case.image).affine)[2] == "S"
        for name, value in flare22.STRUCTURES.items():
            drawn, whole = native == value, full == ABDOMEN.id_of(name)
            if name not in ("aorta", "postcava", "esophagus"):
                np.testing.assert_array_equal(drawn, whole)
                continue
            heights = np.flatnonzero(drawn.any(axis=(0, 1)))
            all_heights = np.flatnonzero(whole.any(axis=(0, 1)))
            inside = np.zeros(whole.shape[2], dtype=bool)
            inside[heights[0] : heights[-1] + 1] = True
            # Within its range a structure is whole; beyond it nothing is drawn, at the head's end at least.
            np.testing.assert_array_equal(drawn, whole & inside)
            assert 0 < len(heights) < len(all_heights)
            assert heights[-1] < all_heights[-1]
            assert (heights[0] > all_heights[0]) == (name != "esophagus")


def test_urogram_states_its_map(made):
    out, _, _ = made
    expected = {"README.md"} | {f"{part}/urogram_{i:03d}.nii.gz" for part in ("images", "labels") for i in (1, 2)}
    assert files(out / "urogram") == expected
    text = (out / "urogram/README.md").read_text()
    assert "1=right_kidney,2=left_kidney,3=bladder" in text
    for value, name in enumerate(("right_kidney", "left_kidney", "bladder"), start=1):
        assert f"| {value}     | {name:<12} |" in text


AXES = {
    "word": {"LPS"},
    "btcv": {"LAS"},
    "totalsegmentator": {"RAS"},
    "totalsegmentator-v1": {"RAS"},
    "abdomenct1k": {"RAS", "LPS", "LAS"},
    "flare22": {"RAS"},
    "urogram": {"LPS"},
}


def test_all_images_of_a_source_point_its_way(made):
    _, cases, _ = made
    for source, expected in AXES.items():
        assert {"".join(nib.aff2axcodes(nib.load(c.image).affine)) for c in of(cases, source)} == expected
    header = nib.load(of(cases, "word")[0].image).header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 0)
    assert header.get_zooms()[2] == pytest.approx(3.0 * SCALE)


def beside(image: Path) -> Path:
    return image.parent.parent / image.parent.name.replace("images", "labels") / image.name


def renamed(image: Path) -> Path:
    return image.parent.parent / "label" / image.name.replace("img", "label")


def in_mask_folder(image: Path) -> Path:
    return image.parent.parent / "Mask" / image.name.replace("_0000.nii.gz", ".nii.gz")


def flare_label(image: Path) -> Path:
    return image.parent.parent / "labels" / image.name.replace("_0000.nii.gz", ".nii.gz")


MULTI_LABEL = {
    "abdomenct1k": (abdomenct1k.STRUCTURES, set(range(5)), in_mask_folder),
    "urogram": (urogram.STRUCTURES, set(range(4)), beside),
    "word": (word.STRUCTURES, set(range(17)), beside),
    "amos": (amos.STRUCTURES, set(range(16)), beside),
    "btcv": (btcv.STRUCTURES, set(range(14)), renamed),
}


@pytest.mark.parametrize("source", MULTI_LABEL)
def test_labels_are_the_truth_in_native_values(made, source):
    _, cases, _ = made
    structures, allowed, label_of = MULTI_LABEL[source]
    seen: set[int] = set()
    for case in of(cases, source):
        image, label, truth = nib.load(case.image), nib.load(label_of(case.image)), nib.load(case.truth)
        assert image.shape == label.shape == truth.shape
        np.testing.assert_allclose(image.affine, label.affine)
        np.testing.assert_allclose(image.affine, truth.affine, atol=1e-3)
        native, full = voxels(label_of(case.image)), voxels(case.truth)
        assert native.dtype == full.dtype == np.uint8
        seen |= set(np.unique(native).tolist())
        for name in ABDOMEN.names:
            mine = full == ABDOMEN.id_of(name)
            if name not in structures:
                assert set(np.unique(native[mine]).tolist()) <= {0}
            else:
                assert set(np.unique(native[mine]).tolist()) <= {structures[name]}
        for value in set(structures.values()):
            ids = [ABDOMEN.id_of(name) for name, raw in structures.items() if raw == value]
            np.testing.assert_array_equal(native == value, np.isin(full, ids))
    assert seen <= allowed
    assert set(structures.values()) <= seen


def test_totalsegmentator_masks_are_the_truth(made):
    out, cases, _ = made
    for case in of(cases, "totalsegmentator"):
        folder, full = out / "totalsegmentator" / case.case_id / "segmentations", voxels(case.truth)
        for name, file in totalsegmentator.FILES.items():
            mask = voxels(folder / f"{file}.nii.gz") > 0
            for side in ("left", "right"):
                if name == f"{side}_kidney":
                    mask |= voxels(folder / f"kidney_cyst_{side}.nii.gz") > 0
            np.testing.assert_array_equal(mask, full == ABDOMEN.id_of(name))
        prostate = voxels(folder / "prostate.nii.gz") > 0
        expected = (full == ABDOMEN.id_of("prostate_uterus")) if case.sex == "m" else np.zeros_like(prostate)
        np.testing.assert_array_equal(prostate, expected)


def test_one_value_holds_both_kidneys_in_abdomenct1k(made):
    _, cases, _ = made
    for case in of(cases, "abdomenct1k"):
        native, full = voxels(in_mask_folder(case.image)), voxels(case.truth)
        for side in ("left", "right"):
            assert set(np.unique(native[full == ABDOMEN.id_of(f"{side}_kidney")])) == {2}


def test_truth_is_beside_every_image(made):
    out, cases, _ = made
    assert "README.txt" in files(out / "truth")
    assert (out / "truth/btcv/img0061.nii.gz").is_file()
    for case in cases:
        assert case.truth == out / "truth" / case.source / f"{case.case_id}.nii.gz"
        assert case.image.is_file()


def test_intensities_are_of_the_modality(made):
    _, cases, _ = made
    for case in cases:
        image = voxels(case.image)
        if case.modality == "CT":
            assert image.dtype == np.int16
            assert image.min() < -900
            assert 400 < image.max() <= 3071
        else:
            assert image.min() >= 0
            assert image.max() > 150


def test_no_two_cases_of_all_sources_share_an_id():
    ids = [plan.case_id for layout in LAYOUTS.values() for plan in layout.plan(MAX_CASES)]
    faulty = [f.plan.case_id for layout in LAYOUTS.values() for f in layout.faults if f.plan and f.plan.image]
    assert len(set(ids)) == len(ids)
    assert not set(faulty) & set(ids)
    assert len(set(faulty)) == len(faulty)


def test_all_stands_for_every_source_and_the_default_for_four():
    assert source_names(("btcv", "all"))[0] == "btcv"
    assert set(source_names(("all",))) == set(LAYOUTS)
    assert len(source_names(("all", "word"))) == len(LAYOUTS) == 9
    assert DEFAULT_SOURCES == ("word", "amos", "btcv", "totalsegmentator")


def test_scans_are_counted_before_they_are_made():
    assert count_scans(("word",), 3) == 3
    assert count_scans(("btcv", "nih-pancreas"), 26) == 27 + 27
    assert count_scans(("flare22",), 1, faults=True) == 1 + 1 + 2
    assert count_scans(("word",), 10**6) == count_scans(("wrod",), 1) == 0


def test_a_case_depends_on_nothing_else(made, tmp_path):
    _, cases, _ = made
    again = write_phantoms(tmp_path, ("word", "btcv"), cases=1, spacing_scale=SCALE)
    before = {(c.source, c.case_id): c for c in cases}
    for case in again:
        other = before[case.source, case.case_id]
        np.testing.assert_array_equal(voxels(case.image), voxels(other.image))
        np.testing.assert_array_equal(voxels(case.truth), voxels(other.truth))
        assert case.sex == other.sex


def test_mr_scanners_have_scales_of_their_own():
    top = [scan_person(Key(0, "amos", index), amos.MR, 7.0).image.max() for index in (507, 508, 510)]
    assert max(top) / min(top) > 3


def test_another_seed_is_another_person(made, tmp_path):
    _, cases, _ = made
    other = write_phantoms(tmp_path, ("btcv",), cases=1, seed=1, spacing_scale=SCALE)[0]
    first = of(cases, "btcv")[0]
    assert voxels(other.image).shape != voxels(first.image).shape or (voxels(other.image) != voxels(first.image)).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cases": 0}, "cases is 0"),
        ({"cases": 1000}, "cases is 1000"),
        ({"spacing_scale": 0.0}, "spacing_scale is 0"),
        ({"spacing_scale": float("nan")}, "spacing_scale is nan"),
        ({"sources": ()}, "no source"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        write_phantoms(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_an_unknown_source_is_refused_with_a_guess(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean word"):
        write_phantoms(tmp_path, ("wrod",))


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "word").mkdir()
    (tmp_path / "word" / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="choose another output folder or delete"):
        write_phantoms(tmp_path, ("btcv", "word"), cases=1)
    assert files(tmp_path) == {"word/mine.txt"}


def test_a_file_in_the_way_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    for out in (path, path / "below"):
        with pytest.raises(ConfigError, match="is a file"):
            write_phantoms(out)
