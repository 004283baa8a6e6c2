"""The fused kernel gives what the plain implementation gives, in float64, and its analytic gradient is right."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from abdoseg.errors import CaseError
from abdoseg.losses import disambiguation_loss, disambiguation_terms
from abdoseg.losses.fused import why_not

from .inputs import draw, inputs, slices

CHOICES = {
    "dice_over": st.sampled_from(["annotated", "present"]),
    "reduction": st.sampled_from(["group", "volume"]),
}
TERMS = ("focal", "dice", "entropy")


def terms_and_gradients(example, dtype, implementation, **chosen):
    """Values ``(3, B)`` and gradients ``(3, B, C, X, Y, Z)`` of the three terms, each example weighted differently."""
    values, gradients = [], []
    for term in TERMS:
        logits, *rest = example.tensors(dtype)
        found = getattr(disambiguation_terms(logits, *rest, implementation=implementation, **chosen), term)
        (found * torch.arange(1, len(found) + 1)).sum().backward()
        values.append(found.detach().double().numpy())
        gradients.append(logits.grad.double().numpy())
    return np.array(values), np.array(gradients)


def assert_agrees(example, least=1e-10, **chosen):
    """Gradients differ by 1e-4 of the greatest, or by ``least``: what rounding makes of one that is nearly 0."""
    example = example.replace(logits=example.logits.astype(np.float32))
    expected, slopes = terms_and_gradients(example, torch.float64, "plain", **chosen)
    found, found_slopes = terms_and_gradients(example, torch.float32, "fused", **chosen)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    for term, a, b in zip(TERMS, found_slopes, slopes, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=max(1e-4 * np.abs(b).max(), least), err_msg=term)


@settings(max_examples=60, deadline=None)
@given(inputs(), st.fixed_dictionaries(CHOICES))
def test_values_and_gradients_are_those_of_the_plain_one(example, chosen):
    assert_agrees(example, **chosen)


@settings(max_examples=30, deadline=None)
@given(inputs(), st.sampled_from([30.0, 100.0, 1e4]))
def test_extreme_logits(example, size):
    """Where a merged background is far below float32's range beside the winner, it still has its slope."""
    assert_agrees(example.replace(logits=np.sign(example.logits) * size + example.logits), least=1e-7)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_group_a_slice_over_several_blocks(axis):
    """40 x 41 x 43 voxels are many blocks and three parts, the last of each incomplete."""
    assert_agrees(slices(draw(batch=1, structures=5, shape=(40, 41, 43)), axis, every=3))


def test_any_group_in_any_voxel():
    assert_agrees(draw(batch=2, structures=16, groups=9, shape=(17, 18, 19)))


@pytest.mark.parametrize("structures", [31, 32, 63])
def test_as_many_classes_as_bits(structures):
    assert_agrees(draw(batch=1, structures=structures, groups=3))


def test_groups_that_repeat_row_by_row_and_change_plane_by_plane():
    """What is looked up once must be looked up anew where the rows change, after more repeats than one sum takes."""
    example = draw(batch=1, structures=5, groups=9, shape=(3, 1500, 24), outside=False)
    pattern = np.random.default_rng(2).integers(-1, 9, (3, 1, 24))
    assert_agrees(example.replace(group=np.broadcast_to(pattern, (1, 3, 1500, 24)).copy()))


def test_one_group_over_several_parts():
    assert_agrees(draw(batch=1, structures=16, groups=1, shape=(40, 41, 43), outside=False))


def test_the_number_of_threads_changes_no_bit(set_threads):
    logits, *rest = draw(batch=2, structures=4, shape=(40, 41, 43)).tensors(torch.float32)
    found = []
    for threads in (1, 3):
        set_threads(threads)
        logits.grad = None
        loss = disambiguation_loss(logits, *rest)
        loss.backward()
        found.append((loss.item(), logits.grad.clone()))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


def test_labels_255_and_padding():
    example = draw(groups=2, shape=(9, 9, 9))
    example.annotated[:, 1] = False
    example.label[example.group == 1] = 255
    assert_agrees(example)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_not_hidden(value):
    example = draw()
    example.logits[0, 2, 1, 1, 1] = value
    example.group[0, 1, 1, 1] = 0
    logits, *rest = example.tensors(torch.float32)
    assert not torch.isfinite(disambiguation_loss(logits, *rest, implementation="fused"))


@pytest.mark.parametrize(
    ("name", "value"), [("label", 5), ("label", -1), ("label", 70_000), ("group", 3), ("group", -2), ("group", 65_535)]
)
def test_unlawful_values_are_refused_though_nobody_asked(name, value):
    """They would index outside the tables."""
    example = draw()
    example = example.replace(label=example.label.astype(np.int64), group=example.group.astype(np.int64))
    getattr(example, name)[1, 2, 3, 4] = value
    with pytest.raises(CaseError, match=rf"{name}.*found {value} at .* = \(1, 2, 3, 4\)"):
        disambiguation_terms(*example.tensors(torch.float32), implementation="fused", validate=False)


def test_what_it_cannot_do_is_refused_or_done_by_the_plain_one():
    many = draw(batch=1, structures=64, groups=1, shape=(3, 3, 3)).tensors(torch.float32)
    with pytest.raises(ValueError, match="up to 64 classes, there are 65"):
        disambiguation_terms(*many, implementation="fused")
    assert torch.isfinite(disambiguation_loss(*many))
    with pytest.raises(ValueError, match="computes float32"):
        disambiguation_terms(*draw().tensors(torch.float64), implementation="fused")
    meta = torch.empty(1, 3, 8, device="meta")
    assert "on a CPU" in why_not(meta, torch.ones(1, 2, 3, dtype=torch.bool))


def test_it_is_what_a_float32_cpu_training_gets(monkeypatch):
    from abdoseg.losses import plain

    monkeypatch.setattr(plain, "sum_voxels", None)
    assert torch.isfinite(disambiguation_loss(*draw().tensors(torch.float32)))


def test_strided_logits():
    logits, *rest = draw(shape=(8, 9, 10)).tensors(torch.float32)
    last = logits.detach().to(memory_format=torch.channels_last_3d).requires_grad_()
    expected, found = disambiguation_loss(logits, *rest), disambiguation_loss(last, *rest)
    expected.backward()
    found.backward()
    assert torch.equal(found, expected)
    torch.testing.assert_close(last.grad, logits.grad)
