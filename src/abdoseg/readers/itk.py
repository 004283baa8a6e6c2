"""NRRD and MetaImage (``.nrrd``, ``.mha``, ``.mhd``) through SimpleITK."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from abdoseg.errors import CaseError
from abdoseg.readers.scan import Scan, checked_scan

SUFFIXES = (".nrrd", ".mha", ".mhd")

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_itk(path: Path) -> Scan:
    """Read one file that SimpleITK understands.

    Raises
    ------
    CaseError
        If SimpleITK cannot read it, or it is not a 3-D volume of one real number a voxel.
    """
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise CaseError(f"{path.name}: cannot be read ({reason}); fetch the file again") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        found = f"{image.GetDimension()}-D with {image.GetNumberOfComponentsPerPixel()} values a voxel"
        raise CaseError(f"{path.name}: found {found}, expected 3-D with one value a voxel")
    affine = np.eye(4)
    directions = np.array(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = directions * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    array = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    try:
        return checked_scan(array, _LPS_TO_RAS @ affine)
    except CaseError as error:
        raise CaseError(f"{path.name}: {error}") from error
