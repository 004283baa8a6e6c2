"""What a view leaves of a stored case's annotation."""

import numpy as np

from abdoseg.annotation import Annotation
from abdoseg.case import CaseFacts
from abdoseg.geometry import Grid
from abdoseg.store.index import CaseBrief
from abdoseg.store.workspace import Workspace
from abdoseg.views import Occupied, View


def shown_annotation(workspace: Workspace, case: CaseFacts | CaseBrief, view: View | None) -> Annotation:
    """Return a case's annotation as ``view`` shows it; ``None`` is the full view.

    Raises
    ------
    WorkspaceError
        If the case is gone and the view needs more of it than ``case`` says.
    """
    if view is None or not view.applies_to(case.source):
        return case.groups
    occupied = occupied_slices(workspace, case) if view.per_structure else {}
    grids = _grids(workspace, case) if view.native else None
    return view.apply(case.groups, case.key, case.shape, occupied, grids)


def occupied_slices(workspace: Workspace, case: CaseFacts | CaseBrief) -> Occupied:
    """Return, by structure id, the slices along X, Y and Z that hold the structure.

    Where the case was stored without them (:func:`lacks_occupied`) its labelled voxels are read.
    """
    if lacks_occupied(case):
        return workspace.read_foreground(case.key).occupied(case.shape)
    if isinstance(case, CaseBrief):
        return case.occupied()
    return {workspace.anatomy.id_of(name): runs for name, runs in case.occupied.items()}


def lacks_occupied(case: CaseFacts | CaseBrief) -> bool:
    """Whether a case was stored by an older version, which did not note the slices that hold its structures."""
    if isinstance(case, CaseBrief):
        return not case.tells_slices
    return bool(case.voxels) and not case.occupied


def _grids(workspace: Workspace, case: CaseFacts | CaseBrief) -> tuple[Grid, Grid]:
    """Return the grid of a case's file and the harmonised one; an index does not hold them."""
    facts = workspace.read_facts(case.key) if isinstance(case, CaseBrief) else case
    native = Grid(facts.native_shape, np.asarray(facts.native_affine, dtype=np.float64))
    return native, Grid(facts.shape, facts.affine_array)
