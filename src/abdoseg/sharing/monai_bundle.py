"""A run as a MONAI bundle that predicts by MONAI's own programs, without abdoseg.

The network is TorchScript: MONAI's evaluator puts networks into evaluation mode, which a program of ``torch.export``
does not let itself be put into.
"""

import json
import secrets
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from abdoseg.errors import WorkspaceError
from abdoseg.places import reason_of
from abdoseg.sharing.agreement import require_agreement
from abdoseg.sharing.bundle_config import inference_config
from abdoseg.sharing.facts import network_facts
from abdoseg.sharing.parts import RunFormat, RunReport, SharedRun

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"

_LICENCE = """The weights in models/ were learnt from the data sets that docs/README.md lists, each with its licence.
Whether weights inherit the terms of the data they learnt from is for whoever shares them to check: put the licence
that you give them here.

abdoseg, which wrote the configuration, is under the Apache License 2.0.
"""


def files(out: Path) -> tuple[Path, ...]:
    """Return what an export writes: the bundle's folder."""
    return (out,)


def write(run: SharedRun, out: Path) -> RunReport:
    """Write the bundle to the folder ``out``, whole or not at all; an older one is replaced.

    Raises
    ------
    RunError
        If the written network's scores are not the run's.
    WorkspaceError
        If it cannot be written.
    """
    with _whole_folder(out) as draft:
        for name in ("configs", "models", "docs"):
            (draft / name).mkdir()
        difference = _write_network(run, draft / "models" / "model.ts")
        metadata, inference = metadata_of(run, out.name), inference_config(run.model)
        _write_json(draft / "configs" / "metadata.json", metadata)
        _write_json(draft / "configs" / "inference.json", inference)
        (draft / "docs" / "README.md").write_text(_readme(run), encoding="utf-8")
        (draft / "LICENSE").write_text(_LICENCE, encoding="utf-8")
    return RunReport((out,), difference)


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    draft = out.with_name(f".{secrets.token_hex(4)}.{out.name}")
    old = draft.with_name(draft.name + ".old")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        yield draft
        if out.exists():
            out.rename(old)
        draft.rename(out)
    except WorkspaceError:
        raise
    except OSError as error:
        if old.exists() and not out.exists():
            old.rename(out)
        raise WorkspaceError(
            f"{out}: cannot be written ({reason_of(error)}); check space and permissions, or write elsewhere"
        ) from error
    finally:
        for folder in (draft, old):
            with suppress(OSError):
                shutil.rmtree(folder)


def _write_network(run: SharedRun, path: Path) -> float:
    network = run.model.network
    example = torch.zeros(1, 1, *run.model.patch_shape)
    with warnings.catch_warnings(), torch.no_grad():
        # Deprecated in favour of torch.export, see above; and it warns of sizes that become constants, as they may.
        warnings.simplefilter("ignore")
        traced: Any = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
        try:
            torch.jit.save(traced, str(path))
        except RuntimeError as error:  # how it tells of a full disk
            raise OSError(str(error).splitlines()[0]) from error
        loaded: Any = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

        def scores(image: Tensor) -> Tensor:
            found: Tensor = loaded(image)
            return found

        return require_agreement(network, scores, run.model.patch_shape, "the bundle's network")


def metadata_of(run: SharedRun, name: str) -> dict[str, Any]:
    """Return ``metadata.json`` as MONAI's schema asks for it."""
    model = run.model
    classes = ("background", *model.anatomy.names)
    shape = list(model.patch_shape)
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"run {model.name}, {run.card['steps']} steps"},
        "monai_version": version("monai"),
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"nibabel": version("nibabel"), "pytorch-ignite": "0.5.1"},
        "name": name,
        "task": "Segmentation of abdominal structures in CT and MR",
        "description": (
            f"{len(model.anatomy)} structures by {run.card['network']}, method {run.card['method']}, "
            f"written by abdoseg {run.card['abdoseg']}"
        ),
        "authors": "see docs/README.md",
        "copyright": "see LICENSE",
        "data_source": ", ".join(source["title"] for source in run.card["sources"].values()) or "see docs/README.md",
        "data_type": "nifti",
        "image_classes": "one channel, CT or MR",
        "label_classes": "single channel, values as in channel_def",
        "pred_classes": f"{len(classes)} channels of scores",
        "intended_use": run.card["intended_use"],
        "references": ["Chen et al. 2024, Versatile Medical Image Segmentation Learned from Multi-Source Datasets"],
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "hounsfield",
                    "modality": "CT, MR",
                    "num_channels": 1,
                    "spatial_shape": shape,
                    "dtype": "float32",
                    "value_range": [0, 1],
                    "is_patch_data": True,
                    "channel_def": {"0": "image"},
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": len(classes),
                    "spatial_shape": shape,
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": True,
                    "channel_def": {str(i): one for i, one in enumerate(classes)},
                }
            },
        },
        "abdoseg": network_facts(run),
    }


def _readme(run: SharedRun) -> str:
    return f"""{run.page}
## Use

In the bundle's folder, with MONAI, nibabel, pytorch-ignite and fire installed (abdoseg is not needed):

    python -m monai.bundle run --config_file configs/inference.json --meta_file configs/metadata.json \\
        --dataset_dir /path/to/scans --output_dir /path/to/labels --modality CT

All `*.nii.gz` of the folder are segmented, each on its own grid; `--pattern "*.nii"` for others, `--modality MR` for
MR. The network takes windows of one fixed size, one at a time, so keep `roi_size` and `sw_batch_size`.

Labels equal those of `abdoseg predict` but for voxels where two classes have nearly the same score. Unlike it, MONAI
brings the scores of all classes to the scan's own grid before it takes the best: 4 bytes x {1 + len(run.model.anatomy)}
classes x voxels, 3.6 GB for 17 classes at 512 x 512 x 200.
"""


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=4) + "\n", encoding="utf-8")


FORMAT = RunFormat("MONAI bundle", write, files)
