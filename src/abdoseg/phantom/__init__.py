"""Synthetic abdomens in the native layouts of real sources, with the full truth beside them.

One analytic model of a body (`body`, `torso`, `organs`, `bowel`) is drawn for every source; the sources differ in
field of view, voxels, contrast, noise, orientation, label values and files.

To add a source, write one file like :mod:`abdoseg.phantom.word` (a protocol, the label map, a ``LAYOUT`` with how
to plan, write and finish) and one line in ``LAYOUTS`` of :mod:`abdoseg.phantom.write`. To add a tissue, add a row
to :mod:`abdoseg.phantom.tissues` and paint it. To plant another fault, add a row to the source's ``FAULTS``, and a
function to :mod:`abdoseg.phantom.damage` if none there does it.
"""

from abdoseg.phantom.write import PhantomCase, count_scans, source_names, write_phantoms

__all__ = ["PhantomCase", "count_scans", "source_names", "write_phantoms"]
