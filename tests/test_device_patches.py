"""The same patches by PyTorch on a device, and within its memory. Here the device is the CPU."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from abdoseg.augmentation.affine import NO_AFFINE
from abdoseg.augmentation.apply import apply_intensity
from abdoseg.augmentation.flip import FlipSettings
from abdoseg.augmentation.intensity import IntensitySettings
from abdoseg.device_patches import DevicePatches, cut_on_device
from abdoseg.kernels.patch import cut_patch
from abdoseg.patches import PatchSettings, PatchStream, collate

from .augmentation.test_cut_patch import SHAPE as VOLUME_SHAPE
from .augmentation.test_cut_patch import WINDOW, cuts, reference, volume
from .test_patches import PATCH, SHAPE, workplace

CPU = torch.device("cpu")
GPU_IF_ANY = [CPU, *([torch.device("cuda")] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", GPU_IF_ANY)
@given(cut=cuts(), axis=st.integers(0, 2), seed=st.integers(0, 100), background=st.booleans())
def test_one_cut_is_the_kernels(device, cut, axis, seed, background):
    image, label = volume(seed=seed)
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 5, VOLUME_SHAPE[axis]).astype(np.int32)
    known = np.zeros((6, 256), dtype=bool)
    known[:5, 1:4] = rng.random((5, 3)) < 0.6
    expected = cut_patch(image, label, (axis, groups), known, cut, WINDOW, padding_is_background=background)
    sent = [torch.from_numpy(array).to(device) for array in (image, label, groups, known)]
    found = cut_on_device(*(sent[0], sent[1], (axis, sent[2]), sent[3], cut, WINDOW), padding_is_background=background)
    assert [each.dtype for each in found] == [torch.float32, torch.uint8, torch.int16]
    *_, tie = reference(image, label, (axis, groups), known, cut)
    for name in ("label", "group"):
        assert np.array_equal(getattr(found, name).cpu().numpy()[~tie], getattr(expected, name)[~tie])
    np.testing.assert_allclose(found.image.cpu().numpy()[~tie], expected.image[~tie], atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 7, 7), (7, 1, 7), (7, 7, 1), (1, 1, 1)])
def test_volumes_one_voxel_thick(shape):
    from abdoseg.kernels.patch import Cut

    image, label = volume(shape, values=(1, 2))
    known = np.zeros((2, 256), dtype=bool)
    known[0, 1:3] = True
    groups = np.zeros(shape[0], np.int32)
    cut = Cut(np.array([n // 2 for n in shape], float), np.linalg.qr(np.arange(9.0).reshape(3, 3) ** 2)[0], (9, 9, 9))
    expected = cut_patch(image, label, (0, groups), known, cut, WINDOW)
    tensors = [torch.from_numpy(array) for array in (image, label, groups, known)]
    found = cut_on_device(tensors[0], tensors[1], (0, tensors[2]), tensors[3], cut, WINDOW)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), b, atol=1e-5)


SETTINGS = {
    "plain": PatchSettings(PATCH, NO_AFFINE, seed=3),
    "turned": PatchSettings(PATCH, seed=3),
    "flipped": PatchSettings(PATCH, seed=3, flip=FlipSettings((0.5, 0.5, 0.5), (2, 1, 3, 4))),
    "padding is background": PatchSettings(PATCH, seed=3, padding="background"),
    "intensity": PatchSettings(PATCH, seed=3, intensity=IntensitySettings(noise_probability=1, gamma_probability=1)),
}


@pytest.mark.parametrize("n_cases", [0, 2, 20])
@pytest.mark.parametrize("name", SETTINGS)
def test_batches_are_those_of_the_stream(name, n_cases):
    stream = PatchStream(*workplace(), SETTINGS[name])
    size = 3 * int(np.prod(SHAPE))
    patches = DevicePatches(stream, CPU, int(n_cases * size))
    for first in range(0, 40, 4):
        found = patches.batch(range(first, first + 4))
        expected = collate([stream.example(t) for t in range(first, first + 4)])
        assert found.cases == expected.cases
        assert found.structures == expected.structures
        assert np.array_equal(found.annotated.numpy(), expected.annotated)
        for field in ("label", "group"):
            assert np.array_equal(getattr(found, field).numpy(), getattr(expected, field))
        image = torch.from_numpy(expected.image)
        image = apply_intensity(image, expected.intensity, torch.from_numpy(expected.group) >= 0)
        np.testing.assert_allclose(found.image.numpy(), image.numpy(), atol=1e-5)
    assert len(patches) == min(n_cases, 5)
    assert patches.used == len(patches) * size
    assert str(patches).startswith(f"{len(patches)} cases on cpu, ")


def test_threads_obey_the_budget():
    stream = PatchStream(*workplace(), SETTINGS["turned"])
    size = 3 * int(np.prod(SHAPE))
    patches = DevicePatches(stream, CPU, 3 * size + 1)

    def cut(t):
        found = patches.batch([t])
        return patches.used, found.label.numpy().tobytes()

    with ThreadPoolExecutor(4) as pool:
        used, labels = zip(*pool.map(cut, range(40)), strict=True)
    assert max(used) == 3 * size
    assert list(labels) == [stream.example(t).label.tobytes() for t in range(40)]


def test_a_device_without_room_is_no_error(monkeypatch):
    """A budget may be larger than the device: what does not fit is cut on the CPU, as beyond any budget."""
    stream = PatchStream(*workplace(), PatchSettings(shape=PATCH, affine=NO_AFFINE))
    patches = DevicePatches(stream, CPU, 10**12)
    expected = [patches.batch([t]) for t in range(3)]
    full = DevicePatches(stream, CPU, 10**12)
    genuine = torch.Tensor.to

    def to(tensor, *others, **options):
        if tensor.dtype == torch.int16 and tensor.ndim == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return genuine(tensor, *others, **options)

    with monkeypatch.context() as patch:
        patch.setattr(full, "_volumes_of", lambda recipe: None)
        by_cpu = [full.batch([t]) for t in range(3)]
        patch.undo()
        patch.setattr(torch.Tensor, "to", to)
        found = full._volumes_of(stream.recipe(0))
    assert found is None
    assert full.budget == full.used == len(full) == 0
    for a, b, c in zip(expected, by_cpu, (full.batch([t]) for t in range(3)), strict=True):
        torch.testing.assert_close(b.image, a.image, atol=1e-5, rtol=0)
        assert torch.equal(c.label, a.label)
    assert len(full) == 0
