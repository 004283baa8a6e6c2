"""Who looked for what, where: annotation groups.

One concept covers partial labels, sparse slices, hybrids, unlabelled scans and ignored regions: every voxel
belongs to a group, and a table says which structures were looked for in that group's voxels. "Absent" (looked
for, not there) and "not annotated" (nobody looked) therefore never share a value.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""View name to the RAS+ axis along which its slices are counted."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """Groups of one case.

    Parameters
    ----------
    rows
        bool ``(G, N)``: which structures are known in each group's voxels (column ``c - 1`` is structure ``c``).
    slices
        For each named axis (0, 1 or 2), the group of every slice along it, int ``(n,)``. Empty: all voxels belong
        to group 0. With several axes a patch uses one of them, drawn with it.
    """

    rows: NDArray[np.bool_]
    slices: Mapping[int, NDArray[np.int32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.dtype != np.bool_ or len(self.rows) == 0:
            msg = f"annotation rows: found {self.rows.dtype} {self.rows.shape}, expected bool (G >= 1, N)"
            raise ValueError(msg)
        for axis, groups in self.slices.items():
            if axis not in (0, 1, 2) or groups.ndim != 1:
                msg = f"annotation slices: found axis {axis} with shape {groups.shape}, expected axis 0..2 and (n,)"
                raise ValueError(msg)
            if len(groups) and not (groups.min() >= 0 and groups.max() < len(self.rows)):
                msg = f"annotation slices of axis {axis}: groups must lie in 0..{len(self.rows) - 1}"
                raise ValueError(msg)

    @classmethod
    def partial(cls, structure_ids: Sequence[int], n_structures: int) -> "Annotation":
        """Return one group in which ``structure_ids`` (1..N) are known; none of them: an unlabelled scan."""
        rows = np.zeros((1, n_structures), dtype=bool)
        rows[0, np.asarray(structure_ids, dtype=int) - 1] = True
        return cls(rows)

    @property
    def n_structures(self) -> int:
        """Number of structures N."""
        return int(self.rows.shape[1])

    @property
    def structure_ids(self) -> tuple[int, ...]:
        """Ids (1..N) annotated in at least one group that has a slice (or in the only group)."""
        return tuple(int(c) for c in np.flatnonzero(self.rows[self._used_groups()].any(axis=0)) + 1)

    def _used_groups(self) -> NDArray[np.int_]:
        if not self.slices:
            return np.array([0])
        return np.unique(np.concatenate([np.asarray(groups, dtype=int) for groups in self.slices.values()]))

    @property
    def has_annotation(self) -> bool:
        """Whether some voxel has an annotated structure."""
        return bool(self.structure_ids)

    def axes(self) -> tuple[int, ...]:
        """Axes that carry a slice list, in order; empty for a case of a single group."""
        return tuple(sorted(self.slices))

    def slice_groups(self, axis: int | None, shape: Sequence[int]) -> tuple[int, NDArray[np.int32]]:
        """Return ``(axis, groups (n,))`` to cut patches with: that axis' list, or a list of zeros."""
        if axis is None or not self.slices:
            return 0, np.zeros(shape[0], dtype=np.int32)
        return axis, np.asarray(self.slices[axis], dtype=np.int32)

    def known_slices(self, axis: int, n_slices: int) -> NDArray[np.bool_]:
        """Return bool ``(n, N)``: the row of every slice along ``axis``; all the same where the case has no list.

        A case with lists, but none along ``axis``, has no row that holds for a whole slice: nothing is known.
        """
        if axis in self.slices:
            return self.rows[self.slices[axis]]
        row = np.zeros(self.n_structures, dtype=bool) if self.slices else self.rows[0]
        return np.repeat(row[None], n_slices, axis=0)

    def group_volume(self, shape: Sequence[int], axis: int | None = None) -> NDArray[np.int32]:
        """Return the group of every voxel, int32 ``(X, Y, Z)``, by the slice list of ``axis`` (default: the first)."""
        if axis is None and self.slices:
            axis = self.axes()[0]
        used_axis, groups = self.slice_groups(axis, shape)
        view = [1, 1, 1]
        view[used_axis] = len(groups)
        return np.broadcast_to(groups.reshape(view), tuple(shape))

    def known_label(self, label: NDArray[np.uint8], axis: int | None = None) -> NDArray[np.uint8]:
        """Return ``label`` with every value that the annotation does not vouch for set to 0.

        What a view hides, nothing may see: sampler, loss and statistics read labels through this.
        """
        group = self.group_volume(label.shape, axis)
        table = np.concatenate([np.zeros((len(self.rows), 1), dtype=bool), self.rows], axis=1)
        value = np.where(label <= self.n_structures, label, 0)
        return np.where(table[group, value], label, 0).astype(np.uint8)

    def can_thin(self, axes: Collection[int]) -> bool:
        """Whether slices along ``axes`` can be hidden: the case has no slice lists, or has them along just these."""
        return not self.slices or set(self.slices) == set(axes)

    def thinned(self, kept: Mapping[int, NDArray[np.bool_]]) -> "Annotation":
        """Return the annotation left when only some slices keep their labels.

        Parameters
        ----------
        kept
            For each axis, bool ``(n,)``: which slices stay annotated; or ``(n, N)``: for which structures.

        Returns
        -------
        Annotation
            Every slice in which something is still known is a group of its own, with what is left of the row it had
            (the dice term is per slice); all others share one group with an empty row.

        Notes
        -----
        Where the case already has a list along an axis, a slice's row is that list's. A list along another
        axis than the new ones cannot be combined with them slice by slice; such a case keeps its own list and is
        left as it is.
        """
        if not self.can_thin(kept):
            return self
        rows = [np.zeros((1, self.n_structures), dtype=bool)]
        slices = {}
        for axis, mask in sorted(kept.items()):
            left = self.known_slices(axis, len(mask)) & mask.reshape(len(mask), -1)
            known = left.any(axis=1)
            slices[axis] = np.zeros(len(mask), dtype=np.int32)
            slices[axis][known] = sum(map(len, rows)) + np.arange(known.sum())
            rows.append(left[known])
        return Annotation(np.concatenate(rows), slices)

    def to_json(self) -> dict[str, Any]:
        """Return the facts for a case's attributes.

        ``rows`` holds the annotated ids of each different row, ``groups`` the row of every group (left out where
        every group has a row of its own) and ``slices`` the group of every slice along each named axis.
        """
        ids = [tuple((np.flatnonzero(row) + 1).tolist()) for row in self.rows]
        different = list(dict.fromkeys(ids))
        facts: dict[str, Any] = {
            "n_structures": self.n_structures,
            "rows": [list(row) for row in different],
            "slices": {str(axis): np.asarray(groups).tolist() for axis, groups in self.slices.items()},
        }
        if len(different) < len(ids):
            facts["groups"] = [different.index(row) for row in ids]
        return facts

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "Annotation":
        """Read what :meth:`to_json` wrote."""
        rows = np.zeros((len(facts["rows"]), facts["n_structures"]), dtype=bool)
        for row, ids in zip(rows, facts["rows"], strict=True):
            row[np.asarray(ids, dtype=int) - 1] = True
        if "groups" in facts:
            rows = rows[np.asarray(facts["groups"], dtype=int)]
        return cls(rows, {int(a): np.asarray(g, dtype=np.int32) for a, g in facts["slices"].items()})
