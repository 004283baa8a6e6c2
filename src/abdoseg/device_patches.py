"""Patches cut where the network is: volumes stay on the device, within a budget, and no voxel crosses the bus twice.

The same examples as :class:`abdoseg.patches.PatchStream` cuts on the CPU; a case that does not fit the budget is cut
there and sent over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from abdoseg.augmentation.apply import apply_intensity
from abdoseg.augmentation.flip import mirrored_id
from abdoseg.kernels.patch import Cut
from abdoseg.patches import PatchStream, Recipe
from abdoseg.types import OUTSIDE_GROUP, UNKNOWN_LABEL


@dataclass(frozen=True, eq=False)
class DeviceBatch:
    """Several examples on the device; fields as :class:`abdoseg.patches.Batch` has them.

    Changes of intensity are applied.
    """

    image: Tensor
    label: Tensor
    group: Tensor
    annotated: Tensor
    cases: tuple[str, ...]
    structures: tuple[int | None, ...]


class DeviceCut(NamedTuple):
    """What :func:`cut_on_device` returns; see :class:`abdoseg.kernels.patch.CutPatch`."""

    image: Tensor
    label: Tensor
    group: Tensor


class _Example(NamedTuple):
    """One example on the device; ``annotated`` has the rows of the groups that occur."""

    image: Tensor
    label: Tensor
    group: Tensor
    annotated: Tensor
    recipe: Recipe

    def shown(self, partners: Sequence[int]) -> int | None:
        """Return :attr:`abdoseg.patches.Patch.shown`."""
        return mirrored_id(self.recipe.structure, partners) if self.recipe.mirrored else self.recipe.structure


class DevicePatches:
    """A stream's patches, cut on a device.

    Parameters
    ----------
    stream
        What is drawn.
    device
        Where volumes stay and patches are cut.
    budget
        Bytes of volumes never exceeded; what came first stays. Lowered to what is there when the device is full.

    Attributes
    ----------
    used
        Bytes of volumes on the device.
    """

    def __init__(self, stream: PatchStream, device: torch.device, budget: int) -> None:
        self.stream, self.device, self.budget = stream, device, budget
        self.used = 0
        self._volumes: dict[str, tuple[Tensor, Tensor]] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        """Return the number of cases on the device."""
        return len(self._volumes)

    def __str__(self) -> str:
        of = f"{self.used / 2**20:.0f} of {self.budget / 2**20:.0f} MiB"
        return f"{len(self)} cases on {self.device}, {of}"

    def batch(self, numbers: Sequence[int]) -> DeviceBatch:
        """Return examples ``numbers``, stacked; the same as collating them from the stream."""
        examples = [self._example(t) for t in numbers]
        image = torch.stack([each.image for each in examples])
        label = torch.stack([each.label for each in examples])
        group = torch.stack([each.group for each in examples])
        drawn = [each.recipe.intensity for each in examples]
        image = apply_intensity(image[:, None], [each for each in drawn if each is not None], group >= 0)
        n_groups = max(len(each.annotated) for each in examples)
        annotated = image.new_zeros((len(examples), n_groups, examples[0].annotated.shape[1]), dtype=torch.bool)
        for row, each in zip(annotated, examples, strict=True):
            row[: len(each.annotated)] = each.annotated
        cases = tuple(each.recipe.facts.key for each in examples)
        partners = self.stream.settings.flip.partners
        return DeviceBatch(image, label, group, annotated, cases, tuple(each.shown(partners) for each in examples))

    def _example(self, t: int) -> _Example:
        recipe = self.stream.recipe(t)
        volumes = self._volumes_of(recipe)
        if volumes is None:
            patch = self.stream.patch(recipe)
            arrays = (patch.image[0], patch.label, patch.group, patch.annotated)
            image, label, group, annotated = (torch.from_numpy(array).to(self.device) for array in arrays)
            return _Example(image, label, group, annotated, recipe)
        known = torch.from_numpy(recipe.known).to(self.device)
        axis, groups = recipe.slices
        cut = cut_on_device(
            *volumes,
            (axis, torch.from_numpy(groups).to(self.device)),
            known,
            recipe.cut,
            recipe.window,
            padding_is_background=self.stream.settings.padding == "background",
        )
        return self._renumbered(cut, recipe)

    def _volumes_of(self, recipe: Recipe) -> tuple[Tensor, Tensor] | None:
        """Return image and label on the device; ``None`` if they are not there and do not fit."""
        key, case = recipe.facts.key, recipe.case
        size = int(np.prod(case.image.shape)) * (case.image.dtype.itemsize + case.label.dtype.itemsize)
        with self._lock:  # others wait for the bus
            if key not in self._volumes and self.used + size <= self.budget:
                image, label = (torch.from_numpy(np.ascontiguousarray(a[...])) for a in (case.image, case.label))
                try:
                    self._volumes[key] = image.to(self.device), label.to(self.device)
                    self.used += size
                except torch.OutOfMemoryError:
                    self.budget = self.used  # more than there is room for: those that are there stay
            return self._volumes.get(key)

    def _renumbered(self, cut: DeviceCut, recipe: Recipe) -> _Example:
        """Give the groups that occur the numbers 0, 1, ..., and a mirrored patch its names, as the stream does."""
        image, label, group = cut
        rows = torch.from_numpy(recipe.rows).to(self.device)
        places = group.reshape(-1).int() + 1
        used = torch.bincount(places, minlength=len(rows) + 1)[1:].nonzero()[:, 0]
        if len(used) == 0:
            used = used.new_tensor([len(rows) - 1])
        table = torch.full((len(rows) + 1,), OUTSIDE_GROUP, dtype=torch.int16, device=self.device)
        table[used + 1] = torch.arange(len(used), dtype=torch.int16, device=self.device)
        group, rows = table[places].reshape(group.shape), rows[used]
        if recipe.mirrored:
            partners = torch.tensor(self.stream.settings.flip.partners, device=self.device)
            names = torch.arange(256, device=self.device)
            names[1 : len(partners) + 1] = partners
            label, rows = names.to(torch.uint8)[label.int()], rows[:, partners - 1]
        return _Example(image, label, group, rows, recipe)


def cut_on_device(
    image: Tensor,
    label: Tensor,
    slices: tuple[int, Tensor],
    known: Tensor,
    cut: Cut,
    window: tuple[float, float],
    *,
    padding_is_background: bool = False,
) -> DeviceCut:
    """Cut one patch out of a volume on any device.

    Parameters
    ----------
    image, label, slices, known, cut, window, padding_is_background
        As :func:`abdoseg.kernels.patch.cut_patch` has them; arrays are tensors of one device.

    Returns
    -------
    DeviceCut
        The image is that of ``cut_patch`` to rounding errors, label and group are the same but where a position is
        midway between two voxels (on devices without float64: closer to it than single precision tells).
    """
    shape = image.shape
    places = _positions(cut, image.device)
    limits = [float(n) for n in shape]
    inside = torch.ones(cut.shape, dtype=torch.bool, device=image.device)
    for place, n in zip(places, limits, strict=True):
        inside &= (place >= -0.5) & (place <= n - 0.5)
    places = [place.clamp(0, n - 1) for place, n in zip(places, limits, strict=True)]
    # The lower of two neighbours is at most the last voxel but one; where an axis has one voxel, both are it.
    lower = [place.long().clamp(max=max(n - 2, 0)) for place, n in zip(places, shape, strict=True)]
    weight = [place - low for place, low in zip(places, lower, strict=True)]
    nearest = [low + (w >= 0.5) for low, w in zip(lower, weight, strict=True)]
    value = label.reshape(-1)[_flat(nearest, shape)]
    axis, groups = slices
    group = groups[nearest[axis]]
    beyond = group if padding_is_background else torch.full_like(group, OUTSIDE_GROUP)
    group = torch.where(value == UNKNOWN_LABEL, len(known) - 1, group)
    seen = known[group.long(), value.long()]
    scaled = _trilinear(image, lower, [w.float() for w in weight]) * window[0] + window[1]
    return DeviceCut(
        torch.where(inside, scaled, 0.0),
        torch.where(inside & seen, value, 0).to(torch.uint8),
        torch.where(inside, group, beyond).to(torch.int16),
    )


def _positions(cut: Cut, device: torch.device) -> list[Tensor]:
    """Return the volume's coordinates of every voxel of a patch, its terms added in the kernel's order."""
    dtype = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have nothing better
    matrix, centre = np.asarray(cut.matrix), np.asarray(cut.centre)
    a, b, c = (torch.arange(n, device=device, dtype=dtype) for n in cut.shape)
    a, b = (a - cut.shape[0] // 2)[:, None, None], (b - cut.shape[1] // 2)[None, :, None]
    first = float(-(cut.shape[2] // 2))
    return [
        float(middle) + (float(row[0]) * a + float(row[1]) * b + float(row[2]) * first) + c * float(row[2])
        for middle, row in zip(centre, matrix, strict=True)
    ]


def _flat(voxel: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Return C-order indices."""
    x, y, z = voxel
    return (x * shape[1] + y) * shape[2] + z


def _trilinear(image: Tensor, lower: Sequence[Tensor], weight: Sequence[Tensor]) -> Tensor:
    """Interpolate ``image`` between the voxels ``lower`` and those one further along each axis."""
    shape = image.shape
    flat = image.reshape(-1)
    upper = [(low + 1).clamp(max=n - 1) for low, n in zip(lower, shape, strict=True)]
    x, y, z = weight

    def along_z(i: Tensor, j: Tensor) -> Tensor:
        near, far = (flat[_flat((i, j, k), shape)].float() for k in (lower[2], upper[2]))
        return near + z * (far - near)

    def along_y(i: Tensor) -> Tensor:
        near, far = (along_z(i, j) for j in (lower[1], upper[1]))
        return near + y * (far - near)

    near, far = along_y(lower[0]), along_y(upper[0])
    return near + x * (far - near)
