"""Losses of the methods against voxel-by-voxel references in NumPy."""

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss

from abdoseg.losses import blocks
from abdoseg.losses.binary import binary_sums, binary_terms, counted_by_structure
from abdoseg.methods import background, ignore, marginal, sigmoid
from abdoseg.methods.parts import LossSettings

from .inputs import make_batch

TWO_GROUPS = (
    ((True, False, True, False), (False, False, False, False)),
    ((True, True, True, True), (False, True, True, True)),
)


def logits_of(batch, channels, seed=3):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(batch.image), channels, *batch.label.shape[1:])
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * 2).requires_grad_()


def softmax(x):
    e = np.exp(x - x.max(axis=0))
    return e / e.sum(axis=0)


def columns(batch, logits, i):
    """Return logits ``(C, V)``, label and group ``(V,)`` of one example."""
    label, group = batch.label[i].flatten().numpy().astype(int), batch.group[i].flatten().numpy().astype(int)
    return logits[i].flatten(1).detach().numpy(), label, group


def focal_and_dice(p, label):
    """Ordinary focal (gamma 2) and dice of ``p (C, V)``."""
    own = p[label, np.arange(label.size)]
    focal = (-((1 - own) ** 2) * np.log(own)).mean()
    ratios = [(2 * p[c, label == c].sum() + 1) / (p[c].sum() + (label == c).sum() + 1) for c in range(len(p))]
    return focal, 1 - np.mean(ratios)


