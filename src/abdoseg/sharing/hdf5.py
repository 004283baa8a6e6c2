"""Cases as HDF5: one file a case with image, label, group, annotated, affine and facts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from abdoseg.files import whole_files, write_text
from abdoseg.sharing.groups import known_label, voxel_groups
from abdoseg.sharing.parts import CaseFormat, CasePlan, Record, SharedCase
from abdoseg.sharing.summary import summary_text

LAYOUT_VERSION = 1
"""Of the file's layout; raised when a reader of the old one would misread."""


def write(shared: SharedCase, plan: CasePlan, into: Path) -> tuple[tuple[Path, ...], Record]:
    """Write one case to ``<id>.h5``."""
    path = into / f"{shared.id}.h5"
    with whole_files(path) as (draft,):
        try:
            with h5py.File(draft, "w") as file:
                _fill(file, shared, plan)
        except RuntimeError as error:  # what HDF5 says of a full disk when it closes a file
            raise OSError(str(error)) from error
    return (path,), {}


def _fill(file: Any, shared: SharedCase, plan: CasePlan) -> None:
    case, facts = shared.case, shared.case.facts
    group, rows = voxel_groups(shared.annotation, case.label)
    small = group.astype(np.min_scalar_type(max(len(rows) - 1, 0)))
    # As stored: int16 and a scale take half the space of float32, and lose nothing.
    image = _array(file, "image", case.image)
    image.attrs.update({"scale": facts.scale, "offset": facts.offset, "window": facts.window})
    _array(file, "label", known_label(case.label, group, rows))
    _array(file, "group", small)
    file["annotated"] = rows
    file["affine"] = facts.affine_array
    file.attrs.update(
        {
            "abdoseg_h5": LAYOUT_VERSION,
            "case": facts.case,
            "source": facts.source,
            "modality": facts.modality,
            "patient": facts.patient,
            "side": shared.side,
            "structures": list(plan.anatomy.names),
            "native_shape": facts.native_shape,
            "native_affine": np.asarray(facts.native_affine, dtype=np.float64),
        }
    )


def _array(file: Any, name: str, data: Any) -> Any:
    chunks = tuple(min(64, n) for n in data.shape)
    return file.create_dataset(name, data=data, chunks=chunks, compression="gzip", compression_opts=1, shuffle=True)


def finish(plan: CasePlan, records: Mapping[str, Record], into: Path) -> list[str]:
    """Write ``abdoseg.json``."""
    write_text(into / "abdoseg.json", summary_text(plan, records))
    return []


FORMAT = CaseFormat("HDF5 files", write, finish)
