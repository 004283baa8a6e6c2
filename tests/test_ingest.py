"""Ingest on native layouts, sound and damaged."""

import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import zarr

from abdoseg.anatomy import ABDOMEN
from abdoseg.cards import load_card
from abdoseg.case import Foreground
from abdoseg.errors import CardError, ConfigError, WorkspaceError
from abdoseg.steps.ingest import THREAD_VARIABLES, ingest, worker_pool
from abdoseg.store import Settings, Workspace
from abdoseg.types import UNKNOWN_LABEL
from tests.conftest import LPS, body, word_case, write_nifti

WORD = load_card("word")


def centre_of(workspace: Workspace, key: str, name: str) -> np.ndarray:
    case = workspace.read_case(key)
    where = np.argwhere(case.label == ABDOMEN.id_of(name)).mean(axis=0)
    return (case.facts.affine_array @ [*where, 1])[:3]


def test_a_word_folder_goes_in(tmp_path, word_source):
    workspace = Workspace.create(tmp_path / "w")
    report = ingest(workspace, WORD, word_source)
    assert [facts.case for facts in report.taken] == ["word_0001", "word_0002", "word_0003", "word_0004"]
    assert not report.failed
    facts = workspace.read_facts("word/word_0001")
    assert facts.split == "train"
    assert workspace.read_facts("word/word_0004").split == "test"
    assert facts.groups.structure_ids == tuple(sorted(ABDOMEN.ids_of(WORD.annotated)))
    np.testing.assert_allclose(facts.affine_array[:3, :3], 2 * np.eye(3))
    assert any("dropped colon" in line for line in facts.done)
    assert any("LPS to RAS" in line for line in facts.done)


def test_structures_lie_where_the_files_put_them(tmp_path, word_source):
    workspace = Workspace.create(tmp_path / "w")
    ingest(workspace, WORD, word_source)
    raw = np.asanyarray(nib.load(next(word_source.rglob("labelsTr/word_0001.nii.gz"))).dataobj)
    for name, value in (("liver", 1), ("spleen", 2), ("bladder", 14)):
        expected = (LPS @ [*np.argwhere(raw == value).mean(axis=0), 1])[:3]
        assert np.abs(centre_of(workspace, "word/word_0001", name) - expected).max() < 1.6
    right, left = (centre_of(workspace, "word/word_0001", f"{side}_adrenal_gland") for side in ("right", "left"))
    assert right[0] > left[0]  # RAS: x grows to the patient's right


def test_ingest_again_skips_and_replace_takes_again(tmp_path, word_source):
    workspace = Workspace.create(tmp_path / "w")
    ingest(workspace, WORD, word_source)
    again = ingest(workspace, WORD, word_source)
    assert not again.taken
    assert len(again.present) == 4
    assert len(ingest(workspace, WORD, word_source, replace=True).taken) == 4
    assert workspace.case_keys() == [f"word/word_000{i}" for i in (1, 2, 3, 4)]


def test_limit_then_the_rest(tmp_path, word_source):
    workspace = Workspace.create(tmp_path / "w")
    assert len(ingest(workspace, WORD, word_source, limit=1).taken) == 1
    assert len(ingest(workspace, WORD, word_source).taken) == 3


def test_totalsegmentator_masks(tmp_path, total_source):
    workspace = Workspace.create(tmp_path / "w")
    report = ingest(workspace, load_card("totalsegmentator"), total_source)
    man, woman = report.taken
    assert (man.split, woman.split) == ("train", "test")
    assert len(man.groups.structure_ids) == 16
    assert 15 not in woman.groups.structure_ids
    assert "prostate_uterus" not in woman.voxels  # a label nobody vouches for must not be there
    label = workspace.read_case(man.key).label
    kidney = ABDOMEN.id_of("left_kidney")
    # kidney 3 x 4 x 4 voxels of 27 mm3 with a cyst of 2 x 4 x 4 that overlaps it by one layer: 4 x 4 x 4 in all
    assert (label == kidney).sum() * 8 == pytest.approx(64 * 27, rel=0.35)


