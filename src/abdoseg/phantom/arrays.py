"""Array types of the phantom package; all arrays are ``(I, J, K)`` in the scan's own voxel order unless said."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
UInt8Array = NDArray[np.uint8]
Box = tuple[slice, slice, slice]
Triple = tuple[float, float, float]
