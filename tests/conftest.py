"""Small sources in native layouts, made by the tests: no scan is needed to test the line."""

import os

# Before anything loads torch or numba: two test processes share two cores, and threads that wait for each other spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from abdoseg.progress import Silent

# The same examples in every run, so that a red run is the change's own fault; `pytest --hypothesis-profile explore`
# looks for others.
_LOOSE = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("abdoseg", deadline=None, max_examples=40, suppress_health_check=_LOOSE, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=200, suppress_health_check=_LOOSE)
settings.load_profile("abdoseg")


@pytest.fixture
def set_threads():
    """A function that sets PyTorch's number of threads, for this test only."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


LPS = np.diag([-1.6, -1.6, 3.0, 1.0])


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def body(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """A soft box in air, int16 HU."""
    rng = np.random.default_rng(seed)
    image = np.full(shape, -1000, dtype=np.int16)
    inner = tuple(slice(n // 8, n - n // 8) for n in shape)
    image[inner] = 40
    return image + rng.integers(-10, 11, shape).astype(np.int16)


def word_case(root: Path, number: int, part: str = "Tr", shape: tuple[int, int, int] = (30, 28, 20)) -> None:
    """One WORD case in LPS: liver on the patient's right, spleen on the left, an adrenal on either side."""
    image = body(shape, number)
    label = np.zeros(shape, dtype=np.uint8)
    x, y, _ = shape
    label[5:12, 8:20, 8:16] = 1  # LPS: small x is the patient's right
    label[x - 9 : x - 5, 8:16, 8:14] = 2
    label[8:10, y - 10 : y - 7, 10:14] = 12
    label[x - 11 : x - 9, y - 10 : y - 7, 10:14] = 12
    label[13:15, 10:14, 3:6] = 14
    label[14:18, 20:23, 3:6] = 10
    image[label == 1] = 110
    image[label == 2] = 130
    name = f"word_{number:04d}.nii.gz"
    write_nifti(root / f"images{part}" / name, image, LPS)
    write_nifti(root / f"labels{part}" / name, label, LPS)


@pytest.fixture
def word_source(tmp_path: Path) -> Path:
    """Three training cases and one test case of WORD."""
    root = tmp_path / "raw" / "WORD-V0.1.0"
    for number in (1, 2, 3):
        word_case(root, number)
    word_case(root, 4, "Ts")
    return tmp_path / "raw"


@pytest.fixture
def total_source(tmp_path: Path) -> Path:
    """A man and a woman of TotalSegmentator, RAS, mask files and meta.csv."""
    root = tmp_path / "total"
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    for subject in ("s0001", "s0002"):
        shape = (24, 22, 20)
        write_nifti(root / subject / "ct.nii.gz", body(shape, int(subject[1:])), affine)
        masks = {name: np.zeros(shape, dtype=np.uint8) for name in TOTAL_MASKS}
        masks["liver"][14:20, 6:14, 10:16] = 1
        masks["kidney_left"][4:7, 5:9, 6:10] = 1
        masks["kidney_cyst_left"][6:8, 5:9, 6:10] = 1
        masks["prostate"][11:13, 8:12, 2:4] = 1
        masks["colon"][10:12, 15:18, 3:8] = 1
        for name, mask in masks.items():
            write_nifti(root / subject / "segmentations" / f"{name}.nii.gz", mask, affine)
    rows = ["image_id;age;gender;institute;study_type;split", "s0001;50;m;A;ct;train", "s0002;50;f;A;ct;test"]
    (root / "meta.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


TOTAL_MASKS = (
    *("spleen", "kidney_right", "kidney_cyst_right", "kidney_left", "kidney_cyst_left", "gallbladder", "esophagus"),
    *("liver", "stomach", "aorta", "inferior_vena_cava", "pancreas", "adrenal_gland_right", "adrenal_gland_left"),
    *("duodenum", "urinary_bladder", "prostate", "portal_vein_and_splenic_vein", "colon"),
)


@pytest.fixture
def real_data() -> Path:
    """Folder of the real scans, by ABDOSEG_TEST_DATA."""
    folder = os.environ.get("ABDOSEG_TEST_DATA")
    if not folder:
        pytest.skip("ABDOSEG_TEST_DATA is not set: the real scans are not at hand")
    return Path(folder)


class Heard(Silent):
    """Progress that keeps what it is told to say."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


CommandLine = Callable[..., "Outcome"]


class Outcome:
    """What a command printed, and its exit status."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def abdoseg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CommandLine:
    """Run a command in process, in an empty folder; a bug shows as its exception."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ABDOSEG_WORKSPACE", raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> Outcome:
        from abdoseg.cli import app

        capfd.readouterr()
        status = 0
        try:
            app([str(argument) for argument in arguments], standalone_mode=True)
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run
