import numpy as np
from matplotlib.image import imread

from abdoseg.anatomy import ABDOMEN
from abdoseg.pictures import Panel, _upright, busiest_slice, save_overlays


def test_the_busiest_slice_holds_most_structures():
    label = np.zeros((10, 10, 10), np.uint8)
    label[:, :, 2] = 1
    label[0, 0, 7] = 2
    label[1, 1, 7] = 3
    assert busiest_slice(label, 2) == 7


def test_slices_look_as_radiologists_look():
    volume = np.zeros((4, 5, 6))
    volume[3, 4, 5] = 1  # patient's right, front, top
    for axis in (1, 2):
        assert _upright(volume, axis, volume.shape[axis] - 1)[0, 0] == 1  # upper left corner of the picture


def test_overlays_are_drawn_in_the_structures_colours(tmp_path):
    label = np.zeros((20, 20, 20), np.uint8)
    label[5:15, 5:15, 5:15] = ABDOMEN.id_of("liver")
    image = np.full((20, 20, 20), 0.5, np.float32)
    save_overlays(tmp_path / "a.png", [Panel("case", image, {"truth": label})], ABDOMEN)
    pixels = imread(tmp_path / "a.png")[..., :3].reshape(-1, 3)
    from matplotlib.colors import to_rgb

    expected = 0.55 * np.array(to_rgb(ABDOMEN.structure(6).colour)) + 0.45 * 0.5
    assert (np.abs(pixels - expected).max(axis=1) < 0.02).sum() > 500
