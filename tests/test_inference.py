"""Sliding windows: nothing is lost, nothing shows a seam, and MONAI gets the same."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference
from torch import nn

from abdoseg.errors import ConfigError, RunError
from abdoseg.inference import (
    TEST_TIME_VIEWS,
    InferenceSettings,
    View,
    WindowGrid,
    open_voxels,
    sliding_window_boxes,
    sliding_window_logits,
    windows_of,
)
from abdoseg.inference.packing import Stay, packed
from abdoseg.inference.restoring import labels_of_boxes, restored_labels_of_boxes
from abdoseg.kernels.restore import argmax_labels, restore_labels


class Pointwise(nn.Module):
    """The image and its negative: knows nothing about where it is."""

    def forward(self, x):
        return torch.cat([x, -x], dim=1)


class Constant(nn.Module):
    def forward(self, x):
        return torch.tensor([0.5, -1.0, 3.0]).view(1, 3, 1, 1, 1).expand(len(x), 3, *x.shape[2:])


def an_image(shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


sides = st.tuples(*[st.integers(1, 20)] * 3)


@settings(max_examples=60, deadline=None)
@given(
    shape=sides,
    patch=st.tuples(*[st.integers(2, 12)] * 3),
    overlap=st.floats(0, 0.7),
    weights=st.sampled_from(["gaussian", "constant"]),
    batch=st.integers(1, 3),
)
def test_pointwise_network_has_no_seams(shape, patch, overlap, weights, batch):
    image = an_image(shape)
    before = image.copy()
    chosen = InferenceSettings(patch, overlap=overlap, weights=weights, batch=batch)
    scores = sliding_window_logits(Pointwise(), image, chosen)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, np.stack([image, -image]), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("average", ["logits", "softmax"])
def test_constant_network_stays_constant(average):
    scores = sliding_window_logits(Constant(), an_image((11, 20, 9)), InferenceSettings((8, 8, 8), average=average))
    expected = torch.tensor([0.5, -1.0, 3.0])
    expected = expected.softmax(0) if average == "softmax" else expected
    np.testing.assert_allclose(
        scores, np.broadcast_to(expected.numpy()[:, None, None, None], (3, 11, 20, 9)), rtol=1e-5
    )


@pytest.mark.parametrize("weights", ["gaussian", "constant"])
@pytest.mark.parametrize("shape", [(20, 17, 31), (5, 17, 9)])
def test_equals_monai(shape, weights):
    torch.manual_seed(0)
    network = nn.Conv3d(1, 4, 3, padding=1).eval()
    image = an_image(shape)
    chosen = InferenceSettings((12, 8, 10), overlap=0.5, weights=weights, batch=2)
    ours = sliding_window_logits(network, image, chosen)
    with torch.inference_mode():
        theirs = sliding_window_inference(
            torch.from_numpy(image)[None, None], (12, 8, 10), 1, network, overlap=0.5, mode=weights
        )
    np.testing.assert_allclose(ours, theirs[0].numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("views", [TEST_TIME_VIEWS[:1], TEST_TIME_VIEWS])
def test_air_is_predicted_once(batch, views):
    """A wide field of view: most windows hold nothing, and the network sees one of these."""
    calls = []

    class Counting(nn.Conv3d):
        def forward(self, x):
            calls.extend(bool(one.any()) for one in x)
            return super().forward(x)

    torch.manual_seed(0)
    network = Counting(1, 4, 3, padding=1).eval()
    image = np.zeros((60, 52, 70), dtype=np.float32)
    image[20:31, 22:29, 9:30] = an_image((11, 7, 21))
    chosen = InferenceSettings((12, 8, 10), batch=batch, views=views)
    ours = sliding_window_logits(network, image, chosen)
    assert calls.count(False) == 1
    assert 0 < calls.count(True) < len(windows_of(image.shape, chosen)) * len(views) / 3
    everywhere = sliding_window_logits(network, image + np.float32(1e-30), chosen)
    np.testing.assert_allclose(ours, everywhere, rtol=1e-5, atol=1e-6)


def test_a_scan_of_air_alone_is_predicted():
    scores = sliding_window_logits(Constant(), np.zeros((20, 9, 8), np.float32), InferenceSettings((8, 8, 8), batch=2))
    np.testing.assert_allclose(scores[2], 3.0, rtol=1e-6)


def test_softmax_averages_probabilities():
    torch.manual_seed(0)
    network = nn.Conv3d(1, 3, 3, padding=1)
    chosen = InferenceSettings((8, 8, 8), average="softmax")
    scores = sliding_window_logits(network, an_image((8, 8, 13)), chosen)
    np.testing.assert_allclose(scores.sum(0), 1, rtol=1e-5)
    logits = sliding_window_logits(network, an_image((8, 8, 8)), InferenceSettings((8, 8, 8)))
    one_window = sliding_window_logits(network, an_image((8, 8, 8)), chosen)
    np.testing.assert_allclose(one_window, torch.from_numpy(logits).softmax(0).numpy(), rtol=1e-5)


def test_padding_is_zero_and_on_both_sides():
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(x.clone())
            return x

    image = 0.5 + an_image((4, 8, 7))
    scores = sliding_window_logits(Spy(), image, InferenceSettings((9, 8, 8)))
    (patch,) = seen
    assert patch.shape == (1, 1, 9, 8, 8)
    np.testing.assert_array_equal(patch[0, 0, 2:6, :, :7].numpy(), image)
    assert float(patch.sum()) == pytest.approx(float(image.sum()), rel=1e-6)
    np.testing.assert_allclose(scores[0], image, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "overlap", "count"),
    [((8, 8, 8), 0.5, 1), ((3, 8, 12), 0.5, 2), ((9, 8, 8), 0.5, 2), ((16, 16, 16), 0.5, 27), ((16, 24, 8), 0, 6)],
)
def test_window_count(shape, overlap, count):
    windows = windows_of(shape, InferenceSettings((8, 8, 8), overlap=overlap))
    assert len(windows) == count
    assert all(s.stop <= max(n, 8) for w in windows for s, n in zip(w, shape, strict=True))


@pytest.mark.parametrize("batch", [1, 4])
def test_progress_counts_every_window(batch):
    calls = []
    chosen = InferenceSettings((8, 8, 8), batch=batch)
    sliding_window_logits(Pointwise(), an_image((16, 12, 20)), chosen, lambda done, total: calls.append((done, total)))
    total = len(windows_of((16, 12, 20), chosen))
    assert calls == [(i, total) for i in range(1, total + 1)]


def test_network_is_evaluated_and_left_as_it_was():
    network = nn.Sequential(nn.Conv3d(1, 2, 1), nn.Dropout(0.5), nn.BatchNorm3d(2))
    network[2].eval()  # a frozen norm must stay frozen
    chosen = InferenceSettings((8, 8, 8))
    first, second = (sliding_window_logits(network, an_image((10, 9, 8)), chosen) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert [module.training for module in network] == [True, True, False]
    assert network.training
    assert all(p.grad is None for p in network.parameters())


def test_batch_does_not_matter():
    torch.manual_seed(1)
    network = nn.Conv3d(1, 3, 3, padding=1)
    one, five = (
        sliding_window_logits(network, an_image((14, 9, 17)), InferenceSettings((8, 8, 8), batch=b)) for b in (1, 5)
    )
    np.testing.assert_allclose(one, five, rtol=1e-4, atol=1e-6)


def test_non_finite_output_is_an_error():
    class Diverged(nn.Module):
        def forward(self, x):
            return torch.cat([x, x / 0], dim=1)

    with pytest.raises(RunError, match="NaN or infinite"):
        sliding_window_logits(Diverged(), an_image((8, 8, 8)), InferenceSettings((8, 8, 8)))


def test_network_that_changes_the_size_is_refused():
    with pytest.raises(ValueError, match="became"):
        sliding_window_logits(nn.AvgPool3d(2), an_image((8, 8, 8)), InferenceSettings((8, 8, 8)))


def test_flipped_and_read_only_images_are_taken():
    image = an_image((9, 8, 10))
    view = image[::-1]
    view.flags.writeable = False
    scores = sliding_window_logits(Pointwise(), view, InferenceSettings((8, 8, 8)))
    np.testing.assert_allclose(scores[0], view, rtol=1e-5)
    tensor = sliding_window_logits(Pointwise(), torch.from_numpy(image), InferenceSettings((8, 8, 8)))
    np.testing.assert_array_equal(tensor, sliding_window_logits(Pointwise(), image, InferenceSettings((8, 8, 8))))


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8, 8)])
def test_image_must_be_a_volume(shape):
    with pytest.raises(ValueError, match=r"expected \(X, Y, Z\)"):
        sliding_window_logits(Pointwise(), an_image(shape), InferenceSettings((8, 8, 8)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"patch_shape": (8, 0, 8)},
        {"overlap": 1.0},
        {"overlap": -0.1},
        {"weights": "linear"},
        {"batch": 0},
        {"average": "labels"},
        {"restore": "nearest"},
    ],
)
def test_settings_out_of_range(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        InferenceSettings(**{"patch_shape": (8, 8, 8), **wrong})


def test_unknown_device():
    with pytest.raises(ConfigError, match="device 'tpux'"):
        sliding_window_logits(Pointwise(), an_image((8, 8, 8)), InferenceSettings((8, 8, 8), device="tpux"))


def test_scores_move_to_main_memory_where_the_device_has_no_room(monkeypatch):
    def full(*args):
        raise torch.OutOfMemoryError

    expected = sliding_window_logits(Pointwise(), an_image((9, 10, 8)), InferenceSettings((8, 8, 8)))
    monkeypatch.setattr(torch.Tensor, "new_zeros", full)
    scores = sliding_window_logits(Pointwise(), an_image((9, 10, 8)), InferenceSettings((8, 8, 8)))
    np.testing.assert_array_equal(scores, expected)


looks = st.lists(
    st.builds(View, st.sampled_from([0.75, 1.0, 1.3]), st.tuples(*[st.sampled_from([-0.4, 0.0, 0.25])] * 3)), max_size=3
)


class Waves(nn.Module):
    """Scores that depend on the voxel's value alone, and not in a line."""

    def forward(self, x):
        return torch.cat([torch.sin((3 + c) * x + c) for c in range(4)], dim=1)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 17)] * 3),
    patch=st.tuples(*[st.integers(1, 8)] * 3),
    overlap=st.sampled_from([0.0, 0.3, 0.5, 0.8]),
    views=looks,
)
def test_boxes_share_the_scan_out_and_lower_neighbours_come_first(shape, patch, overlap, views):
    chosen = InferenceSettings(patch, overlap=overlap, views=(View(), *views))
    seen = np.zeros(shape, dtype=int)
    for box, scores in sliding_window_boxes(Waves(), an_image(shape), chosen):
        assert scores.shape == (4, *(side.stop - side.start for side in box))
        assert np.isfinite(scores).all()
        before = tuple(slice(0, side.stop) for side in box)
        seen[box] += 1
        assert seen[before].min(initial=1) == 1
    assert (seen == 1).all()


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 15)] * 3),
    target=st.tuples(*[st.integers(1, 20)] * 3),
    patch=st.tuples(*[st.integers(1, 8)] * 3),
    overlap=st.sampled_from([0.0, 0.5, 0.7]),
    step=st.tuples(*[st.floats(0.2, 3.0)] * 3),
)
def test_labels_of_boxes_are_those_of_the_whole(shape, target, patch, overlap, step):
    chosen = InferenceSettings(patch, overlap=overlap)
    image, step = an_image(shape), np.array(step)
    whole = sliding_window_logits(Waves(), image, chosen)
    boxes = sliding_window_boxes(Waves(), image, chosen)
    np.testing.assert_array_equal(
        restored_labels_of_boxes(boxes, shape, target, step), restore_labels(whole, target, step)
    )
    found = labels_of_boxes(sliding_window_boxes(Waves(), image, chosen), shape)
    np.testing.assert_array_equal(found, argmax_labels(whole))


