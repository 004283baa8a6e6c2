"""The bundle's ``inference.json``: `abdoseg predict` in MONAI's transforms."""

from typing import TYPE_CHECKING, Any

from abdoseg.harmonise import MR_LEVELS, ct_levels

if TYPE_CHECKING:
    from abdoseg.model import SegmentationModel

_EVERY = "$[{'image': f} for f in sorted(glob.glob(os.path.join(@dataset_dir, @pattern)))]"


# MONAI keeps a scan's first voxel where it is only if its directions are orthonormal to 1e-8, and else aligns centres;
# an oblique affine in float32 is not. The nearest orthonormal directions are taken, as abdoseg's readers do.
_ORTHONORMAL = (
    "$lambda x: setattr(x, 'affine', (lambda a, n: (lambda u, s, v: torch.cat([torch.cat([torch.matmul(u, v) * n, "
    "a[:3, 3:]], 1), a[3:]]))(*torch.linalg.svd(a[:3, :3] / n)))"
    "(x.affine.double(), x.affine[:3, :3].double().norm(dim=0))) or x"
)


def inference_config(model: "SegmentationModel") -> dict[str, Any]:
    """Return the configuration, ready for JSON.

    The order is that of :func:`abdoseg.harmonise.harmonise_image`: the percentiles of an MR scan are those of its own
    voxels, interpolation comes before clipping, and what is left is rounded to the steps that the network has learnt
    from.
    """
    low, high = model.windows.ct_hu
    first, last = model.windows.mr_percentiles
    levels = ct_levels((low, high))
    to_unit_mr = (
        f"lambda x: (lambda w: (x - float(w[0])) / float(w[1] - w[0]))"
        f"(np.percentile(np.asarray(x[x > 0], dtype=np.float64), [{first}, {last}]))"
    )
    ct = f"lambda x: torch.round((x.clamp({low}, {high}) - {low}) * {levels / (high - low)!r}) / {levels}"
    mr = f"lambda x: torch.round(x.clamp(0.0, 1.0) * {MR_LEVELS}) / {MR_LEVELS}"
    return {
        "imports": ["$import glob", "$import os", "$import numpy as np", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/scans'",
        "output_dir": "$@bundle_root + '/labels'",
        "pattern": "*.nii.gz",
        "modality": "CT",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "datalist": _EVERY,
        "network_def": "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device)",
        "network": "$@network_def.to(@device)",
        "orthonormal": _ORTHONORMAL,
        "before_resampling": f"$({to_unit_mr}) if @modality == 'MR' else (lambda x: x)",
        "after_resampling": f"$({mr}) if @modality == 'MR' else ({ct})",
        "preprocessing": _preprocessing(model),
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(model.patch_shape),
            "sw_batch_size": 1,
            "overlap": 0.5,
            "mode": "gaussian",
            "padding_mode": "constant",
        },
        "postprocessing": _postprocessing(),
        "handlers": [],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
            "amp": False,
        },
        "run": ["$@evaluator.run()"],
    }


def _compose(*transforms: dict[str, Any]) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": list(transforms)}


def _preprocessing(model: "SegmentationModel") -> dict[str, Any]:
    return _compose(
        {"_target_": "LoadImaged", "keys": "image", "dtype": "$np.float32"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Lambdad", "keys": "image", "func": "@orthonormal"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
        {"_target_": "Lambdad", "keys": "image", "func": "@before_resampling"},
        {
            "_target_": "Spacingd",
            "keys": "image",
            "pixdim": [model.spacing_mm] * 3,
            "mode": "bilinear",
            "padding_mode": "border",
        },
        {"_target_": "Lambdad", "keys": "image", "func": "@after_resampling"},
        {"_target_": "CastToTyped", "keys": "image", "dtype": "$torch.float32"},
    )


def _postprocessing() -> dict[str, Any]:
    return _compose(
        {
            "_target_": "Invertd",
            "keys": "pred",
            "transform": "@preprocessing",
            "orig_keys": "image",
            "nearest_interp": False,
            "to_tensor": True,
        },
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {
            "_target_": "SaveImaged",
            "keys": "pred",
            "output_dir": "@output_dir",
            "output_postfix": "",
            "separate_folder": False,
            "resample": False,
            "output_dtype": "$np.uint8",
        },
    )
