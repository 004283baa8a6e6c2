"""The laws that the loss keeps on random inputs (method, section 3)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceLoss, FocalLoss

from abdoseg.losses import disambiguation_loss, disambiguation_terms

from .inputs import draw, inputs, slices

quick = settings(max_examples=40, deadline=None)


def terms_of(example, **chosen):
    return [t.detach().numpy() for t in disambiguation_terms(*example.tensors(), **chosen)]


def gradient_of(example, term, **chosen):
    logits, *rest = example.tensors()
    getattr(disambiguation_terms(logits, *rest, **chosen), term).sum().backward()
    return logits.grad.numpy()


def known_of(example):
    """For every voxel whether each class 1..N is annotated: (B, N, X, Y, Z)."""
    rows = np.concatenate([example.annotated, np.zeros_like(example.annotated[:, :1])], axis=1)
    picked = np.stack([row[index] for row, index in zip(rows, example.group, strict=True)])  # -1: the last
    return np.moveaxis(picked, -1, 1)


@quick
@given(inputs(), st.integers(0, 99))
def test_labels_of_unannotated_structures_do_not_matter(example, seed):
    shuffled = np.random.default_rng(seed).integers(0, example.logits.shape[1], example.label.shape)
    known = np.pad(known_of(example), ((0, 0), (1, 0), (0, 0), (0, 0), (0, 0)))

    def is_annotated(label):
        return np.take_along_axis(known, label[:, None].astype(int), axis=1)[:, 0]

    free = ~is_annotated(example.label) & ~is_annotated(shuffled)
    other = example.replace(label=np.where(free, shuffled, example.label))
    for a, b in zip(terms_of(example), terms_of(other), strict=True):
        np.testing.assert_array_equal(a, b)


@quick
@given(inputs(max_groups=1))
def test_unannotated_structures_are_as_if_merged_into_background(example):
    """Dropping the unannotated channels and giving background their summed probability changes nothing."""
    for b in range(len(example.label)):
        row = example.annotated[b, 0]
        keep = np.concatenate([[True], row])
        logits, label = example.logits[b], example.label[b]
        background = np.logaddexp.reduce(logits[~keep | (np.arange(len(keep)) == 0)], axis=0)
        renumber = np.where(keep, np.cumsum(keep) - 1, 0)
        if row.any():
            merged = example.replace(
                logits=np.concatenate([background[None], logits[1:][row]])[None],
                label=renumber[label][None],
                group=example.group[b][None],
                annotated=np.ones((1, 1, row.sum()), bool),
            )
            focal, dice, entropy, *_ = terms_of(merged)
            full = terms_of(example)
            np.testing.assert_allclose([focal[0], dice[0]], [full[0][b], full[1][b]], atol=1e-9)
            if (example.group[b] >= 0).any() and not row.all():
                assert entropy[0] < full[2][b]  # all N + 1 classes: more to be unsure about


@quick
@given(inputs(max_groups=1), st.integers(2, 5), st.integers(0, 99))
def test_splitting_into_groups_of_one_row_leaves_focal_and_entropy(example, parts, seed):
    part = np.random.default_rng(seed).integers(0, parts, example.group.shape)
    split = example.replace(
        group=np.where(example.group < 0, -1, part), annotated=np.repeat(example.annotated, parts, axis=1)
    )
    whole, pieces = terms_of(example), terms_of(split)
    for term in (0, 2, 3):
        np.testing.assert_allclose(pieces[term], whole[term], atol=1e-12)
    np.testing.assert_allclose(terms_of(split, reduction="volume")[1], whole[1], atol=1e-12)


def test_splitting_changes_dice():
    example = draw(groups=1, density=1.0)
    halves = example.replace(
        group=np.where(example.group < 0, -1, np.arange(6) % 2),
        annotated=np.repeat(example.annotated, 2, axis=1),
    )
    assert abs(terms_of(example)[1] - terms_of(halves)[1]).min() > 1e-4


@quick
@given(inputs(max_groups=1), st.integers(1, 5))
def test_groups_without_voxels_and_numbering_do_not_matter(example, at):
    padded = np.concatenate([np.ones_like(example.annotated)] * at + [example.annotated], axis=1)
    moved = example.replace(group=np.where(example.group < 0, -1, at), annotated=padded)
    for a, b in zip(terms_of(example), terms_of(moved), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@quick
@given(inputs())
def test_nothing_annotated_only_entropy_learns(example):
    example = example.replace(annotated=np.zeros_like(example.annotated))
    focal, dice, entropy, has_annotation, has_label = terms_of(example)
    assert not focal.any()
    assert not dice.any()
    assert not has_annotation.any()
    assert not has_label.any()
    assert not gradient_of(example, "focal").any()
    assert not gradient_of(example, "dice").any()
    if example.logits.shape[1] > 1 and (example.group >= 0).any():
        assert entropy.max() > 0
        assert gradient_of(example, "entropy").any()
        loss = disambiguation_loss(*example.tensors())
        np.testing.assert_allclose(loss.item(), 3 * entropy.mean(), atol=1e-12)


@quick
@given(inputs(), st.permutations([0, 1, 2]))
def test_permuting_axes_changes_nothing(example, order):
    axes = [1 + a for a in order]
    turned = example.replace(
        logits=example.logits.transpose(0, 1, *[1 + a for a in axes]),
        label=example.label.transpose(0, *axes),
        group=example.group.transpose(0, *axes),
    )
    for a, b in zip(terms_of(example), terms_of(turned), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@quick
@given(inputs())
def test_voxels_outside_the_image_count_nowhere(example):
    outside = example.group < 0
    noise = np.random.default_rng(3).normal(size=example.logits.shape) * 10
    other = example.replace(
        logits=np.where(outside[:, None], noise, example.logits), label=np.where(outside, 0, example.label)
    )
    for a, b in zip(terms_of(example), terms_of(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    for term in ("focal", "dice", "entropy"):
        gradient = np.moveaxis(gradient_of(example, term), 1, -1)
        assert not gradient[outside].any()


@quick
@given(inputs())
def test_focal_and_dice_leave_unannotated_groups_alone(example):
    open_voxel = ~known_of(example).any(axis=1)
    for term in ("focal", "dice"):
        gradient = np.moveaxis(gradient_of(example, term), 1, -1)
        assert not gradient[open_voxel].any()


@quick
@given(inputs())
def test_examples_do_not_mix(example):
    together = terms_of(example)
    for b in range(len(example.label)):
        one = example.replace(
            **{name: getattr(example, name)[b : b + 1] for name in ("logits", "label", "group", "annotated")}
        )
        for a, b_value in zip(terms_of(one), together, strict=True):
            np.testing.assert_allclose(a[0], b_value[b], atol=1e-12)


@pytest.mark.parametrize("groups", ["one", "slices"])
@pytest.mark.parametrize("dice_over", ["annotated", "present"])
def test_a_false_positive_of_an_annotated_structure_costs(groups, dice_over):
    """Background must not absorb annotated classes: calling background "structure 1" has to hurt dice."""
    example = draw(batch=1, structures=16, groups=1, shape=(6, 6, 6), outside=False, density=0.0, scale=0.0)
    example.annotated[:, :, :2] = True
    example.label[:] = 0
    if groups == "slices":
        example = slices(example, 2, every=1)
        example.annotated[:] = np.arange(16) < 2
    gradient = gradient_of(example, "dice", dice_over=dice_over)
    assert (gradient[:, 0] < 0).all()  # background should grow
    assert (gradient[:, 1] > 0).all()  # the false positive should shrink
    assert abs(gradient[:, 1]).min() > 1e-5
    before = terms_of(example, dice_over=dice_over)[1]
    example.logits[:, 1] += 2
    assert terms_of(example, dice_over=dice_over)[1] > before + 0.02


def test_the_background_term_alone_has_a_gradient():
    """With dice over the present classes and only background there, its own ratio must react."""
    example = draw(batch=1, structures=16, groups=1, shape=(6, 6, 6), outside=False, density=1.0)
    example.label[:] = 0
    gradient = gradient_of(example, "dice", dice_over="present")
    assert abs(gradient).sum() > 6e-3


@quick
@given(st.integers(0, 999), st.integers(1, 6))
def test_equals_monai_when_everything_is_annotated(seed, structures):
    example = draw(seed, structures=structures, groups=1, outside=False, density=1.0)
    logits, label, group, annotated = example.tensors()
    target = label[:, None].long()
    kwargs = {"to_onehot_y": True, "include_background": True, "reduction": "none"}
    focal = FocalLoss(use_softmax=True, gamma=2, **kwargs)(logits, target).flatten(1).mean(1)
    dice = DiceLoss(softmax=True, smooth_nr=1, smooth_dr=1, **kwargs)(logits, target).flatten(1).mean(1)
    found = disambiguation_terms(logits, label, group, annotated)
    torch.testing.assert_close(found.focal, focal * (structures + 1), atol=1e-6, rtol=1e-6, check_dtype=False)
    torch.testing.assert_close(found.dice, dice, atol=1e-6, rtol=1e-6, check_dtype=False)


def test_a_perfect_prediction_costs_nothing():
    example = draw(structures=5, groups=2, density=0.6)
    for b, c in np.ndindex(2, 6):
        example.logits[b, c] = np.where(example.label[b] == c, 1e4, 0.0)
    focal, dice, entropy, *_ = terms_of(example)
    assert max(abs(focal).max(), abs(dice).max(), abs(entropy).max()) < 1e-12