@pytest.mark.parametrize("shape", [(20, 30, 25), (9, 40, 12), (7, 7, 7)])
def test_no_more_scores_are_open_than_said(shape, monkeypatch):
    from abdoseg.inference import stitch

    chosen = InferenceSettings((8, 8, 8))
    alive, most = [0], [0]

    class Counted(stitch.Stitcher):
        def add(self, *args):
            super().add(*args)
            alive[0] = sum(tile.weights.numel() for tile in self._open.values())
            most[0] = max(most[0], alive[0])

    monkeypatch.setattr("abdoseg.inference.sliding.Stitcher", Counted)
    sliding_window_logits(Pointwise(), an_image(shape), chosen)
    grid = WindowGrid.over(shape, chosen)
    assert most[0] <= open_voxels(grid) <= 1.25 * most[0]
    if min(shape) > 16:
        assert most[0] < 0.6 * np.prod(shape)


def test_memory_said_is_what_a_scan_takes():
    grid = WindowGrid.over((210, 210, 250), InferenceSettings((112, 112, 112)))
    assert 0.39 < open_voxels(grid) / math.prod(grid.shape) < 0.41


stays = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(1, 20)).map(lambda s: Stay(s[0], s[0] + s[1], s[2])),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(stays)
def test_what_is_there_at_the_same_time_does_not_overlap(stays):
    offsets, size = packed(stays)
    for time in range(15):
        there = sorted((o, o + s.size) for o, s in zip(offsets, stays, strict=True) if s.first <= time <= s.last)
        assert all(a[1] <= b[0] for a, b in pairwise(there))
        assert all(low >= 0 and high <= size for low, high in there)
    assert size <= sum(s.size for s in stays)


