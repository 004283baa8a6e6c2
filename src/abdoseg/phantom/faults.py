"""Plant the faults of a source, and list them so that a test of ingest can be driven by the list."""

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from abdoseg.phantom.layouts import Fault, save_nifti, write_json

LIST_NAME = "faults.json"


def plant(folder: Path, fault: Fault) -> None:
    """Do to the files of a source, all written, what a fault says."""
    for file, damage in fault.changes:
        damage(folder / file)


def refit_truth(truth: Path, image: Path) -> None:
    """Give the truth of a case the geometry that its image states now, so that one can be compared with the other."""
    if not image.is_file():
        return
    affine = np.asarray(nib.load(image).affine)
    held = nib.load(truth)
    if not np.array_equal(affine, held.affine):
        save_nifti(truth, np.asanyarray(held.dataobj), affine)


def list_faults(out: Path, source: str, faults: Sequence[Fault]) -> None:
    """Add a source's faults to ``OUT/faults.json``; files are relative to ``OUT``."""
    path = out / LIST_NAME
    entries = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    entries = [entry for entry in entries if entry["source"] != source]
    for fault in faults:
        entry = {
            "source": source,
            "case": fault.case,
            "files": [f"{source}/{file}" for file, _ in fault.changes],
            "fault": fault.fault,
            "expected": fault.expected,
            "why": fault.why,
        }
        entries.append(entry)
    write_json(path, entries)
