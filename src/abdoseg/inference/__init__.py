"""One network over a whole scan, in windows.

``settings`` says how, ``windows`` where, ``views`` what is seen again (test-time augmentation), ``stitch`` adds the
scores where they lie, ``sliding`` runs it all, ``restoring`` turns scores into labels on the scan's own grid.
"""

from abdoseg.inference.settings import InferenceSettings, View
from abdoseg.inference.sliding import sliding_window_boxes, sliding_window_logits
from abdoseg.inference.stitch import open_voxels
from abdoseg.inference.views import TEST_TIME_VIEWS
from abdoseg.inference.windows import WindowGrid, windows_of

__all__ = [
    "TEST_TIME_VIEWS",
    "InferenceSettings",
    "View",
    "WindowGrid",
    "open_voxels",
    "sliding_window_boxes",
    "sliding_window_logits",
    "windows_of",
]