def test_memory_is_used_again():
    assert packed([Stay(0, 1, 5), Stay(2, 3, 5), Stay(4, 4, 5)]) == ([0, 0, 0], 5)


def test_the_longest_axis_is_run_outermost():
    assert WindowGrid.over((10, 30, 20), InferenceSettings((8, 8, 8))).order == (1, 2, 0)


def test_nothing_is_left_in_inference_mode_between_boxes():
    network = nn.Conv3d(1, 2, 1)
    for _ in sliding_window_boxes(network, an_image((20, 8, 8)), InferenceSettings((8, 8, 8))):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
    assert network.training


@pytest.mark.parametrize("view", TEST_TIME_VIEWS)
def test_a_view_of_a_slope_is_the_slope(view):
    # Linear in the coordinates: resizing there and back gives the same, but at the rim, where there is nothing beyond.
    slope = np.add.outer(np.add.outer(np.arange(40.0), 2 * np.arange(36.0)), 3 * np.arange(38.0)).astype(np.float32)
    chosen = InferenceSettings((16, 16, 16), views=(View(), view))
    scores = sliding_window_logits(Pointwise(), slope, chosen)[0]
    inner = (slice(3, -3),) * 3
    np.testing.assert_allclose(scores[inner], slope[inner], atol=0.5)


