"""Damaged files, cards and folders: each is refused in one line that says why, and the sound cases are still taken."""

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from abdoseg.cards import Card, load_card, load_card_file
from abdoseg.errors import AbdosegError
from abdoseg.steps.ingest import IngestReport, ingest
from abdoseg.store import Settings, Workspace
from tests.conftest import LPS, word_case, write_nifti

WORD = load_card("word")
TOTAL = load_card("totalsegmentator")
SOUND = ["word_0001", "word_0003"]
DAMAGED = "word_0002"
LIMIT_S = 20

CARD = r"""
id = "mine"
title = "Mine"
modality = "CT"
annotated = ["liver", "spleen", "right_adrenal_gland", "left_adrenal_gland"]

[[layouts]]
name = "any format"
image = "imagesTr/{case}{end}"
label = "labelsTr/{case}{tail}"
case = "{case}"
groups = { case = '[^/]*?', end = '\.nii\.gz|\.nii|\.nrrd|\.mha|\.mhd', tail = '\.nii\.gz|\.nii|\.nrrd|\.mha|\.mhd' }

[labels]
1 = "liver"
2 = "spleen"
12 = ["right_adrenal_gland", "left_adrenal_gland"]

[dropped]
10 = "colon"
14 = "bladder"
"""


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Fail when the block does not end: a damaged file must not hang an ingest."""

    def stop(*_: object) -> None:
        pytest.fail(f"not done after {LIMIT_S} s: it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def require_plain(message: str) -> None:
    """A person reads it in a table or a log: one line, no traceback, no repr of an exception."""
    assert message.strip()
    assert len(message.splitlines()) == 1, message
    assert message.isprintable(), message
    for trace in ("Traceback", 'File "', "Error(", "nopython"):
        assert trace not in message, message


def require_whole(workspace: Workspace, report: IngestReport) -> None:
    """Nothing is half-written, and every case that the store names can be read."""
    assert not list(workspace.incoming.rglob("*"))
    keys = workspace.case_keys()
    assert keys == sorted(facts.key for facts in report.taken)
    for key in keys:
        case = workspace.read_case(key)
        assert case.image.shape == case.label.shape == case.facts.shape
        assert np.count_nonzero(case.label) >= workspace.read_foreground(key).index.size
        assert (case.label > 0).any()
    assert workspace.records()[report.source].quarantined == report.quarantined


def require_refused(workspace: Workspace, reason: str, attempt: Callable[[], object]) -> str:
    """The attempt ends in one plain message that matches ``reason``, and takes no case; return the message."""
    with in_time(), pytest.raises(AbdosegError) as caught:
        attempt()
    message = str(caught.value)
    require_plain(message)
    assert_matches(reason, message)
    assert workspace.case_keys() == []
    return message


def require_one_lost(workspace: Workspace, report: IngestReport, reason: str, lost: str, sound: list[str]) -> None:
    """One case is quarantined with a plain message that matches ``reason``; the sound ones are taken, whole."""
    assert list(report.quarantined) == [lost]
    require_plain(report.quarantined[lost])
    assert_matches(reason, report.quarantined[lost])
    assert [facts.case for facts in report.taken] == sound
    require_whole(workspace, report)


def new_workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "w", Settings(spacing_mm=4.0))


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Card:
    path = tmp_path_factory.mktemp("card") / "mine.toml"
    path.write_text(CARD)
    return load_card_file(path)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pristine")
    for number in (1, 2, 3):
        word_case(root, number)
    return root


@pytest.fixture
def source(tmp_path: Path, pristine: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "raw"))


# -- files: one damaged case between two sound ones -----------------------------------------------------------------


@dataclass(frozen=True)
class Files:
    """The files of the case that is damaged."""

    image: Path
    label: Path


Harm = Callable[[Files], object]

DIM, DATATYPE, BITPIX, PIXDIM, OFFSET, SLOPE, INTERCEPT = 40, 70, 72, 76, 108, 112, 116
QFORM_CODE, SFORM_CODE, SROW, MAGIC, EXTENSION = 252, 254, 280, 344, 348
SLOPE_2 = 176  # of NIfTI-2


def patched(which: str, *changes: tuple[int, str, tuple[float, ...]]) -> Harm:
    """Write values over the NIfTI header: (offset, struct format, values)."""

    def harm(files: Files) -> None:
        path = getattr(files, which)
        raw = bytearray(gzip.decompress(path.read_bytes()))
        for offset, layout, values in changes:
            struct.pack_into(f"<{layout}", raw, offset, *values)
        path.write_bytes(gzip.compress(bytes(raw)))

    return harm


def rewritten(which: str, change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Harm:
    """Write other voxels or another affine."""

    def harm(files: Files) -> None:
        path = getattr(files, which)
        image = nib.load(path)
        array, affine = change(np.asanyarray(image.dataobj).copy(), image.affine.copy())
        nib.Nifti1Image(array, affine).to_filename(path)

    return harm


def rebytes(which: str, change: Callable[[bytes], bytes]) -> Harm:
    """Write other bytes."""

    def harm(files: Files) -> None:
        path = getattr(files, which)
        path.write_bytes(change(path.read_bytes()))

    return harm


def voxels(change: Callable[[np.ndarray], np.ndarray], which: str = "label") -> Harm:
    return rewritten(which, lambda array, affine: (change(array), affine))


def geometry(change: Callable[[np.ndarray], np.ndarray], which: str = "image") -> Harm:
    return rewritten(which, lambda array, affine: (array, change(affine)))


def both(change: Callable[[np.ndarray], np.ndarray]) -> Harm:
    """Give image and label the same other affine."""

    def harm(files: Files) -> None:
        geometry(change, "image")(files)
        geometry(change, "label")(files)

    return harm


def shifted(by_voxels: float) -> Harm:
    return geometry(lambda a: a + np.outer(a[:, 0] * by_voxels, [0, 0, 0, 1]), "label")


def sheared(by: float) -> Harm:
    def shear(affine: np.ndarray) -> np.ndarray:
        # Twice the deviation from the nearest orthonormal matrix, which meets the shear half-way.
        affine[:3, 1] = affine[:3, 1] + 2 * by * affine[:3, 0] / np.linalg.norm(affine[:3, 0]) * 1.6
        return affine

    return both(shear)


def one_voxel(value: float, kind: type) -> Harm:
    def harm(files: Files) -> None:
        image = nib.load(files.label)
        array = np.asanyarray(image.dataobj).astype(kind)
        array[1, 2, 3] = value
        nib.Nifti1Image(array, image.affine, dtype=kind).to_filename(files.label)

    return harm


def flipped_with_its_affine(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = array.shape[0] - 1
    return np.ascontiguousarray(array[::-1]), affine @ flip


def two_orientations(files: Files) -> None:
    image = nib.load(files.image)
    other = nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine)
    other.set_qform(np.diag([1.6, 1.6, 3.0, 1.0]), 1)
    other.set_sform(LPS, 1)
    other.to_filename(files.image)


def big_endian(files: Files) -> None:
    image = nib.load(files.image)
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.Nifti1Image(np.asanyarray(image.dataobj).astype(">i2"), image.affine, header).to_filename(files.image)


def nifti2(files: Files) -> None:
    image = nib.load(files.image)
    nib.save(nib.Nifti2Image(np.asanyarray(image.dataobj), image.affine), files.image)


def typed(kind: type, which: str = "image") -> Harm:
    def harm(files: Files) -> None:
        path = getattr(files, which)
        image = nib.load(path)
        nib.Nifti1Image(np.asanyarray(image.dataobj).astype(kind), image.affine, dtype=kind).to_filename(path)

    return harm


def extended_precision(files: Files) -> None:
    # What a long double is differs by machine, and what cannot be computed with must be told, not tried.
    array = np.asanyarray(nib.load(files.image).dataobj).astype(np.longdouble)
    raw = bytearray(gzip.decompress(files.image.read_bytes())[:352]) + array.tobytes(order="F")
    struct.pack_into("<2h", raw, DATATYPE, 1536, 128)
    files.image.write_bytes(gzip.compress(bytes(raw)))


def colour(files: Files) -> None:
    rgb = np.zeros((30, 28, 20), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.Nifti1Image(rgb, LPS).to_filename(files.image)


def as_format(suffix: str, change: Callable[[Path], object] | None = None) -> Harm:
    """Write the image in another format, then damage that file."""

    def harm(files: Files) -> None:
        image = sitk.ReadImage(str(files.image))
        files.image.unlink()
        path = files.image.with_name(f"{DAMAGED}{suffix}")
        sitk.WriteImage(image, str(path))
        if change is not None:
            change(path)

    return harm


def plain_nifti(change: Callable[[bytes], bytes]) -> Harm:
    def harm(files: Files) -> None:
        files.image.with_name(f"{DAMAGED}.nii").write_bytes(change(gzip.decompress(files.image.read_bytes())))
        files.image.unlink()

    return harm


def header_text(suffix: str, text: bytes) -> Harm:
    """Give the image as a file with this header and no voxels."""

    def harm(files: Files) -> None:
        files.image.unlink()
        files.image.with_name(f"{DAMAGED}{suffix}").write_bytes(text)

    return harm


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9000])


def replaced_by(make: Callable[[Path], object], which: str = "image") -> Harm:
    def harm(files: Files) -> None:
        path = getattr(files, which)
        path.unlink()
        make(path)

    return harm


def folder_with_text(path: Path) -> None:
    path.mkdir()
    (path / "readme.txt").write_text("no scan")


def flip_a_byte(raw: bytes) -> bytes:
    where = len(raw) // 2
    return raw[:where] + bytes([raw[where] ^ 0x55]) + raw[where + 1 :]


NOT_NIFTI = r"not a NIfTI file|cannot be read"
GZIP = r"gzip stream is damaged or cut off"
CUT = r"cut off|cannot be read|truncated|Expected \d+ bytes"

NO_SPACING = ((SFORM_CODE, "h", (0,)), (QFORM_CODE, "h", (1,)), (PIXDIM + 4, "3f", (0, 0, 0)))

QUARANTINED: dict[str, tuple[Harm, str]] = {
    # what a broken copy or download leaves behind
    "image.gz cut in half": (rebytes("image", lambda b: b[: len(b) // 2]), GZIP),
    "label.gz cut in half": (rebytes("label", lambda b: b[: len(b) // 2]), GZIP),
    "gz without its last 4 bytes": (rebytes("image", lambda b: b[:-4]), GZIP),
    "gz without its last 8 bytes": (rebytes("image", lambda b: b[:-8]), GZIP),
    "gz of 5 bytes": (rebytes("image", lambda b: b[:5]), GZIP),
    "one byte of the gz changed": (rebytes("image", flip_a_byte), GZIP),
    "zero bytes, image": (rebytes("image", lambda _: b""), "empty|damaged|not a NIfTI"),
    "zero bytes, label": (rebytes("label", lambda _: b""), "empty|damaged|not a NIfTI"),
    "gz of nothing": (rebytes("image", lambda _: gzip.compress(b"")), NOT_NIFTI),
    "gz of text": (rebytes("image", lambda _: gzip.compress(b"404 Not Found\n" * 99)), NOT_NIFTI),
    "a page of HTML": (rebytes("image", lambda _: b"<!DOCTYPE html>\n<html>\n</html>\n"), GZIP),
    "a plain .nii named .nii.gz": (rebytes("image", gzip.decompress), GZIP),
    "gz that holds half a volume": (rebytes("image", lambda b: gzip.compress(gzip.decompress(b)[:9000])), CUT),
    "gz that holds a header alone": (rebytes("image", lambda b: gzip.compress(gzip.decompress(b)[:352])), CUT),
    "gz that holds half a header": (rebytes("image", lambda b: gzip.compress(gzip.decompress(b)[:200])), NOT_NIFTI),
    "a .nii cut in half": (plain_nifti(lambda b: b[: len(b) // 2]), CUT),
    "a .nii of a header alone": (plain_nifti(lambda b: b[:352]), CUT),
    "a .nii of zero bytes": (plain_nifti(lambda _: b""), "cannot be read|Empty|not a NIfTI"),
    "a .nii.gz named .nii": (plain_nifti(gzip.compress), NOT_NIFTI),
    # NIfTI headers
    "wrong magic": (patched("image", (MAGIC, "4s", (b"xyz\0",))), NOT_NIFTI),
    "affine of NaN": (patched("image", (SROW, "f", (np.nan,))), "affine is not a finite"),
    "affine of infinity": (patched("image", (SROW + 12, "f", (np.inf,))), "affine is not a finite"),
    "an axis without length": (patched("image", (SROW, "4f", (0, 0, 0, 0))), "an axis of the affine has no length"),
    "zero spacing in a qform": (
        lambda files: [patched(w, *NO_SPACING)(files) for w in ("image", "label")],
        "no length|spacing",
    ),
    "label with an affine of NaN": (patched("label", (SROW, "f", (np.nan,))), "affine is not a finite"),
    "two axes along one direction": (
        patched("image", (SROW, "4f", (1.6, 1.6, 0, 0)), (SROW + 16, "4f", (0, 0, 0, 0))),
        "off orthonormal|no length",
    ),
    # the header is wrong, not the machine too small
    "huge dimensions": (patched("image", (DIM, "4h", (3, 32767, 32767, 32767))), CUT),
    "dimensions beyond 64 bits": (patched("image", (DIM, "8h", (7, *[32767] * 7))), CUT),
    "one dimension too large": (patched("image", (DIM, "4h", (3, 30, 28, 21))), CUT),
    "negative dimension": (patched("image", (DIM, "4h", (3, 30, -28, 20))), r"expected at least 2|cannot be read"),
    "a dimension of 0": (
        patched("image", (DIM, "4h", (3, 30, 0, 20))),
        r"expected at least 2|expected 3-D|cannot be read",
    ),
    "five dimensions": (patched("image", (DIM, "6h", (5, 30, 28, 5, 2, 2))), r"found 5-D .* expected 3-D"),
    "no dimensions": (patched("image", (DIM, "h", (0,))), r"expected 3-D|cannot be read|not a NIfTI"),
    "nine dimensions": (patched("image", (DIM, "h", (9,))), NOT_NIFTI),
    "minus one dimension": (patched("image", (DIM, "h", (-1,))), NOT_NIFTI),
    "voxels beyond the end": (patched("image", (OFFSET, "f", (1e9,))), CUT),
    "voxels before the start": (patched("image", (OFFSET, "f", (-400.0,))), "cannot be read|offset"),
    "voxels at infinity": (patched("image", (OFFSET, "f", (np.inf,))), "cannot be read|offset"),
    "voxels at NaN": (patched("image", (OFFSET, "f", (np.nan,))), "cannot be read|offset"),
    "unknown datatype": (patched("image", (DATATYPE, "h", (9999,))), "cannot be read"),
    "datatype 0": (patched("image", (DATATYPE, "h", (0,))), "cannot be read|expected real numbers"),
    "an extension that never ends": (
        patched("image", (EXTENSION, "4B", (1, 0, 0, 0)), (OFFSET, "f", (1000.0,))),
        "cannot be read|damaged|cut off",
    ),
    "a slope without intercept": (patched("image", (SLOPE, "2f", (1.0, np.nan))), "cannot be read"),
    "an overflowing slope": (patched("image", (SLOPE, "2f", (1e38, 1e38))), "NaN or infinite|cannot be read|slope|HU"),
    "a slope beyond double precision": (
        lambda files: [nifti2(files), patched("image", (SLOPE_2, "2d", (1e306, 0)))(files)],
        "NaN or infinite|cannot be read|slope|HU",
    ),
    "millimetres written as micrometres": (both(lambda a: a * [[1e4], [1e4], [1e4], [1]]), r"\d m\b|mm|extent|spacing"),
    "millimetres written as metres": (both(lambda a: a * [[1e-3], [1e-3], [1e-3], [1]]), r"mm|extent|spacing"),
    # voxels
    "voxels of 128 bits": (extended_precision, "cannot be read|expected real numbers"),
    "complex voxels": (typed(np.complex64), "expected real numbers"),
    "colour": (colour, "expected real numbers"),
    "NaN in the image": (
        rewritten("image", lambda a, m: (np.where(a == a.max(), np.nan, a).astype(np.float32), m)),
        r"\d+ voxels are NaN",
    ),
    "an image of zeros": (voxels(lambda a: a * 0, "image"), "constant|contrast|all voxels"),
    "an image of air alone": (voxels(lambda a: a * 0 - 1000, "image"), "constant|contrast|all voxels"),
    "an axis of 1 voxel": (voxels(lambda a: a[:, :, :1], "image"), "expected at least 2 voxels"),
    "a single slice": (voxels(lambda a: a[:, :, 4], "image"), "found 2-D"),
    "three volumes": (voxels(lambda a: np.stack([a] * 3, -1), "image"), r"found 4-D \(30, 28, 20, 3\), expected 3-D"),
    "two label volumes": (voxels(lambda a: np.stack([a] * 2, -1)), "expected 3-D"),
    "fractions in the label": (one_voxel(1.5, np.float32), "fractions among the label"),
    "NaN in the label": (one_voxel(np.nan, np.float32), "NaN or infinite label"),
    "a negative label": (one_voxel(-1, np.int16), r"label values -1\.\.14, expected 0\.\.65535"),
    "label 70000": (one_voxel(70000, np.int32), r"label values 0\.\.70000, expected 0\.\.65535"),
    "label 1e30": (one_voxel(1e30, np.float64), r"expected 0\.\.65535"),
    "label 2**63": (one_voxel(2**63, np.uint64), r"expected 0\.\.65535"),
    "label 99": (one_voxel(99, np.uint8), "label values 99 are not in card mine"),
    "a probability map": (voxels(lambda a: (a > 0) * np.float32(0.7)), "fractions among the label"),
    "the image as label": (
        lambda files: shutil.copy(files.image, files.label),
        r"expected 0\.\.65535|not in card",
    ),
    "the label of a longer scan": (
        voxels(lambda a: np.concatenate([a, a], 2)),
        r"shape \(30, 28, 40\), expected the image's",
    ),
    "the label in another axis order": (voxels(lambda a: a.transpose(2, 1, 0)), r"shape \(20, 28, 30\)"),
    # geometry
    "label 1 voxel away": (shifted(1), "1 voxels away from the image"),
    "label 10 voxels away": (shifted(10), "10 voxels away from the image"),
    "label 1000 voxels away": (shifted(1000), r"1e\+03 voxels away from the image"),
    "label with half the spacing": (
        geometry(lambda a: a @ np.diag([0.5, 0.5, 0.5, 1]), "label"),
        "away from the image",
    ),
    "sheared by 5e-2": (sheared(5e-2), "off orthonormal .* sheared"),
    # other formats
    "MHA cut off": (as_format(".mha", cut), "cannot be read"),
    "MHD without its raw file": (as_format(".mhd", lambda p: p.with_suffix(".raw").unlink()), "cannot be read"),
    "MHD with its raw file cut off": (as_format(".mhd", lambda p: cut(p.with_suffix(".raw"))), "cannot be read"),
    "MHA of text": (header_text(".mha", b"hello\nworld\n"), "cannot be read"),
    "MHA of zero bytes": (header_text(".mha", b""), "cannot be read"),
    "MHA without an element type": (
        header_text(".mha", b"ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementDataFile = LOCAL\n"),
        "cannot be read",
    ),
    "MHA in two dimensions": (
        header_text(
            ".mha",
            b"ObjectType = Image\nNDims = 2\nDimSize = 2 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\nabcd",
        ),
        "found 2-D",
    ),
    "NRRD cut off": (as_format(".nrrd", cut), "cannot be read"),
    "NRRD with a missing data file": (
        header_text(
            ".nrrd",
            b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: raw\ndata file: gone.raw\n\n",
        ),
        "cannot be read",
    ),
    "NRRD of nonsense": (header_text(".nrrd", b"NRRD0004\ntype: nonsense\n\n"), "cannot be read"),
    "NRRD without an empty line": (
        header_text(".nrrd", b"NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4"),
        "cannot be read",
    ),
    "NRRD larger than any memory": (
        header_text(
            ".nrrd",
            b"NRRD0004\ntype: short\ndimension: 3\nsizes: 900000 900000 900000\nencoding: raw\nendian: little\n\nab",
        ),
        "cannot be read",
    ),
    # what a path may be
    "a folder named like the image": (replaced_by(folder_with_text), "a label without an image"),
    "a folder named like the label": (replaced_by(folder_with_text, "label"), "an image without a label"),
    "a dangling link for an image": (replaced_by(lambda p: p.symlink_to("nowhere.nii.gz")), "no such file|link"),
    "a dangling link for a label": (
        replaced_by(lambda p: p.symlink_to("nowhere.nii.gz"), "label"),
        "no such file|link",
    ),
    "a pipe for an image": (replaced_by(os.mkfifo), "not a regular file|no such file"),
    "a pipe for a label": (replaced_by(os.mkfifo, "label"), "not a regular file|no such file"),
    "no image": (lambda files: files.image.unlink(), "a label without an image"),
    "no label": (lambda files: files.label.unlink(), "an image without a label"),
}

TAKEN: dict[str, tuple[Harm, str]] = {
    # what is odd and can be mended, or is no fault; the regular expression is searched in the case's warnings
    "label 0.1 voxel away": (shifted(0.1), "^$"),
    "sheared by 5e-3": (sheared(5e-3), "off orthonormal and were repaired"),
    "sform and qform disagree": (two_orientations, "qform and sform disagree; the sform was taken"),
    "no orientation at all": (
        lambda files: [patched(w, (QFORM_CODE, "2h", (0, 0)))(files) for w in ("image", "label")],
        "states no orientation",
    ),
    "big-endian": (big_endian, "^$"),
    "NIfTI-2": (nifti2, "^$"),
    "wrong header size": (patched("image", (0, "i", (123,))), "^$"),
    "slope infinite": (patched("image", (SLOPE, "2f", (np.inf, 0))), "^$"),
    "slope 0": (patched("image", (SLOPE, "2f", (0, 0))), "^$"),
    "slope NaN": (patched("image", (SLOPE, "2f", (np.nan, np.nan))), "^$"),
    "int64 image": (typed(np.int64), "^$"),
    "int64 label": (typed(np.int64, "label"), "^$"),
    "float64 label of whole numbers": (typed(np.float64, "label"), "^$"),
    "four axes, the last of 1": (voxels(lambda a: a[..., None], "image"), "^$"),
    "the label flipped with its affine": (rewritten("label", flipped_with_its_affine), "^$"),
    "counts from 0 instead of HU": (voxels(lambda a: a + 1024, "image"), "no voxel is below 0"),
    "a sound MHA": (as_format(".mha"), "^$"),
    "a sound MHD": (as_format(".mhd"), "^$"),
    "a sound NRRD": (as_format(".nrrd"), "^$"),
    "a sound .nii": (plain_nifti(lambda b: b), "^$"),
    "bytes after the gz stream": (rebytes("image", lambda b: b + b"\0" * 512), "^$"),
    "a link to the image": (
        lambda files: files.image.symlink_to(shutil.move(files.image, files.image.parents[2] / "elsewhere.nii.gz")),
        "^$",
    ),
}


def files_of(source: Path) -> Files:
    return Files(source / f"imagesTr/{DAMAGED}.nii.gz", source / f"labelsTr/{DAMAGED}.nii.gz")


@pytest.mark.parametrize("name", QUARANTINED)
def test_a_damaged_file_costs_its_own_case_only(tmp_path, source, mine, name):
    harm, reason = QUARANTINED[name]
    harm(files_of(source))
    workspace = new_workspace(tmp_path)
    with in_time():
        report = ingest(workspace, mine, source)
    require_one_lost(workspace, report, reason, DAMAGED, SOUND)


@pytest.mark.parametrize("name", TAKEN)
def test_an_odd_file_is_taken(tmp_path, source, mine, name):
    harm, warning = TAKEN[name]
    harm(files_of(source))
    workspace = new_workspace(tmp_path)
    with in_time():
        report = ingest(workspace, mine, source)
    assert not report.quarantined
    taken = {facts.case: facts for facts in report.taken}
    assert sorted(taken) == ["word_0001", DAMAGED, "word_0003"]
    told = "; ".join(taken[DAMAGED].warnings)
    assert_matches(warning, told)
    require_whole(workspace, report)
    if warning == "^$":  # no fault: the very label that the sound file gives, and its image
        sound = new_workspace(tmp_path / "sound")
        word_case(tmp_path / "raw-sound", 2)
        ingest(sound, mine, tmp_path / "raw-sound")
        one, other = workspace.read_case(f"mine/{DAMAGED}"), sound.read_case(f"mine/{DAMAGED}")
        np.testing.assert_array_equal(one.label, other.label)
        np.testing.assert_allclose(one.intensity(), other.intensity(), atol=2e-3)


def assert_matches(expression: str, text: str) -> None:
    assert re.search(expression, text), f"expected /{expression}/ in: {text}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("which", ["image", "label"])
def test_a_file_that_may_not_be_read_is_quarantined(tmp_path, source, mine, which):
    path = getattr(files_of(source), which)
    path.chmod(0)
    workspace = new_workspace(tmp_path)
    report = ingest(workspace, mine, source)
    require_plain(report.quarantined[DAMAGED])
    assert "Permission denied" in report.quarantined[DAMAGED]
    assert [facts.case for facts in report.taken] == SOUND
    require_whole(workspace, report)


# -- names ----------------------------------------------------------------------------------------------------------

GOOD_NAMES = [
    "Fäll 2",
    "日本語",
    "a case with spaces",
    "x.y.z",
    "50%",
    "[bold]2",
    "-rf",
    "c" * 200,
    "{case}",
    "a'b\"c",
]
BAD_NAMES: dict[str, tuple[str, str]] = {
    # A case is a folder in the source's Zarr group: it must not be the group's own file, the group itself, or hidden.
    "the name of Zarr's own file": ("zarr.json", "expected a plain name"),
    "no name": ("", "expected a plain name|empty"),
    "a hidden name": (".hidden", "expected a plain name"),
    "a name of two lines": ("a\nb", "a.*b"),
    "a name with a bell": ("a\ab", "a.*b"),
    "a name longer than a file may have": ("c" * 248, "name|long"),
}


def named(source: Path, name: str) -> None:
    for folder in ("imagesTr", "labelsTr"):
        (source / folder / f"{DAMAGED}.nii.gz").rename(source / folder / f"{name}.nii.gz")


@pytest.mark.parametrize("name", GOOD_NAMES, ids=ascii)
def test_names_with_unusual_letters_are_taken(tmp_path, source, mine, name):
    named(source, name)
    workspace = new_workspace(tmp_path)
    report = ingest(workspace, mine, source)
    assert not report.quarantined
    assert {facts.case for facts in report.taken} == {*SOUND, name}
    require_whole(workspace, report)


@pytest.mark.parametrize("kind", BAD_NAMES)
def test_names_that_cannot_be_cases_are_quarantined(tmp_path, source, mine, kind):
    name, reason = BAD_NAMES[kind]
    named(source, name)
    workspace = new_workspace(tmp_path)
    for replace in (False, True):  # the second time there is something to lose
        report = ingest(workspace, mine, source, replace=replace)
        ((case, message),) = report.quarantined.items()
        assert case.isprintable()  # it goes into a table and into JSON
        require_plain(message)
        assert_matches(reason, message)
        assert [facts.case for facts in report.taken] == SOUND
        require_whole(workspace, report)


def test_a_name_that_is_not_utf8_is_quarantined(tmp_path, source, mine):
    try:
        named(source, os.fsdecode(b"f\xe4ll"))
    except OSError:
        pytest.skip("this file system has only UTF-8 names")
    workspace = new_workspace(tmp_path)
    report = ingest(workspace, mine, source)
    ((case, message),) = report.quarantined.items()
    assert case.isprintable()
    require_plain(message)
    assert [facts.case for facts in report.taken] == SOUND
    require_whole(workspace, report)


# -- mask files -----------------------------------------------------------------------------------------------------


def mask_of(change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        path = folder / "segmentations" / "liver.nii.gz"
        image = nib.load(path)
        array, affine = change(np.asanyarray(image.dataobj).copy(), image.affine.copy())
        write_nifti(path, array, affine)

    return harm


def two_values(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    array[0, 0, 0] = 2
    return array, affine


MASKS: dict[str, tuple[Callable[[Path], object], str | None, str]] = {
    # reason of the quarantine (None: taken), then what the warnings say
    "a mask with two values": (mask_of(two_values), r"liver.nii.gz: values \[0, 1, 2\], expected a mask", ""),
    "a mask with fractions": (mask_of(lambda a, m: (a * np.float32(0.5), m)), "liver.nii.gz: fractions", ""),
    "a mask of another grid": (mask_of(lambda a, m: (a[:-1], m)), r"liver.nii.gz: shape \(23, 22, 20\)", ""),
    "a mask elsewhere": (mask_of(lambda a, m: (a, m + np.eye(4, k=3) * 30)), "liver.nii.gz: .* voxels away", ""),
    "a mask of 0 and 255": (mask_of(lambda a, m: (a * 255, m)), None, "^$"),
    "a mask cut off": (
        lambda f: (f / "segmentations/liver.nii.gz").write_bytes((f / "segmentations/liver.nii.gz").read_bytes()[:60]),
        "liver.nii.gz: .*gzip stream is damaged",
        "",
    ),
    "a mask that is missing": (lambda f: (f / "segmentations/liver.nii.gz").unlink(), None, "no mask file for liver"),
    "all masks missing": (lambda f: shutil.rmtree(f / "segmentations"), "an image without a label", ""),
    "a mask that is a pipe": (
        lambda f: [(f / "segmentations/liver.nii.gz").unlink(), os.mkfifo(f / "segmentations/liver.nii.gz")],
        "liver.nii.gz: (not a regular file|no such file)",
        "",
    ),
    "no image beside the masks": (lambda f: (f / "ct.nii.gz").unlink(), "a label without an image", ""),
}


@pytest.mark.parametrize("name", MASKS)
def test_damaged_masks(tmp_path, total_source, name):
    harm, reason, warning = MASKS[name]
    harm(total_source / "s0002")
    workspace = new_workspace(tmp_path)
    with in_time():
        report = ingest(workspace, TOTAL, total_source)
    if reason is not None:
        require_one_lost(workspace, report, reason, "s0002", ["s0001"])
        return
    assert not report.quarantined
    assert_matches(warning, "; ".join(report.taken[1].warnings))
    require_whole(workspace, report)


# -- cards ----------------------------------------------------------------------------------------------------------


def with_text(old: str, new: str) -> Callable[[Path], None]:
    assert old in CARD

    def harm(path: Path) -> None:
        path.write_text(CARD.replace(old, new))

    return harm


def appended(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(CARD + text) and None


CASE_GROUP = "case = '[^/]*?'"
SPARSE = '\n[sparse]\nkind = "table"\n'

CARDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "bad TOML": (with_text('id = "mine"', "id = "), "not valid TOML"),
    "a string that never ends": (with_text('title = "Mine"', 'title = "Mine'), "not valid TOML"),
    "unknown key": (with_text('title = "Mine"', 'titel = "Mine"'), "titel: found an unknown name"),
    "unknown key of two lines": (
        with_text('title = "Mine"', 'title = "Mine"\n"a\\nb" = 1'),
        "a b: found an unknown name",
    ),
    "wrong type": (with_text('title = "Mine"', "title = 3"), "title: found 3, expected a text"),
    "a name where a list belongs": (
        with_text(
            'annotated = ["liver", "spleen", "right_adrenal_gland", "left_adrenal_gland"]', 'annotated = "liver"'
        ),
        "annotated: found 'liver', expected a list",
    ),
    "unknown modality": (with_text('"CT"', '"PET"'), "modality: found 'PET', expected 'CT' or 'MR'"),
    "unknown structure": (
        lambda path: path.write_text(CARD.replace('"liver"', '"livr"')),
        "structure 'livr' is not known.* Did you mean liver",
    ),
    "value 0": (with_text('1 = "liver"', '0 = "liver"'), "label value '0', expected a whole number from 1"),
    "value one": (with_text('1 = "liver"', 'one = "liver"'), "label value 'one', expected a whole number"),
    "value 70000": (with_text('1 = "liver"', '70000 = "liver"'), "label value '70000'"),
    "merged of three": (
        with_text(
            '["right_adrenal_gland", "left_adrenal_gland"]\n\n[dropped]',
            '["right_adrenal_gland", "left_adrenal_gland", "liver"]\n\n[dropped]',
        ),
        r"exactly \[right, left\]",
    ),
    "a value mapped and dropped": (with_text('10 = "colon"', '1 = "colon"'), "values 1 are both mapped and dropped"),
    "no regular expression": (with_text(CASE_GROUP, "case = 'c('"), "'c\\(' is not a regular expression"),
    "no regular expression, over two lines": (with_text(CASE_GROUP, 'case = "c(\\nd"'), "is not a regular expression"),
    # Each is an expression by itself, and none within the path's.
    "a flag inside the path": (
        with_text(CASE_GROUP, "case = '(?i)word_.*'"),
        "group case.*not a regular expression|flag",
    ),
    "a group named like another": (
        with_text(CASE_GROUP, "case = '(?P<end>c)'"),
        "layout any format.*(not a regular expression|twice)",
    ),
    "a group called root": (
        with_text(CASE_GROUP, "case = '(?P<root>c)'"),
        "layout any format.*(not a regular expression|root)",
    ),
    "a range over letters": (
        with_text("groups = {", "ranges = { case = [1, 5] }\ngroups = {"),
        "range.*case",
    ),
    "a template without its group": (with_text(CASE_GROUP, "kase = 'c'"), "no expression in groups for case"),
    "a case without a name": (with_text('case = "{case}"', 'case = ""'), "case"),
    "label and masks": (
        with_text('case = "{case}"', 'case = "{case}"\nmasks = "{case}/{mask}"'),
        "label and masks|no expression",
    ),
    "no layout": (
        lambda path: path.write_text(CARD.split("[[layouts]]", maxsplit=1)[0] + '[labels]\n1 = "liver"\n'),
        "layouts: found nothing, expected a value",
    ),
    "an empty file": (lambda path: path.write_text(""), "id: found nothing, expected a value"),
    "split by an unknown group": (
        appended('\n[split]\ngroup = "prt"\nsides = { Tr = "train" }\n'),
        "no layout has a group called prt",
    ),
    "split to an unknown side": (
        appended('\n[split]\ngroup = "end"\nsides = { Tr = "training" }\n'),
        "sides.Tr: found 'training', expected 'train', 'val' or 'test'",
    ),
    "split by nothing": (appended('\n[split]\nsides = { Tr = "train" }\n'), "either group"),
    "split by a column without a table": (appended('\n[split]\ncolumn = "s"\nsides = { a = "train" }\n'), "no table"),
    "exceptions without a table": (
        appended('\n[[exceptions]]\nnot_annotated = ["liver"]\nunless = { sex = ["m"] }\nreason = "x"\n'),
        "exceptions go by columns of a table",
    ),
    "annotated twice": (
        with_text('annotated = ["liver"', 'annotated = ["liver", "liver"'),
        "annotated lists liver twice",
    ),
    "annotated without a label": (
        with_text('annotated = ["liver"', 'annotated = ["stomach", "liver"'),
        "annotated lists stomach",
    ),
    "a label that is not annotated": (with_text('2 = "spleen"', '2 = "spleen"\n3 = "stomach"'), "labels name stomach"),
    "unlabelled with labels": (
        with_text('title = "Mine"', 'title = "Mine"\nunlabelled_source = true'),
        "unlabelled_source, but",
    ),
    "sparse table without a name": (appended(SPARSE), "table needs table"),
    "sparse slices without an axis": (appended('\n[sparse]\nkind = "non-empty"\n'), "non-empty needs axis"),
    "sparse of an unknown kind": (appended('\n[sparse]\nkind = "some"\n'), "sparse.kind: found 'some', expected"),
    "expected volume of an unknown structure": (
        appended("\n[expected]\nvolume_ml = { heart = [1, 2] }\n"),
        "expected.volume_ml names heart",
    ),
    "a bad expression for unlabelled scans": (
        appended("\n[[unlabelled]]\nmatch = '['\nreason = 'x'\n"),
        "is not a regular expression",
    ),
    "a missing file": (lambda _: None, "no such card file"),
    "a folder": (lambda path: path.mkdir(), "cannot be read"),
    "a binary file": (lambda path: path.write_bytes(gzip.compress(b"x" * 999)), "cannot be read"),
    "a file of zeros": (lambda path: path.write_bytes(b"\0" * 64), "not valid TOML"),
    "UTF-16": (lambda path: path.write_text(CARD, encoding="utf-16"), "cannot be read"),
    "lists in lists without end": (
        lambda path: path.write_text("a = " + "[" * 20_000),
        "not valid TOML|cannot be read",
    ),
    "a number of 5000 digits": (lambda path: path.write_text("a = " + "9" * 5000), "not valid TOML|cannot be read"),
}


@pytest.mark.parametrize("name", CARDS)
def test_a_card_with_a_fault_is_refused(tmp_path, source, name):
    harm, reason = CARDS[name]
    path = tmp_path / "mine.toml"
    harm(path)
    workspace = new_workspace(tmp_path)
    message = require_refused(workspace, reason, lambda: ingest(workspace, load_card_file(path), source))
    assert "mine" in message  # the card's file, or its id


def test_all_faults_of_a_card_are_told_at_once(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(CARD.replace('"CT"', '"PET"').replace('title = "Mine"', "title = 3"))
    with pytest.raises(AbdosegError) as caught:
        load_card_file(path)
    require_plain(str(caught.value))
    assert_matches("title: .*modality: ", str(caught.value))


# -- folders --------------------------------------------------------------------------------------------------------


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_bytes(b"PK\3\4")


def junk_alone(folder: Path) -> None:
    emptied(folder)
    for name in ("__MACOSX/imagesTr/._word_0001.nii.gz", "imagesTr/._word_0001.nii.gz", ".DS_Store"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\0\5\26\7")


def dataset_json(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "dataset.json").write_bytes(content)


def labels_json(**labels: str) -> Callable[[Path], object]:
    return dataset_json(json.dumps({"labels": labels}).encode())


REFUSED_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, "raw: no such folder"),
    "empty": (emptied, "raw: the folder is empty"),
    "a file": (a_file, "raw: is a file, expected a folder; unpack"),
    "folders without files": (lambda f: [emptied(f), (f / "imagesTr").mkdir()], "raw: the folder is empty"),
    "only junk of an archive": (junk_alone, "raw: "),
    "only other files": (
        lambda f: [emptied(f), (f / "a.txt").write_text("x")],
        "raw: none of its 1 files fits card word",
    ),
    "a link to nowhere": (lambda f: [shutil.rmtree(f), f.symlink_to("nowhere")], "raw: no such folder"),
    "dataset.json is no JSON": (dataset_json(b"{'labels': }"), "dataset.json: cannot be read as JSON"),
    "dataset.json is empty": (dataset_json(b""), "dataset.json: cannot be read as JSON"),
    "dataset.json is binary": (dataset_json(gzip.compress(b"x" * 99)), "dataset.json: cannot be read as JSON"),
    "dataset.json is a list": (dataset_json(b"[1, 2]"), "dataset.json: holds a list, expected an object"),
    "dataset.json without end": (dataset_json(b"[" * 100_000), "dataset.json: cannot be read as JSON"),
    "dataset.json with 5000 digits": (dataset_json(b"9" * 5000), "dataset.json: cannot be read as JSON"),
    "dataset.json in another order": (
        labels_json(**{"1": "spleen", "2": "liver"}),
        "dataset.json: says that 1 is spleen",
    ),
    "dataset.json of two lines": (labels_json(**{"1": "spleen\n", "2": "liver"}), "dataset.json: says that"),
}


@pytest.mark.parametrize("name", REFUSED_FOLDERS)
def test_a_folder_that_is_no_source_is_refused(tmp_path, source, name):
    harm, reason = REFUSED_FOLDERS[name]
    harm(source)
    workspace = new_workspace(tmp_path)
    require_refused(workspace, reason, lambda: ingest(workspace, WORD, source))


def twice(folder: Path) -> None:
    shutil.copytree(folder, folder / "copy")


def one_twice(folder: Path) -> None:
    for part in ("imagesTr", "labelsTr"):
        (folder / "copy" / part).mkdir(parents=True)
        shutil.copy(folder / part / f"{DAMAGED}.nii.gz", folder / "copy" / part)


def nested(folder: Path) -> None:
    deep = folder / "download" / "WORD-V0.1.0"
    deep.mkdir(parents=True)
    for part in ("imagesTr", "labelsTr"):
        shutil.move(folder / part, deep / part)


ALL = [*SOUND, DAMAGED]
ODD_FOLDERS: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    # which cases are taken, and the reason why the others are not
    "images alone": (lambda f: shutil.rmtree(f / "labelsTr"), [], "an image without a label"),
    "labels alone": (lambda f: shutil.rmtree(f / "imagesTr"), [], "a label without an image"),
    "two copies of the source": (twice, [], "is there twice"),
    "one case twice": (one_twice, SOUND, "is there twice"),
    "nested roots": (nested, ALL, ""),
    "a link to the folder itself": (lambda f: (f / "loop").symlink_to(f), ALL, ""),
    "a dataset.json that says ² is a value": (labels_json(**{"²": "liver"}), ALL, ""),
    "a dataset.json without labels": (dataset_json(b"{}"), ALL, ""),
}


@pytest.mark.parametrize("name", ODD_FOLDERS)
def test_an_odd_folder_gives_what_can_be_known(tmp_path, source, name):
    harm, taken, reason = ODD_FOLDERS[name]
    harm(source)
    workspace = new_workspace(tmp_path)
    with in_time():
        report = ingest(workspace, WORD, source)
    assert [facts.case for facts in report.taken] == sorted(taken)
    assert sorted(report.quarantined) == sorted(set(ALL) - set(taken))
    for case, message in report.quarantined.items():
        require_plain(message)
        assert case in message
        assert_matches(reason, message)
    require_whole(workspace, report)


# -- tables beside the scans ----------------------------------------------------------------------------------------

META: dict[str, tuple[Callable[[Path], object], str]] = {
    "no key column": (
        lambda p: p.write_text("id;split\ns0001;train\n"),
        "meta.csv: columns id, split, expected image_id",
    ),
    "another separator": (lambda p: p.write_text("image_id,split\ns0001,train\n"), "meta.csv: .*expected image_id"),
    "no header": (
        lambda p: p.write_text("s0001;50;m;A;ct;train\ns0002;50;f;A;ct;test\n"),
        "meta.csv: .*expected image_id",
    ),
    # Without its rows the official split and the exceptions would be lost without a word.
    "zero bytes": (lambda p: p.write_bytes(b""), "meta.csv: .*(empty|expected)"),
    "binary": (lambda p: p.write_bytes(bytes(range(128, 256))), "meta.csv: cannot be read"),
    "NUL bytes": (lambda p: p.write_bytes(b"\0" * 99), "meta.csv: "),
    "a field without end": (lambda p: p.write_text("image_id;split\n" + "x" * 200_000), "meta.csv: cannot be read"),
    "a folder": (lambda p: [p.unlink(), p.mkdir()], "meta.csv: cannot be read"),
    "a pipe": (lambda p: [p.unlink(), os.mkfifo(p)], "meta.csv: "),
}


@pytest.mark.parametrize("name", META)
def test_a_damaged_table_of_cases_is_refused(tmp_path, total_source, name):
    harm, reason = META[name]
    harm(total_source / "meta.csv")
    workspace = new_workspace(tmp_path)
    require_refused(workspace, reason, lambda: ingest(workspace, TOTAL, total_source))
    assert not list(workspace.incoming.rglob("*.*"))


SLICES: dict[str, tuple[str | None, str]] = {
    # for the table as a whole: the source is refused
    "words instead of numbers": ("case,axis,slice\nword_0002,axial,three\n", "line 2: slice 'three', expected a whole"),
    "a superscript": ("case,axis,slice\nword_0002,axial,²\n", "line 2: slice '²', expected a whole number"),
    "a fraction": ("case,axis,slice\nword_0002,axial,2.0\n", "line 2: slice '2.0', expected a whole number"),
    "a negative slice": ("case,axis,slice\nword_0002,axial,-1\n", "line 2: slice '-1', expected a whole number"),
    "no column slice": ("case,axis\nword_0002,axial\n", "slices.csv: columns case, axis, expected slice"),
    "a short row": ("case,axis,slice\nword_0002\n", "line 2: slice '', expected a whole number"),
    "missing": (None, "no slices.csv found"),
}
CASE_SLICES: dict[str, tuple[str, str]] = {
    # for one case: the others are taken
    "a slice beyond the scan": ("word_0002,axial,999", r"slices.csv: slice 999 of axial, expected 0\.\.19"),
    "a slice of 5000 digits": (f"word_0002,axial,{'9' * 5000}", "slices.csv: slice|expected a whole number"),
    "an unknown axis": ("word_0002,oblique,3", "slices.csv: axis 'oblique', expected one of"),
    "an unknown structure": ("word_0002,axial,3,livr", "slices.csv: structures livr"),
    "no row": ("", "slices.csv lists no slice of this case"),
}


def sparse_card(tmp_path: Path) -> Card:
    path = tmp_path / "mine.toml"
    path.write_text(CARD + SPARSE + 'table = "slices.csv"\n')
    return load_card_file(path)


@pytest.mark.parametrize("name", SLICES)
def test_a_damaged_table_of_slices_is_refused(tmp_path, source, name):
    text, reason = SLICES[name]
    if text is not None:
        (source / "slices.csv").write_text(text)
    workspace = new_workspace(tmp_path)
    require_refused(workspace, reason, lambda: ingest(workspace, sparse_card(tmp_path), source))


@pytest.mark.parametrize("name", CASE_SLICES)
def test_a_row_that_is_not_the_cases_costs_that_case(tmp_path, source, name):
    row, reason = CASE_SLICES[name]
    sound = [
        f"{case},axial,{z},{names}"
        for case, names in zip(SOUND, ("", "liver+spleen"), strict=True)
        for z in (9, 10, 11)
    ]
    rows = ["case,axis,slice,structures", *sound, row]
    (source / "slices.csv").write_text("\n".join(rows) + "\n")
    workspace = new_workspace(tmp_path)
    with in_time():
        report = ingest(workspace, sparse_card(tmp_path), source)
    require_one_lost(workspace, report, reason, DAMAGED, SOUND)
    assert len(report.quarantined[DAMAGED]) < 500


PAIRS = CARD.split("[[layouts]]", maxsplit=1)[0] + (
    '[[layouts]]\nname = "pairs"\npairs = "pairs.csv"\nimage = "{image}"\nlabel = "{label}"\ncase = "{case}"\n'
    + CARD[CARD.index("[labels]") :]
)
PAIR_ROWS = [f"{case},imagesTr/{case}.nii.gz,labelsTr/{case}.nii.gz" for case in ("word_0001", DAMAGED, "word_0003")]
REFUSED_PAIRS: dict[str, tuple[str, str]] = {
    "no column case": ("image,label\na,b\n", "pairs.csv: columns image, label, expected case"),
    "no column at all": ("\n".join(PAIR_ROWS), "pairs.csv: .*expected"),
    "a header alone": ("case,image,label\n", "pairs.csv|none of its"),
    "zero bytes": ("", "pairs.csv|none of its"),
}
CASE_PAIRS: dict[str, tuple[str, str]] = {
    "an image that is not there": (f"{DAMAGED},gone.nii.gz,labelsTr/{DAMAGED}.nii.gz", "gone.nii.gz is not there"),
    "a label that is not there": (f"{DAMAGED},imagesTr/{DAMAGED}.nii.gz,gone.nii.gz", "gone.nii.gz is not there"),
    "a label that is a folder": (f"{DAMAGED},imagesTr/{DAMAGED}.nii.gz,labelsTr", "labelsTr is not there"),
    "no label": (f"{DAMAGED},imagesTr/{DAMAGED}.nii.gz,", "has no label"),
    "a short row": (DAMAGED, "word_0002"),
    "a row twice": (f"{PAIR_ROWS[1]}\n{PAIR_ROWS[1]}", "is in the table twice"),
    "an image of two lines": (f'{DAMAGED},"a\nb.nii.gz",labelsTr/{DAMAGED}.nii.gz', "is not there"),
}


def pairs_card(tmp_path: Path) -> Card:
    path = tmp_path / "mine.toml"
    path.write_text(PAIRS)
    return load_card_file(path)


@pytest.mark.parametrize("name", REFUSED_PAIRS)
def test_a_damaged_table_of_pairs_is_refused(tmp_path, source, name):
    text, reason = REFUSED_PAIRS[name]
    (source / "pairs.csv").write_text(text)
    workspace = new_workspace(tmp_path)
    require_refused(workspace, reason, lambda: ingest(workspace, pairs_card(tmp_path), source))


@pytest.mark.parametrize("name", CASE_PAIRS)
def test_a_pair_that_is_not_whole_costs_that_case(tmp_path, source, name):
    row, reason = CASE_PAIRS[name]
    (source / "pairs.csv").write_text("\n".join(["case,image,label", PAIR_ROWS[0], row, PAIR_ROWS[2]]) + "\n")
    workspace = new_workspace(tmp_path)
    with in_time():
        report = ingest(workspace, pairs_card(tmp_path), source)
    require_one_lost(workspace, report, reason, DAMAGED, SOUND)
