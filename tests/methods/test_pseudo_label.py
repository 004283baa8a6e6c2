"""What a finished run adds to given labels, voxel by voxel."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from abdoseg.annotation import Annotation
from abdoseg.methods import pseudo_label
from abdoseg.methods.parts import LossSettings
from abdoseg.methods.pseudo_label import label_case

from .inputs import make_batch
from .test_losses import columns, focal_and_dice, logits_of, softmax

SHAPE = (4, 3, 5)
N = 3


@st.composite
def annotations(draw):
    rows = draw(hnp.arrays(bool, (3, N)))
    axes = draw(st.sets(st.integers(0, 2)))
    slices = {axis: draw(hnp.arrays(np.int32, SHAPE[axis], elements=st.integers(0, 2))) for axis in sorted(axes)}
    return Annotation(rows, slices) if axes else Annotation(rows[:1])


def expected_at(voxel, label, annotation, p, confidence):
    known = np.zeros(N, dtype=bool)
    for axis in annotation.axes() or (None,):
        known |= annotation.rows[annotation.group_volume(SHAPE, axis)[voxel]]
    value = label[voxel]
    if value == 255:
        known[:] = False
    elif value > 0 and known[value - 1]:
        return value
    if known.all():
        return 0
    choices = [0, *(np.flatnonzero(~known) + 1)]
    best = choices[int(np.argmax([p[c][voxel] for c in choices]))]
    return best if p[best][voxel] >= confidence else 255


@given(
    annotations(),
    hnp.arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 1, 2, 3, 255])),
    st.integers(0, 2**31),
    st.sampled_from([0.0, 0.4, 0.9]),
)
def test_labels_voxel_by_voxel(annotation, label, seed, confidence):
    scores = np.random.default_rng(seed).normal(0, 3, (1 + N, *SHAPE)).astype(np.float32)
    p = softmax(scores.astype(np.float64))
    found = label_case(label, annotation, scores, confidence)
    for voxel in np.ndindex(*SHAPE):
        assert found[voxel] == expected_at(voxel, label, annotation, p, confidence)


def test_the_loss_leaves_out_what_has_no_label():
    batch = make_batch((((True,) * 4, (False,) * 4), ((True,) * 4, (False,) * 4)))
    logits = logits_of(batch, 5)
    expected = []
    for i in range(2):
        x, label, group = columns(batch, logits, i)
        expected.append(focal_and_dice(softmax(x[:, group == 0]), label[group == 0]))
    found = pseudo_label.loss(logits, batch, LossSettings())
    np.testing.assert_allclose([t.item() for t in found.terms], np.mean(expected, axis=0), rtol=1e-9)