def test_views_see_what_they_say():
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(x[0, 0].clone())
            return x

    image = np.arange(24, dtype=np.float32)[:, None, None] + np.zeros((24, 8, 8), dtype=np.float32)
    shifted, larger = View(shift=(0.25, 0, 0)), View(scale=1.5)
    sliding_window_logits(Spy(), image, InferenceSettings((8, 8, 8), overlap=0, views=(View(), shifted, larger)))
    plain, moved, more = seen[3:6]  # the window of 8 to 15
    np.testing.assert_array_equal(plain[:, 0, 0], np.arange(8, 16))
    np.testing.assert_array_equal(moved[:, 0, 0], np.arange(10, 18))
    np.testing.assert_allclose(np.diff(more[:, 4, 4]), 1.5, atol=1e-4)
    assert more[:, 4, 4].mean() == pytest.approx(11.5, abs=1e-4)


def test_views_are_averaged():
    class Once(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return torch.full_like(x, float(self.calls))

    chosen = InferenceSettings((8, 8, 8), views=(View(), View(), View()))
    np.testing.assert_allclose(sliding_window_logits(Once(), an_image((8, 8, 8)), chosen), 2.0)


@pytest.mark.parametrize("wrong", [{"scale": 0.2}, {"scale": 3.0}, {"shift": (0.6, 0, 0)}, {"shift": (0.1, 0.1)}])
def test_a_view_that_shows_something_else_is_refused(wrong):
    with pytest.raises(ConfigError, match="view: found"):
        View(**wrong)


def test_the_plain_view_is_always_among_them():
    with pytest.raises(ConfigError, match="views"):
        InferenceSettings((8, 8, 8), views=(View(scale=0.9),))
