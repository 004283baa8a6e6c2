"""Names for array shapes and for the words that the whole package shares."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Image = NDArray[Any]
"""``(X, Y, Z)``, RAS+; any real dtype."""

Label = NDArray[np.uint8]
"""``(X, Y, Z)``: structure id, 0 background, :data:`UNKNOWN_LABEL` where nobody knows."""

Affine = NDArray[np.float64]
"""``(4, 4)``: voxel index to millimetres, RAS+."""

Modality = Literal["CT", "MR"]
"""What the scanner measured."""

Crossing = Literal["unknown", "cut"]
"""What becomes of a joined organ that crosses the midline: its side stays unknown, or it is cut at the midline."""

SplitName = Literal["train", "val", "test"]
"""The side of the split a case is on."""

UNKNOWN_LABEL = 255
"""Label of a voxel about which the annotation says nothing; it becomes a group with an empty row."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Names that users give and that become files."""

OUTSIDE_GROUP = -1
"""Group of padding: voxels outside the image, which count in no term."""