def test_mask_files_that_are_missing_mean_not_annotated(tmp_path, total_source):
    (total_source / "s0001" / "segmentations" / "spleen.nii.gz").unlink()
    workspace = Workspace.create(tmp_path / "w")
    report = ingest(workspace, load_card("totalsegmentator"), total_source)
    facts = next(f for f in report.taken if f.case == "s0001")
    assert 1 not in facts.groups.structure_ids
    assert any("no mask file for spleen" in warning for warning in facts.warnings)


def test_stored_case_is_small_standard_zarr(tmp_path, word_source):
    workspace = Workspace.create(tmp_path / "w")
    ingest(workspace, WORD, word_source)
    folder = workspace.case_folder("word/word_0001")
    assert len([f for f in folder.rglob("*") if f.is_file()]) <= 8
    group = zarr.open_group(folder, mode="r")
    case = workspace.read_case("word/word_0001")
    np.testing.assert_array_equal(group["image"][...], case.image)
    np.testing.assert_array_equal(group["label"][...], case.label)
    foreground, stored = Foreground.of(case.label, 16), workspace.read_foreground("word/word_0001")
    np.testing.assert_array_equal(foreground.index, stored.index)
    for c in range(1, 17):
        np.testing.assert_array_equal(stored.of_structure(c), np.flatnonzero(case.label == c))


def test_ct_is_kept_to_half_a_hu(tmp_path):
    image = np.random.default_rng(0).uniform(-300, 300, (12, 12, 12)).astype(np.float32)
    write_nifti(tmp_path / "raw/imagesTr/word_0001.nii.gz", image, np.diag([2.0, 2.0, 2.0, 1.0]))
    write_nifti(
        tmp_path / "raw/labelsTr/word_0001.nii.gz", np.ones((12, 12, 12), np.uint8), np.diag([2.0, 2.0, 2.0, 1.0])
    )
    workspace = Workspace.create(tmp_path / "w")
    ingest(workspace, WORD, tmp_path / "raw")
    assert np.abs(workspace.read_case("word/word_0001").intensity() * 800 - 400 - image).max() <= 0.501


def test_no_patient_data_enters(tmp_path, word_source):
    image_path = next(word_source.rglob("imagesTr/word_0001.nii.gz"))
    image = nib.load(image_path)
    secret = nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine)
    secret.header["descrip"] = b"SECRET^NAME"
    secret.header["db_name"] = b"SECRET"
    secret.to_filename(image_path)
    workspace = Workspace.create(tmp_path / "w")
    ingest(workspace, WORD, word_source)
    assert not [f for f in workspace.path.rglob("*") if f.is_file() and b"SECRET" in f.read_bytes()]


# -- bad input: one reason each, the others taken -------------------------------------------------------------------


def _paths(source: Path) -> tuple[Path, Path]:
    return next(source.rglob("imagesTr/word_0002.nii.gz")), next(source.rglob("labelsTr/word_0002.nii.gz"))


def _rewrite(path: Path, change) -> None:
    image = nib.load(path)
    array, affine = change(np.asanyarray(image.dataobj).copy(), image.affine.copy())
    nib.Nifti1Image(array, affine).to_filename(path)


def _shift(array, affine):
    affine[0, 3] += 5
    return array, affine


def _unknown(array, affine):
    array[0, 0, 0] = 99
    return array, affine


