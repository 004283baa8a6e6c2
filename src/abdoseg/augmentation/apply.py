"""Apply drawn changes of intensity to a batch, on whatever device it is."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from abdoseg.augmentation.intensity import IntensityParameters


def apply_intensity(image: Tensor, parameters: Sequence[IntensityParameters], inside: Tensor | None = None) -> Tensor:
    """Return a batch with its intensities changed.

    Parameters
    ----------
    image
        float32 ``(B, 1, X, Y, Z)`` in [0, 1]; it is not changed.
    parameters
        One an example; none: the batch is returned as it is.
    inside
        bool ``(B, X, Y, Z)``: voxels of the scan (``group >= 0``). All others stay 0. ``None``: all are.

    Returns
    -------
    Tensor
        As ``image``; in [0, 1].

    Raises
    ------
    ValueError
        If there is not one set of parameters an example.

    Notes
    -----
    The field of noise depends on the parameters and on the kind of device, whose generator makes it.
    """
    if not parameters:
        return image
    if len(parameters) != len(image):
        msg = f"apply_intensity: found {len(parameters)} sets of parameters for {len(image)} examples"
        raise ValueError(msg)
    changed = [_one(volume[None], each) for volume, each in zip(image, parameters, strict=True)]
    out = torch.cat(changed)
    return out if inside is None else out * inside[:, None]


def _one(volume: Tensor, parameters: IntensityParameters) -> Tensor:
    """Return one example ``(1, 1, X, Y, Z)``, changed in nnU-Net's order."""
    if parameters == IntensityParameters(noise_seed=parameters.noise_seed):
        return volume
    if parameters.noise_std > 0:
        volume = volume + parameters.noise_std * _noise(volume, parameters.noise_seed)
    if parameters.blur_sigma > 0:
        volume = _blurred(volume, parameters.blur_sigma)
    volume = volume * parameters.scale + parameters.shift
    if parameters.zoom < 1:
        volume = _low_resolution(volume, parameters.zoom)
    return volume.clamp(0, 1) ** parameters.gamma


def _noise(volume: Tensor, seed: int) -> Tensor:
    generator = torch.Generator(volume.device).manual_seed(seed)
    return torch.randn(volume.shape, generator=generator, device=volume.device, dtype=volume.dtype)


def _blurred(volume: Tensor, sigma: float) -> Tensor:
    from monai.networks.layers import GaussianFilter

    blurred: Tensor = GaussianFilter(spatial_dims=3, sigma=sigma).to(volume)(volume)
    return blurred


def _low_resolution(volume: Tensor, zoom: float) -> Tensor:
    shape = volume.shape[2:]
    smaller = [max(1, round(n * zoom)) for n in shape]
    return interpolate(interpolate(volume, smaller, mode="nearest-exact"), shape, mode="trilinear")
