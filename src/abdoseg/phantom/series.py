"""Real DICOM CT series: one file a slice, head first."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DSfloat

from abdoseg.phantom.arrays import Float64Array
from abdoseg.phantom.scanner import Scan

RESCALE_INTERCEPT = -1024
_LPS = np.diag([-1.0, -1.0, 1.0])
"""World RAS+ to DICOM's axes and back."""


def write_series(folder: Path, scan: Scan, patient: str, *, signed: bool) -> None:
    """Write a CT scan as ``1-001.dcm``, ``1-002.dcm``, ...: slice k of the last array axis is instance k + 1.

    Array axis 0 runs along a pixel row, axis 1 down the rows.

    Parameters
    ----------
    folder
        The series' folder.
    scan
        What was scanned.
    patient
        Patient's pseudonym; all identifiers are derived from it.
    signed
        Whether pixels are stored as int16 or uint16; both are HU + 1024.
    """
    folder.mkdir(parents=True)
    dataset = _common(scan, patient, signed=signed)
    # Whole numbers from 0 to 4095: both types have the same bytes.
    stored = (np.rint(scan.image) - RESCALE_INTERCEPT).astype("<u2")
    for k in range(stored.shape[2]):
        corner = _LPS @ (scan.affine[:3, 2] * k + scan.affine[:3, 3])
        dataset.SOPInstanceUID = _uid(patient, f"slice {k}")
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.InstanceNumber = k + 1
        dataset.ImagePositionPatient = _decimals(corner)
        dataset.SliceLocation = _decimals(corner)[2]
        dataset.PixelData = stored[:, :, k].T.tobytes()
        dataset.save_as(folder / slice_name(k + 1), enforce_file_format=True)


def slice_name(instance: int, series: int = 1) -> str:
    """Return the file name of a slice as the archive's own download tool gives it."""
    return f"{series}-{instance:03d}.dcm"


def without_slice(folder: Path) -> None:
    """Remove the middle slice of a series."""
    files = sorted(folder.glob("*.dcm"))
    files[len(files) // 2].unlink()


def second_series(folder: Path) -> None:
    """Put half of the slices into the folder once more, as another series of the same study."""
    files = sorted(folder.glob("1-*.dcm"))
    for instance, file in enumerate(files[::2], start=1):
        dataset = pydicom.dcmread(file)
        patient = str(dataset.PatientID)
        dataset.SeriesInstanceUID = _uid(patient, "second series")
        dataset.SeriesNumber = 2
        dataset.InstanceNumber = instance
        dataset.SOPInstanceUID = _uid(patient, f"second series, slice {instance}")
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(folder / slice_name(instance, series=2), enforce_file_format=True)


def _common(scan: Scan, patient: str, *, signed: bool) -> Dataset:
    """Return what all slices of a series share."""
    directions = _LPS @ scan.affine[:3, :3]
    lengths = np.linalg.norm(directions, axis=0)
    directions = directions / lengths
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.SOPClassUID = CTImageStorage
    dataset.Modality = "CT"
    dataset.PatientID = dataset.PatientName = patient
    dataset.StudyInstanceUID = _uid(patient, "study")
    dataset.SeriesInstanceUID = _uid(patient, "series")
    dataset.FrameOfReferenceUID = _uid(patient, "frame of reference")
    dataset.SeriesNumber = 1
    dataset.SeriesDescription = "Synthetic phantom, no patient"
    dataset.ImageOrientationPatient = _decimals(np.concatenate([directions[:, 0], directions[:, 1]]))
    dataset.PixelSpacing = _decimals(lengths[[1, 0]])
    dataset.SliceThickness = _decimals(lengths[2:])[0]
    dataset.Columns, dataset.Rows = scan.image.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = (16, 16, 15) if signed else (16, 12, 11)
    dataset.PixelRepresentation = int(signed)
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, RESCALE_INTERCEPT, "HU"
    return dataset


def _decimals(values: Float64Array) -> list[DSfloat]:
    """Return numbers as DICOM's decimal strings, at most 16 characters; no -0."""
    return [DSfloat(float(value) + 0.0, auto_format=True) for value in values]


def _uid(*facts: str) -> str:
    """Return an identifier that depends on nothing but ``facts``."""
    return generate_uid(entropy_srcs=list(facts))
