import numpy as np
import pytest
from matplotlib.image import imread

from abdoseg.anatomy import ABDOMEN
from abdoseg.pictures import PLANES, Panel, _figure, _of_one_case, _tiles, _upright, busiest_slice, save_overlays


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


def a_panel(shape, kinds=("truth",)):
    label = np.zeros(shape, np.uint8)
    label[tuple(slice(n // 4, n // 2 + 1) for n in shape)] = ABDOMEN.id_of("liver")
    return Panel("case", np.full(shape, 0.5, np.float32), dict.fromkeys(kinds, label))


def test_overlays_are_drawn_in_the_structures_colours(tmp_path):
    save_overlays(tmp_path / "a.png", [a_panel((20, 20, 20))], ABDOMEN)
    pixels = imread(tmp_path / "a.png")[..., :3].reshape(-1, 3)
    from matplotlib.colors import to_rgb

    expected = 0.55 * np.array(to_rgb(ABDOMEN.structure(6).colour)) + 0.45 * 0.5
    assert (np.abs(pixels - expected).max(axis=1) < 0.02).sum() > 500


SHAPES = {
    "tall and flat": (119, 77, 178),
    "square field of view": (200, 200, 125),
    "square and tall": (200, 200, 250),
    "thin slab": (200, 200, 20),
    "few slices across": (60, 60, 60),
}


def sizes(figure):
    """Return the inches of each drawn slice and its voxels, ``(width, height, columns, rows)``."""
    width, height = figure.get_size_inches()
    for axes in figure.axes:
        box, (image,) = axes.get_position(), axes.images
        rows, columns = image.get_array().shape[:2]
        yield box.width * width, box.height * height, columns, rows


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_planes_fill_the_picture_at_their_own_aspect(shape):
    rows, across = _of_one_case(_tiles(a_panel(shape), ABDOMEN, tuple(PLANES)))
    figure = _figure(rows, across, [])
    found = np.array(list(sizes(figure)))
    assert len(found) == 6
    width, height = figure.get_size_inches()
    assert (found[:, 0] * found[:, 1]).sum() > 0.88 * width * height
    np.testing.assert_allclose(found[:, 0] / found[:, 1], found[:, 2] / found[:, 3], rtol=1e-6)
    inches_a_voxel = found[:, 0] / found[:, 2]
    # The phantom's axial plane is the larger one; nowhere is a plane a stamp beside the others.
    assert inches_a_voxel.min() > 0.4 * inches_a_voxel.max()
    assert width <= 10
    assert height < 8


def test_slices_do_not_overlap_and_lie_within():
    rows, across = _of_one_case(_tiles(a_panel((119, 77, 178), ("a", "b")), ABDOMEN, tuple(PLANES)))
    boxes = [axes.get_position() for axes in _figure(rows, across, []).axes]
    assert len(boxes) == 9
    for i, one in enumerate(boxes):
        assert 0 <= one.x0 < one.x1 <= 1
        assert 0 <= one.y0 < one.y1 <= 1
        for other in boxes[:i]:
            assert one.x1 <= other.x0 or other.x1 <= one.x0 or one.y1 <= other.y0 or other.y1 <= one.y0


def test_several_cases_have_a_row_each(tmp_path):
    save_overlays(tmp_path / "a.png", [a_panel((40, 30, 60)), a_panel((40, 30, 12))], ABDOMEN)
    pixels = imread(tmp_path / "a.png")[..., :3]
    grey = (np.abs(pixels - 0.5).max(axis=2) < 0.02).mean(axis=1) > 0.5
    assert np.count_nonzero(np.diff(grey.astype(int)) == 1) == 2  # two bands, white between them
