"""Named settings of the authors' code, and how the methods pass them on."""

import numpy as np
import pytest
import torch

from abdoseg.losses import disambiguation_loss, disambiguation_terms
from abdoseg.methods import background, self_disambiguation
from abdoseg.methods.parts import LossSettings, TorchBatch

from .inputs import draw


def annotated_but_empty(seed=0):
    """One group that knows all structures, and a label that holds none."""
    example = draw(seed, batch=1, groups=1, density=1.0, outside=False)
    example.label[:] = 0
    return example


def test_a_patch_without_a_label_can_count_as_unannotated():
    tensors = annotated_but_empty().tensors()
    terms = disambiguation_terms(*tensors)
    assert (terms.has_annotation.item(), terms.has_label.item()) == (True, False)
    difference = disambiguation_loss(*tensors, unannotated_when="no_label") - disambiguation_loss(*tensors)
    torch.testing.assert_close(difference, 2 * terms.entropy[0])


def test_labels_of_unannotated_structures_are_no_labels():
    example = annotated_but_empty()
    example.label[0, 0, 0, 0] = 2
    example.annotated[0, 0, 1] = False
    assert not disambiguation_terms(*example.tensors()).has_label.item()
    example.annotated[0, 0, 1] = True
    assert disambiguation_terms(*example.tensors()).has_label.item()


def test_a_clamped_logarithm_is_bounded_and_has_no_slope():
    example = draw(batch=1, structures=2, groups=1, shape=(2, 2, 2), outside=False, density=1.0)
    example.label[:] = 1
    example.logits[:] = -1e3
    example.logits[:, 0] = 1e3
    logits, *rest = example.tensors()
    focal = disambiguation_terms(logits, *rest, clamp=1e-6).focal
    focal.sum().backward()
    np.testing.assert_allclose(focal.item(), -np.log(1e-6), rtol=1e-12)
    assert not logits.grad.any()


def test_the_fast_kernels_do_not_clamp():
    tensors = draw().tensors(torch.float32)
    with pytest.raises(ValueError, match="'fused': it does not clamp probabilities, clamp is 1e-06; choose 'auto'"):
        disambiguation_loss(*tensors, clamp=1e-6, implementation="fused")
    found = disambiguation_loss(*tensors, clamp=0.1)
    assert found == disambiguation_loss(*tensors, clamp=0.1, implementation="plain")
    assert found != disambiguation_loss(*tensors, implementation="plain")


@pytest.mark.parametrize("clamp", [-1e-6, 0.5, float("nan")])
def test_a_clamp_that_is_no_small_probability_is_refused(clamp):
    with pytest.raises(ValueError, match=r"clamp: found .* below 0\.5"):
        disambiguation_terms(*draw().tensors(), clamp=clamp)


def batch_of(example):
    logits, label, group, annotated = example.tensors(torch.float32)
    return logits, TorchBatch(
        torch.zeros_like(logits[:, :1]), label, group, annotated, torch.zeros(len(label)), torch.zeros(len(label))
    )


def test_the_method_passes_its_settings_on():
    example = annotated_but_empty()
    logits, batch = batch_of(example)
    chosen = {"clamp": 0.01, "unannotated_when": "no_label", "dice_over": "present", "reduction": "volume"}
    settings = LossSettings(entropy_weight=0.5, entropy_weight_unannotated=2.0, **chosen)
    expected = disambiguation_loss(logits, batch.label, batch.group, batch.annotated, 0.5, 2.0, **chosen)
    assert self_disambiguation.loss(logits, batch, settings).total == expected


def test_the_naive_method_clamps_too():
    logits, batch = batch_of(draw())
    plain, clamped = (background.loss(logits, batch, LossSettings(clamp=c)) for c in (0.0, 0.1))
    (plain_focal, plain_dice), (clamped_focal, clamped_dice) = plain.terms, clamped.terms
    assert clamped_focal < plain_focal
    torch.testing.assert_close(clamped_dice, plain_dice)