def test_background_counts_every_voxel_of_the_image():
    batch = make_batch(TWO_GROUPS)
    logits = logits_of(batch, 5)
    expected = []
    for i in range(2):
        x, label, group = columns(batch, logits, i)
        expected.append(focal_and_dice(softmax(x[:, group >= 0]), label[group >= 0]))
    found = background.loss(logits, batch, LossSettings())
    np.testing.assert_allclose([t.item() for t in found.terms], np.mean(expected, axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.total.item(), np.mean(expected, axis=0).sum(), rtol=1e-9)


def test_ignore_counts_what_is_drawn_and_complete_groups():
    batch = make_batch(TWO_GROUPS)
    logits = logits_of(batch, 5)
    complete = [(False, False), (True, False)]
    expected = []
    for i in range(2):
        x, label, group = columns(batch, logits, i)
        counted = (label > 0) | ((group >= 0) & np.array([*complete[i], False])[group])
        assert 0 < counted.sum() < counted.size
        expected.append(focal_and_dice(softmax(x[:, counted]), label[counted]))
    found = ignore.loss(logits, batch, LossSettings())
    np.testing.assert_allclose([t.item() for t in found.terms], np.mean(expected, axis=0), rtol=1e-9)
    found.total.backward()
    undrawn = (batch.label[0] == 0)[None].expand_as(logits[0])
    assert not logits.grad[0][undrawn].any()  # no group of the first example annotates everything


def test_marginal_and_exclusion():
    batch = make_batch(TWO_GROUPS)
    logits = logits_of(batch, 5)
    cross, dice, exclusion = [], [], []
    for i in range(2):
        x, label, group = columns(batch, logits, i)
        p = softmax(x)
        logs, ratios, pays, sizes = [], [], [], []
        for k, row in enumerate(batch.annotated[i].numpy()):
            inside = group == k
            if not row.any():
                continue
            known, hidden = np.flatnonzero(row) + 1, np.flatnonzero(~row) + 1
            q = np.stack([p[0, inside] + p[hidden][:, inside].sum(axis=0), *p[known][:, inside]])
            own = np.searchsorted(known, label[inside]) + 1
            own[label[inside] == 0] = 0
            logs.append(-np.log(q[own, np.arange(own.size)]))
            ratios.append(focal_and_dice(q, own)[1])
            e = (label[inside] > 0).astype(float)
            pays.append(
                np.mean(
                    [
                        2 * (e * p[c, inside]).sum() / (e.sum() + p[c, inside].sum())
                        + (e * np.log(p[c, inside] + 1)).mean()
                        for c in hidden
                    ]
                )
                if len(hidden)
                else 0.0
            )
            sizes.append(inside.sum())
        cross.append(np.concatenate(logs).mean())
        dice.append(np.average(ratios, weights=sizes))
        exclusion.append(np.average(pays, weights=sizes))
    expected = [np.mean(cross), np.mean(dice), np.mean(exclusion)]
    found = marginal.loss(logits, batch, LossSettings())
    np.testing.assert_allclose([t.item() for t in found.terms], expected, rtol=1e-9)
    np.testing.assert_allclose(found.total.item(), np.sum(expected), rtol=1e-9)
    assert torch.autograd.gradcheck(
        lambda x: marginal.loss(x, small, LossSettings()).total,
        logits_of(small := make_batch(TWO_GROUPS, shape=(2, 2, 3)), 5),
    )


def test_sigmoid_sums_over_annotated_structures():
    batch = make_batch(TWO_GROUPS)
    logits = logits_of(batch, 4)
    expected = np.zeros((2, 2))
    for i in range(2):
        x, label, group = columns(batch, logits, i)
        for c in range(1, 5):
            known = np.array([*batch.annotated[i, :, c - 1].numpy(), False])
            counted = known[group]
            if not counted.any():
                continue
            p, g = 1 / (1 + np.exp(-x[c - 1, counted])), label[counted] == c
            expected[0, i] += -(np.log(p[g]).sum() + np.log1p(-p[~g]).sum()) / g.size
            expected[1, i] += 1 - (2 * p[g].sum() + 1) / (p.sum() + g.sum() + 1)
    found = sigmoid.loss(logits, batch, LossSettings())
    np.testing.assert_allclose([t.item() for t in found.terms], expected.mean(axis=1), rtol=1e-9)
    found.total.backward()
    assert not logits.grad[0, [1, 3]].any()  # nobody looked for them


@pytest.mark.parametrize(("method", "channels"), [(sigmoid, 4), (marginal, 5)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_blocks_of_voxels_change_nothing(monkeypatch, method, channels, dtype):
    batch = make_batch(TWO_GROUPS)
    logits = logits_of(batch, channels).detach().to(dtype).requires_grad_()

    def everything():
        found = method.loss(logits, batch, LossSettings())
        return found.total, *found.terms, *torch.autograd.grad(found.total, logits)

    whole = everything()
    assert whole[-1].dtype == dtype
    monkeypatch.setattr(blocks, "_KEPT", 0)
    monkeypatch.setattr(blocks, "_ON_CPU", 30_000)  # 8192 voxels: several blocks, the last one smaller
    for a, b in zip(everything(), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9 if dtype == torch.float64 else 1e-2, atol=1e-8)


@pytest.mark.parametrize("groups", [1, 3])
def test_where_a_structure_was_looked_for(groups):
    generator = torch.Generator().manual_seed(groups)
    annotated = torch.rand(2, groups, 3, generator=generator) < 0.5
    group = torch.randint(-1, groups, (2, 50), generator=generator)
    found = counted_by_structure(group, annotated)
    for b in range(2):
        for c in range(3):
            for v in range(50):
                k = group[b, v]
                assert found[b, c, v] == (k >= 0 and annotated[b, k, c])


def test_binary_dice_is_monais():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 500, generator=generator)
    truth = torch.rand(3, 500, generator=generator) < 0.2
    everywhere = torch.ones_like(truth)
    sums = binary_sums(logits, truth, everywhere)
    for smooth, above in (("both", 1.0), ("denominator", 0.0)):
        peer = DiceLoss(sigmoid=True, smooth_nr=above, smooth_dr=1.0, reduction="none")
        expected = peer(logits[:, None], truth[:, None].float())
        torch.testing.assert_close(binary_terms(sums, smooth)[1], expected.flatten())
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth.float(), reduction="none")
    torch.testing.assert_close(binary_terms(sums)[0], expected.mean(dim=1))


def test_a_perfect_prediction_costs_nothing_however_few_slices_hold_the_structure():
    """The public CLIP-driven dice scores 0.844 here."""
    truth = torch.zeros(1, 128, 8, 8, dtype=torch.bool)
    truth[:, 20:40, 2:5, 3:6] = True
    logits = torch.where(truth, 1e3, -1e3)
    sums = binary_sums(logits.flatten(1), truth.flatten(1), torch.ones(1, 128 * 64, dtype=torch.bool))
    bce, dice = binary_terms(sums)
    assert (bce.item(), dice.item()) == (0.0, 0.0)


def test_an_absent_structure_costs_1_without_a_gradient_as_dodnet_was_published():
    logits = torch.full((1, 100), -4.0, requires_grad=True)
    nowhere, everywhere = torch.zeros(1, 100, dtype=torch.bool), torch.ones(1, 100, dtype=torch.bool)
    _, dice = binary_terms(binary_sums(logits, nowhere, everywhere), "denominator")
    assert dice.item() == 1.0
    (gradient,) = torch.autograd.grad(dice.sum(), logits)
    assert not gradient.any()
    _, ours = binary_terms(binary_sums(logits, nowhere, everywhere), "both")
    assert 0 < ours.item() < 1
