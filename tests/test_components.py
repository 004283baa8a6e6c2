"""Components against SciPy, whatever the strides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from abdoseg.components import Components

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7))
layouts = st.tuples(st.permutations(range(3)), st.tuples(*[st.sampled_from([1, -1])] * 3))


def laid_out(mask, layout):
    """Return an equal array whose axes lie in memory in another order, some of them backwards."""
    axes, steps = layout
    stored = mask[tuple(slice(None, None, step) for step in steps)].transpose(axes).copy()
    view = stored.transpose(np.argsort(axes))[tuple(slice(None, None, step) for step in steps)]
    np.testing.assert_array_equal(view, mask)
    return view


def numbers_of(components, like):
    out = np.zeros_like(like, dtype=np.int64)
    components.write(components.runs, np.arange(1, len(components.voxels) + 1), out)
    return out


@given(masks, layouts)
def test_components_are_scipys(mask, layout):
    view = laid_out(mask, layout)
    found = numbers_of(Components.of(view), view)
    expected, n = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    np.testing.assert_array_equal(found > 0, mask)
    assert len({(a, b) for a, b in zip(expected[mask], found[mask], strict=True)}) == n == found.max(initial=0)


@pytest.mark.parametrize("density", [0.05, 0.2, 0.5, 0.95])
def test_larger_masks(density):
    mask = np.random.default_rng(3).random((40, 37, 41)) < density
    components = Components.of(mask)
    expected, n = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    np.testing.assert_array_equal(numbers_of(components, mask), expected)
    np.testing.assert_array_equal(components.voxels, np.bincount(expected.reshape(-1))[1:])
    np.testing.assert_allclose(components.centroids, ndimage.center_of_mass(mask, expected, range(1, n + 1)))


@given(masks, layouts, st.integers(0, 2), st.floats(-1, 8))
def test_what_lies_beyond_a_plane(mask, layout, axis, index):
    view = laid_out(mask, layout)
    components = Components.of(view)
    numbers = numbers_of(components, view)
    beyond = components.beyond(axis, index)
    there = mask & (np.arange(mask.shape[axis]) > index).reshape([-1 if a == axis else 1 for a in range(3)])
    out = np.zeros(mask.shape, dtype=np.uint8)
    components.write(beyond, np.ones(len(components.voxels), dtype=np.uint8), out)
    np.testing.assert_array_equal(out > 0, there)
    counts = np.bincount(numbers[there], minlength=numbers.max(initial=0) + 1)[1:]
    np.testing.assert_array_equal(components.voxels_of(beyond), counts)


@given(masks, layouts)
def test_sizes_and_centroids_whatever_the_strides(mask, layout):
    view = laid_out(mask, layout)
    components = Components.of(view)
    numbers = numbers_of(components, view)
    for i, (size, centroid) in enumerate(zip(components.voxels, components.centroids, strict=True), start=1):
        at = np.argwhere(numbers == i)
        assert size == len(at)
        np.testing.assert_allclose(centroid, at.mean(axis=0))


def test_an_empty_mask_has_none():
    components = Components.of(np.zeros((4, 5, 6), dtype=bool))
    assert len(components.voxels) == 0
    assert components.centroids.shape == (0, 3)
