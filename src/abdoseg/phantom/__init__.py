"""Synthetic abdomens in the native layouts of real sources, with the full truth beside them.

One analytic model of a body (`body`, `torso`, `organs`, `bowel`) is drawn for every source; the sources differ in
field of view, voxels, contrast, noise, orientation, label values and files.

To add a source, write one file like :mod:`abdoseg.phantom.word` (a protocol, the label map, a ``LAYOUT`` with how
to plan, write and finish) and one line in ``LAYOUTS`` of :mod:`abdoseg.phantom.write`. To add a tissue, add a row
to :mod:`abdoseg.phantom.tissues` and paint it.
"""

from abdoseg.phantom.write import PhantomCase, write_phantoms

__all__ = ["PhantomCase", "write_phantoms"]
