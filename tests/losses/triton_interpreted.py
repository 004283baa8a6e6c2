"""The Triton kernel gives what the plain implementation gives: in Triton's interpreter, on a CPU.

``test_triton.py`` runs this file, in a process of its own with TRITON_INTERPRET=1: Triton reads that when it is loaded.
"""

import numpy as np
import pytest
import torch

from abdoseg.losses import disambiguation_loss, disambiguation_terms
from abdoseg.losses.triton_sums import why_not

from .inputs import draw, slices

TERMS = ("focal", "dice", "entropy")
STEP = {torch.float32: 0.0, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}
"""The distance of neighbouring numbers of a type, relative to them; the interpreter cuts off what a GPU rounds."""


def values_and_gradient(example, dtype, implementation, weights, **chosen):
    """Values ``(3, B)`` and the gradient of the terms' weighted sum, each example weighted differently."""
    logits, *rest = example.tensors(dtype)
    terms = disambiguation_terms(logits, *rest, implementation=implementation, **chosen)
    values = torch.stack([getattr(terms, name) for name in TERMS])
    (values * torch.tensor(weights)[:, None] * torch.arange(1, values.shape[1] + 1)).sum().backward()
    assert logits.grad.dtype == dtype
    return values.detach().double().numpy(), logits.grad.double().numpy()


def assert_agrees(example, dtype=torch.float32, weights=(1.0, 1.0, 1.0), least=1e-10, **chosen):
    rounded = torch.tensor(example.logits).to(dtype).double().numpy()
    example = example.replace(logits=rounded)
    expected, slopes = values_and_gradient(example, torch.float64, "plain", weights, **chosen)
    found, found_slopes = values_and_gradient(example, dtype, "triton", weights, **chosen)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    smallest = 6e-8 if dtype == torch.float16 else 0.0  # float16 has nothing between this and 0
    allowed = max(1e-4 * np.abs(slopes).max(), least, smallest)
    np.testing.assert_allclose(found_slopes, slopes, rtol=STEP[dtype], atol=allowed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_and_gradients_are_those_of_the_plain_one(dtype):
    """Several groups and padding, odd sides."""
    assert_agrees(draw(structures=5, shape=(3, 5, 17)), dtype)


@pytest.mark.parametrize("weights", np.eye(3).tolist(), ids=TERMS)
def test_each_term(weights):
    assert_agrees(draw(batch=1, groups=2, shape=(3, 4, 5)), weights=weights)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_group_a_slice(axis):
    assert_agrees(slices(draw(batch=1, shape=(3, 9, 18)), axis))


def test_more_groups_than_a_tile_takes_at_once():
    assert_agrees(draw(batch=1, structures=16, groups=70, shape=(3, 5, 17)))


@pytest.mark.parametrize("structures", [15, 31, 63])
def test_as_many_classes_as_bits(structures):
    assert_agrees(draw(batch=1, structures=structures, shape=(2, 3, 5)))


@pytest.mark.parametrize("chosen", [{"dice_over": "present"}, {"reduction": "volume"}], ids=str)
def test_named_settings(chosen):
    assert_agrees(draw(shape=(2, 4, 5)), **chosen)


@pytest.mark.parametrize("size", [100.0, 1e4])
def test_extreme_logits(size):
    example = draw(batch=1, shape=(3, 4, 5))
    assert_agrees(example.replace(logits=np.sign(example.logits) * size + example.logits), least=1e-7)


def test_labels_255_in_an_ignored_region():
    example = draw(groups=2, shape=(3, 4, 5))
    example.annotated[:, 1] = False
    example.label[example.group == 1] = 255
    assert_agrees(example)


def test_a_patch_outside_the_image_costs_and_teaches_nothing():
    example = draw(shape=(3, 4, 5))
    example.group[0] = -1
    logits, *rest = example.tensors(torch.float32)
    terms = disambiguation_terms(logits, *rest, implementation="triton")
    assert [t[0].item() for t in terms] == [0, 0, 0, False, False]
    sum(t.sum() for t in terms[:3]).backward()
    assert not logits.grad[0].any()
    assert logits.grad[1].any()


def test_strided_logits_keep_their_strides():
    logits, *rest = draw(shape=(3, 4, 5)).tensors(torch.float32)
    last = logits.detach().to(memory_format=torch.channels_last_3d).requires_grad_()
    for each in (logits, last):
        disambiguation_loss(each, *rest, implementation="triton").backward()
    torch.testing.assert_close(last.grad, logits.grad)
    assert last.grad.stride() == last.stride()


def test_logits_with_gaps_in_memory():
    logits, *rest = draw(batch=1, shape=(3, 4, 5)).tensors(torch.float32)
    wide = torch.nn.functional.pad(logits.detach(), (0, 7)).requires_grad_()
    disambiguation_loss(logits, *rest, implementation="triton").backward()
    disambiguation_loss(wide[..., :5], *rest, implementation="triton").backward()
    torch.testing.assert_close(wide.grad[..., :5], logits.grad)
    assert not wide.grad[..., 5:].any()


def test_many_tiles_meet_in_one_sum():
    """Of 64 tiles of equal voxels, over all copies of the tables."""
    from abdoseg.kernels.ambiguity_triton import Tensors, sum_voxels

    logits = torch.zeros(1, 3, 1, 1, 1).expand(1, 3, 8, 16, 64).contiguous()
    label = torch.zeros(1, 8, 16, 64, dtype=torch.uint8)
    merged = torch.tensor([[7, 1]], dtype=torch.int32)
    sums = sum_voxels(Tensors(logits, label, label.short(), merged))
    np.testing.assert_allclose(sums.probability[0, 1], np.full(3, label.numel() / 3), rtol=1e-6)
    assert sums.voxels.tolist() == [[[0, 0, 0], [label.numel(), 0, 0]]]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter is numpy
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_not_hidden(value):
    example = draw(batch=1, shape=(2, 3, 4))
    example.logits[0, 2, 1, 1, 1] = value
    example.group[0, 1, 1, 1] = 0
    assert not torch.isfinite(disambiguation_loss(*example.tensors(torch.float32), implementation="triton"))


def test_unlawful_labels_are_refused():
    example = draw()
    example.label[1, 2, 3, 4] = 5
    with pytest.raises(ValueError, match="found 5"):
        disambiguation_terms(*example.tensors(torch.float32), implementation="triton")


def test_what_it_cannot_do_is_refused():
    known = torch.ones(1, 2, 3, dtype=torch.bool)
    many = torch.ones(1, 2, 65, dtype=torch.bool)
    assert "up to 64 classes, there are 65" in why_not(torch.empty(1, 65, 1, 1, 1), many)
    assert "computes float32" in why_not(torch.empty(1, 3, 1, 1, 1, dtype=torch.float64), known)
    assert "voxels, there are 0" in why_not(torch.empty(1, 3, 1, 0, 1), known)
    assert why_not(torch.empty(1, 3, 1, 1, 1), known) is None
    with pytest.raises(ValueError, match="'triton': it does not clamp probabilities, clamp is 1e-06; choose 'auto'"):
        disambiguation_terms(*draw().tensors(torch.float32), implementation="triton", clamp=1e-6)
