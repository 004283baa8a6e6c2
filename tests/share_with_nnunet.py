"""Let nnU-Net look at a dataset that abdoseg wrote: run by ``nox -s share``, which installs nnU-Net."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from abdoseg.cards import load_card
from abdoseg.phantom import write_phantoms
from abdoseg.steps.export import CaseOptions, export_cases
from abdoseg.steps.ingest import ingest
from abdoseg.store import Settings, Workspace


def main() -> None:
    """Export phantoms of WORD, and end with the status of nnU-Net's own check."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_phantoms(root / "phantoms", sources=("word",), cases=6, spacing_scale=2.5)
        workspace = Workspace.create(root / "workspace", Settings(spacing_mm=4.0))
        ingest(workspace, load_card("word"), root / "phantoms")
        report = export_cases(workspace, ["word"], "nnunet", root / "nnUNet_raw", CaseOptions(folds=2))
        sys.stdout.write("\n".join((f"{report.written} cases in {report.folder.name}", *report.notes, "")))
        sys.stdout.flush()
        folders = {f"nnUNet_{part}": str(root / f"nnUNet_{part}") for part in ("raw", "preprocessed", "results")}
        check = ("--verify_dataset_integrity", "-c", "3d_fullres", "-np", "1", "-npfp", "1")
        command = [str(Path(sys.executable).parent / "nnUNetv2_plan_and_preprocess"), "-d", "501", *check]
        subprocess.run(command, env={**os.environ, **folders}, check=True)


if __name__ == "__main__":
    main()
