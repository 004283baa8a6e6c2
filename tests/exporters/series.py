"""CT series in every orientation with a label on them, for the tests of DICOM objects."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import EnhancedCTImageStorage, generate_uid

from abdoseg.readers import read_scan
from abdoseg.readers.scan import Scan
from tests.test_dicom import ORIENTATIONS, save, slice_of, write_series

VOXELS = np.random.default_rng(0).integers(0, 2000, (9, 11, 5)).astype(np.uint16)
"""Stored values, (columns, rows, slices)."""


def label_of(scan: Scan, values: tuple[int, ...] = (0, 0, 0, 1, 6, 2), seed: int = 1) -> np.ndarray:
    """Scattered voxels of a few structures: nothing symmetric, every slice another."""
    return np.random.default_rng(seed).choice(np.array(values, np.uint8), scan.array.shape)


def series(folder: Path, orientation: str = "oblique", step_mm: float = -2.5, change=lambda k, ds: None) -> Path:
    return write_series(folder, change, voxels=VOXELS, orientation=ORIENTATIONS[orientation], step_mm=step_mm)


def read(folder: Path) -> tuple[Scan, np.ndarray]:
    scan = read_scan(folder)
    return scan, label_of(scan)


def ras_of_pixel(header: Dataset, column: float, row: float) -> np.ndarray:
    """Equation C.7.6.2.1-1 of PS3.3, turned to RAS+."""
    along, down = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
    rows_mm, columns_mm = (float(s) for s in header.PixelSpacing)
    lps = np.array(header.ImagePositionPatient, float) + along * columns_mm * column + down * rows_mm * row
    return lps * [-1, -1, 1]


def multi_frame(path: Path, shuffled: bool = True) -> Path:
    """One Enhanced CT file whose frames lie in no order; returns its folder."""
    count = VOXELS.shape[2]
    order = np.random.default_rng(3).permutation(count) if shuffled else np.arange(count)
    slices = [slice_of(int(k), VOXELS, ORIENTATIONS["oblique"]) for k in order]
    ds = slice_of(0, VOXELS)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        del ds[name]
    ds.SOPClassUID, ds.SOPInstanceUID = EnhancedCTImageStorage, generate_uid(entropy_srcs=["frames"])
    ds.NumberOfFrames = count
    ds.PixelData = b"".join(one.PixelData[: 2 * VOXELS.shape[0] * VOXELS.shape[1]] for one in slices)
    shared = Dataset()
    shared.PlaneOrientationSequence = Items([_item(slices[0], "ImageOrientationPatient")])
    shared.PixelMeasuresSequence = Items([_item(slices[0], "PixelSpacing", "SliceThickness")])
    shared.PixelValueTransformationSequence = Items([_item(slices[0], "RescaleSlope", "RescaleIntercept")])
    ds.SharedFunctionalGroupsSequence = Items([shared])
    ds.PerFrameFunctionalGroupsSequence = Items([_positioned(one) for one in slices])
    path.parent.mkdir(parents=True, exist_ok=True)
    save(ds, path)
    return path.parent


def _item(source: Dataset, *names: str) -> Dataset:
    item = Dataset()
    for name in names:
        item[name] = source[name]
    return item


def _positioned(source: Dataset) -> Dataset:
    groups = Dataset()
    groups.PlanePositionSequence = Items([_item(source, "ImagePositionPatient")])
    return groups
