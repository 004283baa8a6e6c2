"""The loss equals the numpy reference to 1e-9 in float64, whatever the groups and rows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from abdoseg.losses import LOSSES, disambiguation_loss, disambiguation_terms

from .inputs import draw, inputs, slices
from .reference import reference_loss, reference_terms

CHOICES = {
    "dice_over": st.sampled_from(["annotated", "present"]),
    "reduction": st.sampled_from(["group", "volume"]),
    "clamp": st.sampled_from([0.0, 1e-6, 0.05]),
}


def assert_agrees(example, **chosen):
    found = disambiguation_terms(*example.tensors(), **chosen)
    expected = reference_terms(example.logits, example.label, example.group, example.annotated, **chosen)
    for name in ("focal", "dice", "entropy"):
        value = getattr(found, name)
        assert value.dtype == torch.float64
        np.testing.assert_allclose(value.detach(), getattr(expected, name), rtol=0, atol=1e-9, err_msg=name)
    np.testing.assert_array_equal(found.has_annotation, expected.has_annotation)
    np.testing.assert_array_equal(found.has_label, expected.has_label)


@settings(max_examples=150, deadline=None)
@given(inputs(), st.fixed_dictionaries(CHOICES))
def test_terms_agree_with_the_reference(example, chosen):
    assert_agrees(example, **chosen)


@settings(max_examples=40, deadline=None)
@given(inputs(), st.floats(0, 20), st.floats(0, 20), st.sampled_from(["no_group", "no_label"]))
def test_loss_agrees_with_the_reference(example, weight, weight_unannotated, when):
    expected = reference_loss(
        reference_terms(example.logits, example.label, example.group, example.annotated),
        weight,
        weight_unannotated,
        when,
    )
    found = disambiguation_loss(
        *example.tensors(),
        entropy_weight=weight,
        entropy_weight_unannotated=weight_unannotated,
        unannotated_when=when,
    )
    np.testing.assert_allclose(found.item(), expected, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("reduction", ["group", "volume"])
def test_slice_groups_agree_with_the_reference(axis, reduction):
    assert_agrees(slices(draw(shape=(6, 7, 8)), axis), reduction=reduction)


def test_the_paper_weights_are_the_defaults():
    example = draw(batch=3, groups=2)
    example.annotated[1] = False
    terms = reference_terms(example.logits, example.label, example.group, example.annotated)
    found = disambiguation_loss(*example.tensors())
    np.testing.assert_allclose(found.item(), reference_loss(terms, 1.0, 3.0), atol=1e-9)


def test_label_255_counts_as_nothing_in_a_group_without_annotation():
    example = draw(groups=2, outside=False)
    example.annotated[:, 1] = False
    example.label[example.group == 1] = 255
    assert_agrees(example)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_any_integer_type_will_do(dtype):
    example = draw()
    logits, label, group, annotated = example.tensors()
    expected = disambiguation_loss(logits, label, group, annotated)
    if dtype == torch.uint8:  # cannot hold -1
        found = disambiguation_loss(logits, label.to(dtype), group, annotated)
    else:
        found = disambiguation_loss(logits, label.to(dtype), group.to(dtype), annotated)
    assert found == expected


def test_more_than_254_structures():
    example = draw(batch=1, structures=260, groups=1, shape=(4, 4, 4), density=1.0, outside=False)
    example = example.replace(label=np.arange(64).reshape(1, 4, 4, 4) + 197)
    assert_agrees(example)


def test_large_float32_sums_do_not_stall():
    # 0.0588 added up a million times in one float32 number would be several per cent off.
    shape = (1, 17, 100, 100, 100)
    label = torch.zeros(1, 100, 100, 100, dtype=torch.uint8)
    group = torch.zeros_like(label)
    group[0, 0, 0, 0] = 1
    annotated = torch.ones(1, 2, 16, dtype=torch.bool)
    annotated[0, 1] = False
    found = disambiguation_terms(torch.zeros(shape), label, group, annotated)
    n, p = 999_999, 1 / 17
    ratios = [(2 * n * p + 1) / (n * p + n + 1)] + [1 / (n * p + 1)] * 16
    np.testing.assert_allclose(found.dice.item(), 1 - np.mean(ratios), rtol=1e-5)
    np.testing.assert_allclose(found.focal.item(), (1 - p) ** 2 * np.log(17), rtol=1e-5)
    np.testing.assert_allclose(found.entropy.item(), np.log(17), rtol=1e-5)


def test_the_table_of_losses():
    assert LOSSES["disambiguation"] is disambiguation_loss