def _nan(array, affine):
    array = array.astype(np.float32)
    array[1, 2, 3] = np.nan
    return array, affine


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FAULTS = {
    "image without label": (lambda image, label: label.unlink(), "an image without a label"),
    "label without image": (lambda image, label: image.unlink(), "a label without an image"),
    "shapes differ": (lambda image, label: _rewrite(label, lambda a, m: (a[:-1], m)), "expected the image's"),
    "affines differ": (lambda image, label: _rewrite(label, _shift), "voxels away from the image"),
    "four axes": (lambda image, label: _rewrite(image, lambda a, m: (np.stack([a, a], -1), m)), "expected 3-D"),
    "NaN in the image": (lambda image, label: _rewrite(image, _nan), "1 voxels are NaN"),
    "NaN in the label": (lambda image, label: _rewrite(label, _nan), "NaN or infinite label"),
    "unknown label value": (lambda image, label: _rewrite(label, _unknown), "label values 99 are not in card word"),
    "fractions": (
        lambda image, label: _rewrite(label, lambda a, m: (a + np.float32(0.4), m)),
        "fractions among the label",
    ),
    "negative label": (
        lambda image, label: _rewrite(label, lambda a, m: (a.astype(np.int16) - 1, m)),
        "expected 0..65535",
    ),
    "truncated image": (lambda image, label: _truncate(image), "word_0002.nii.gz"),
    "truncated label": (lambda image, label: _truncate(label), "word_0002.nii.gz"),
    "empty file": (lambda image, label: image.write_bytes(b""), "word_0002.nii.gz"),
    "text file": (lambda image, label: label.write_text("hello"), "word_0002.nii.gz"),
    "sheared": (
        lambda image, label: _rewrite(image, lambda a, m: (a, m + np.eye(4, k=1) * [1, 1, 0, 0])),
        "off orthonormal",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_case_is_quarantined_and_the_others_are_taken(tmp_path, word_source, fault):
    damage, reason = FAULTS[fault]
    damage(*_paths(word_source))
    workspace = Workspace.create(tmp_path / "w")
    report = ingest(workspace, WORD, word_source)
    assert list(report.quarantined) == ["word_0002"]
    assert reason in report.quarantined["word_0002"]
    assert "\n" not in report.quarantined["word_0002"]
    assert [facts.case for facts in report.taken] == ["word_0001", "word_0003", "word_0004"]
    assert report.failed
    assert workspace.records()["word"].quarantined == report.quarantined
    assert not list(workspace.incoming.rglob("*"))


def test_a_mended_case_is_taken_the_next_time(tmp_path, word_source):
    image, _ = _paths(word_source)
    good = image.read_bytes()
    _truncate(image)
    workspace = Workspace.create(tmp_path / "w")
    ingest(workspace, WORD, word_source)
    image.write_bytes(good)
    report = ingest(workspace, WORD, word_source)
    assert [facts.case for facts in report.taken] == ["word_0002"]
    assert not workspace.records()["word"].quarantined


def test_tiny_header_differences_and_other_axis_orders_are_mended(tmp_path, word_source):
    _, label = _paths(word_source)

    def turn(array, affine):
        from abdoseg.geometry import to_canonical

        turned, turned_affine = to_canonical(array, affine)
        turned_affine = turned_affine.copy()
        turned_affine[:3, 3] += 1e-4
        return np.ascontiguousarray(turned), turned_affine

    workspace = Workspace.create(tmp_path / "w")
    ingest(workspace, WORD, word_source)
    before = workspace.read_case("word/word_0002").label
    _rewrite(label, turn)
    assert not ingest(workspace, WORD, word_source, replace=True).failed
    np.testing.assert_array_equal(workspace.read_case("word/word_0002").label, before)


def test_wrong_folders_are_told(tmp_path, word_source):
    workspace = Workspace.create(tmp_path / "w")
    (tmp_path / "empty").mkdir()
    file = tmp_path / "word.zip"
    file.write_bytes(b"PK")
    for folder, error, message in (
        (tmp_path / "nowhere", ConfigError, "no such folder"),
        (tmp_path / "empty", ConfigError, "the folder is empty"),
        (file, ConfigError, "unpack an archive"),
    ):
        with pytest.raises(error, match=message):
            ingest(workspace, WORD, folder)
    with pytest.raises(CardError, match="none of its 8 files fits card btcv"):
        ingest(workspace, load_card("btcv"), word_source)


def test_junk_files_are_not_cases(tmp_path, word_source):
    for junk in ("__MACOSX/imagesTr/._word_0001.nii.gz", "imagesTr/._word_0001.nii.gz", ".DS_Store"):
        path = word_source / junk
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"junk")
    assert len(ingest(Workspace.create(tmp_path / "w"), WORD, word_source).taken) == 4


def test_test_scans_without_public_labels_are_passed_over(tmp_path, word_source):
    next(word_source.rglob("labelsTs/word_0004.nii.gz")).unlink()
    report = ingest(Workspace.create(tmp_path / "w"), WORD, word_source)
    assert not report.failed
    assert sum(report.skipped.values()) == 1


def test_the_same_case_twice_is_quarantined(tmp_path, word_source):
    shutil.copytree(word_source / "WORD-V0.1.0" / "imagesTr", word_source / "copy" / "imagesTr")
    shutil.copytree(word_source / "WORD-V0.1.0" / "labelsTr", word_source / "copy" / "labelsTr")
    report = ingest(Workspace.create(tmp_path / "w"), WORD, word_source)
    assert [facts.case for facts in report.taken] == ["word_0004"]
    assert all("is there twice" in reason for reason in report.quarantined.values())


def test_amos_numbers_decide_the_modality(tmp_path):
    for number in (1, 507):
        affine = np.diag([-2.0, -2.0, 5.0, 1.0])
        write_nifti(tmp_path / f"amos22/imagesTr/amos_{number:04d}.nii.gz", body((10, 10, 10)) + 1100, affine)
        write_nifti(tmp_path / f"amos22/labelsTr/amos_{number:04d}.nii.gz", np.ones((10, 10, 10), np.uint8), affine)
    workspace = Workspace.create(tmp_path / "w")
    for name, case, modality in (("amos-ct", "amos_0001", "CT"), ("amos-mri", "amos_0507", "MR")):
        (facts,) = ingest(workspace, load_card(name), tmp_path / "amos22").taken
        assert (facts.case, facts.modality) == (case, modality)


def test_a_case_that_the_table_does_not_know_is_told(tmp_path, total_source):
    table = total_source / "meta.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    report = ingest(Workspace.create(tmp_path / "w"), load_card("totalsegmentator"), total_source)
    assert any("meta.csv has no row of s0002" in warning for warning in report.warnings)
    assert len(report.taken) == 2


@pytest.mark.parametrize(("option", "crossing"), [(None, "unknown"), ("unknown", "unknown"), ("cut", "cut")])
def test_an_organ_across_the_midline_is_cut_only_if_asked(tmp_path, abdoseg, word_source, option, crossing):
    def joined(label, affine):
        label[label == 12] = 0
        label[5:25, 17:19, 10:14] = 12  # both adrenals, as one bar across the body
        return label, affine

    _rewrite(_paths(word_source)[1], joined)
    choice = ["--split-crossing", option] if option else []
    assert abdoseg("ingest", "word", word_source, "-w", tmp_path / "w", *choice).status == 0
    workspace = Workspace.open(tmp_path / "w")
    case = workspace.read_case("word/word_0002")
    sides = {name for name in case.facts.voxels if "adrenal" in name}
    assert (case.label == UNKNOWN_LABEL).any() == (crossing == "unknown")
    assert sides == (set() if crossing == "unknown" else {"right_adrenal_gland", "left_adrenal_gland"})
    (split,) = case.facts.sides
    assert split.open  # somebody should look at it either way
    assert any(("cut there" if crossing == "cut" else "left unknown") in flag for flag in split.flags)


def test_a_worker_uses_one_thread_and_the_callers_setting_is_kept(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with worker_pool(2) as pool:
        asked = [pool.submit(os.getenv, name) for name in THREAD_VARIABLES]
        assert [answer.result(60) for answer in asked] == ["1"] * len(THREAD_VARIABLES)
    assert os.environ["OPENBLAS_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in os.environ


def test_ingest_starts_without_torch():
    code = "import sys, abdoseg.cli.ingest, abdoseg.steps.ingest, abdoseg.steps.review, abdoseg.devices as d;"
    code += "d.available_cores(); print(sorted({'torch', 'monai', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- the disk ---------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_nothing_half_written(tmp_path, word_source, monkeypatch):
    from abdoseg.store import arrays

    real = arrays._write_array

    def full(path, data):
        if path.name == "label":
            raise OSError(28, "No space left on device")
        real(path, data)

    monkeypatch.setattr(arrays, "_write_array", full)
    workspace = Workspace.create(tmp_path / "w")
    report = ingest(workspace, WORD, word_source)
    assert len(report.quarantined) == 4
    assert all("No space left on device" in reason for reason in report.quarantined.values())
    assert workspace.case_keys() == []
    assert not [
        f
        for f in workspace.path.rglob("*")
        if f.is_file() and f.name not in ("abdoseg.toml", "word.ingest.json", ".word.lock", "zarr.json")
    ]


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/proc").exists(), reason="needs /proc, which root cannot write either"
)
def test_a_workspace_that_cannot_be_written_is_told():
    with pytest.raises(WorkspaceError, match="cannot make a workspace"):
        Workspace.create("/proc/abdoseg")


def _ingest_and_hang(path: str, source: str) -> None:
    from abdoseg.store import arrays

    real = arrays._write_array

    def hang(path, data):
        real(path, data)
        if path.name == "label" and path.parent.name.startswith("word_0002"):
            os.kill(os.getpid(), 9)

    arrays._write_array = hang
    ingest(Workspace.open(path), WORD, Path(source))


def test_a_killed_ingest_leaves_whole_cases_only_and_is_resumed(tmp_path, word_source):
    workspace = Workspace.create(tmp_path / "w")
    process = multiprocessing.get_context("spawn").Process(
        target=_ingest_and_hang, args=(str(workspace.path), str(word_source))
    )
    process.start()
    process.join(120)
    assert process.exitcode == -9
    assert workspace.case_keys() == ["word/word_0001"]
    assert list((workspace.incoming / "word").iterdir())
    assert len(ingest(workspace, WORD, word_source).taken) == 3
    assert not list(workspace.incoming.rglob("*"))


def test_another_ingest_that_cleans_up_does_not_publish_an_empty_case(tmp_path, word_source, monkeypatch):
    from abdoseg.store import arrays

    real = arrays._write_array

    def interfered(path, data):
        if path.name == "label":
            shutil.rmtree(path.parent)
        real(path, data)

    monkeypatch.setattr(arrays, "_write_array", interfered)
    workspace = Workspace.create(tmp_path / "w")
    report = ingest(workspace, WORD, word_source)
    assert len(report.quarantined) == 4
    assert workspace.facts() == []


def test_a_corrected_label_is_another_case_with_the_same_scan(tmp_path, word_source):
    workspace = Workspace.create(tmp_path / "w")
    ingest(workspace, WORD, word_source)
    before = workspace.read_facts("word/word_0002")
    _rewrite(_paths(word_source)[1], lambda a, m: (np.where(a == 1, 2, a), m))
    ingest(workspace, WORD, word_source, replace=True)
    after = workspace.read_facts("word/word_0002")
    assert after.fingerprint == before.fingerprint
    assert after.digest != before.digest


def test_a_changed_card_is_told(tmp_path, word_source):
    workspace = Workspace.create(tmp_path / "w")
    ingest(workspace, WORD, word_source)
    changed = WORD.model_copy(update={"labels": {**WORD.labels, "1": "spleen", "2": "liver"}})
    for _ in range(2):
        assert any("the card changed" in w for w in ingest(workspace, changed, word_source).warnings)
    assert not ingest(workspace, changed, word_source, replace=True).warnings


def test_settings_changed_under_stored_cases_are_refused(tmp_path, word_source):
    workspace = Workspace.create(tmp_path / "w")
    ingest(workspace, WORD, word_source)
    file = workspace.path / "abdoseg.toml"
    file.write_text(file.read_text().replace("spacing_mm = 2.0", "spacing_mm = 3.0"))
    with pytest.raises(WorkspaceError, match="not those that word/word_0001 was stored with"):
        Workspace.open(workspace.path).facts()


def test_a_stray_copy_of_a_label_does_not_cost_the_case(tmp_path, word_source):
    stray = word_source / "backup" / "labelsTr" / "word_0001.nii.gz"
    stray.parent.mkdir(parents=True)
    shutil.copy(next(word_source.rglob("WORD-V0.1.0/labelsTr/word_0001.nii.gz")), stray)
    report = ingest(Workspace.create(tmp_path / "w"), WORD, word_source)
    assert len(report.taken) == 4
    assert not report.failed
    assert any("complete elsewhere" in warning for warning in report.warnings)


def test_an_own_card_with_a_misspelt_structure_is_refused(tmp_path, word_source):
    wrong = WORD.model_copy(update={"annotated": ("livr",), "labels": {"1": "livr"}})
    with pytest.raises(CardError, match="Did you mean liver"):
        ingest(Workspace.create(tmp_path / "w"), wrong, word_source)


def test_a_ct_without_air_values_is_warned_of(tmp_path, word_source):
    image, _ = _paths(word_source)
    _rewrite(image, lambda a, m: (a + 1024, m))
    report = ingest(Workspace.create(tmp_path / "w"), WORD, word_source)
    assert [f.case for f in report.taken if f.warnings] == ["word_0002"]


def test_two_ingests_of_one_source_do_not_meet(tmp_path, word_source):
    from filelock import FileLock

    workspace = Workspace.create(tmp_path / "w")
    with (
        FileLock(workspace.path / "sources" / ".word.lock"),
        pytest.raises(WorkspaceError, match="another ingest of this source is running"),
    ):
        ingest(workspace, WORD, word_source)


def test_processes_give_the_same_cases(tmp_path, word_source):
    one, two = Workspace.create(tmp_path / "one"), Workspace.create(tmp_path / "two")
    ingest(one, WORD, word_source)
    with worker_pool(2) as pool:
        ingest(two, WORD, word_source, executor=pool)
    for key in one.case_keys():
        assert one.read_facts(key) == two.read_facts(key)


def test_structures_the_workspace_does_not_know_are_left_out(tmp_path, word_source):
    workspace = Workspace.create(tmp_path / "w", Settings(structures=("spleen", "liver"), spacing_mm=3.0))
    ingest(workspace, WORD, word_source)
    facts = workspace.read_facts("word/word_0001")
    assert facts.groups.structure_ids == (1, 2)
    assert set(facts.voxels) == {"spleen", "liver"}


def test_real_ct_goes_in(tmp_path, real_data):
    workspace = Workspace.create(tmp_path / "w")
    (facts,) = ingest(workspace, load_card("totalsegmentator"), real_data / "totalsegmentator").taken
    assert facts.shape == (182, 151, 168)
    assert facts.voxels["liver"] * 8 == pytest.approx(41692 * 27, rel=0.03)
    assert "esophagus" not in facts.voxels
    left, right = (centre_of(workspace, facts.key, f"{side}_kidney") for side in ("left", "right"))
    assert left[0] < right[0]


def test_word_case_helper_holds_what_the_tests_rely_on(tmp_path):
    word_case(tmp_path, 1)
    raw = np.asanyarray(nib.load(tmp_path / "labelsTr/word_0001.nii.gz").dataobj)
    assert set(np.unique(raw)) == {0, 1, 2, 10, 12, 14}
