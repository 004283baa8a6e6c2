"""Finite values and right gradients, for any logits and any precision; bad inputs are refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from abdoseg.errors import AbdosegError, CaseError, UnknownNameError
from abdoseg.losses import disambiguation_loss, disambiguation_terms

from .inputs import draw, inputs, slices


def assert_finite(loss, logits):
    assert torch.isfinite(loss)
    loss.backward()
    assert torch.isfinite(logits.grad).all()


@settings(max_examples=40, deadline=None)
@given(inputs(), st.sampled_from([10.0, 1e2, 1e4]), st.sampled_from([torch.float32, torch.float64]))
def test_extreme_logits(example, size, dtype):
    example = example.replace(logits=np.sign(example.logits) * size)
    logits, *rest = example.tensors(dtype)
    assert_finite(disambiguation_loss(logits, *rest), logits)


@pytest.mark.parametrize("winner", [0, 1, 2])
def test_certainly_wrong_is_dear_and_still_learns(winner):
    """log p~ comes from logits: at 2e4 nats a clamped probability would have lost the slope."""
    example = draw(batch=1, structures=2, groups=1, shape=(2, 2, 2), outside=False, density=0.0)
    example.annotated[0, 0, 0] = True
    example.label[:] = 1 if winner != 1 else 0
    example.logits[:] = -1e4
    example.logits[:, winner] = 1e4
    logits, *rest = example.tensors(torch.float32)
    terms = disambiguation_terms(logits, *rest)
    torch.testing.assert_close(terms.focal.item(), 2e4, rtol=1e-4, atol=0)
    terms.focal.sum().backward()
    torch.testing.assert_close(logits.grad[:, winner].sum().item(), 1.0, rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("groups", [1, 3])
def test_half_precision_logits_are_computed_in_float32(dtype, groups):
    logits, *rest = draw(groups=groups).tensors()
    half = logits.detach().to(dtype).requires_grad_()
    loss = disambiguation_loss(half, *rest)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, disambiguation_loss(half.detach().float(), *rest), rtol=1e-6, atol=1e-6)
    assert_finite(loss, half)
    assert half.grad.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_extremes(dtype):
    example = draw(groups=2)
    logits = (torch.tensor(example.logits).sign() * 1e4).to(dtype).requires_grad_()
    assert_finite(disambiguation_loss(logits, *example.tensors()[1:]), logits)


def test_autocast_changes_nothing():
    logits, *rest = draw().tensors(torch.float32)
    expected = disambiguation_loss(logits, *rest)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = disambiguation_loss(logits, *rest)
    assert found.dtype == torch.float32
    assert found == expected


@pytest.mark.parametrize(
    "chosen",
    [{}, {"dice_over": "present"}, {"reduction": "volume"}, {"clamp": 0.1}],
    ids=["default", "present", "volume", "clamp"],
)
@pytest.mark.parametrize("groups", [1, 3])
def test_gradients_are_right(groups, chosen):
    logits, *rest = draw(groups=groups, structures=3, shape=(2, 3, 2)).tensors()
    assert torch.autograd.gradcheck(lambda z: disambiguation_loss(z, *rest, **chosen), (logits,))


@pytest.mark.parametrize("groups", [1, 5])
def test_a_patch_outside_the_image_costs_and_teaches_nothing(groups):
    example = draw(groups=groups, density=1.0)
    example.group[0] = -1
    logits, *rest = example.tensors()
    terms = disambiguation_terms(logits, *rest)
    assert [t[0].item() for t in terms] == [0, 0, 0, False, False]
    sum(t.sum() for t in terms[:3]).backward()
    assert not logits.grad[0].any()
    assert logits.grad[1].any()


def test_a_batch_outside_the_image():
    example = draw()
    example.group[:] = -1
    logits, *rest = example.tensors(torch.float32)
    loss = disambiguation_loss(logits, *rest)
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_a_group_per_slice_of_a_whole_patch():
    example = slices(draw(batch=1, structures=3, shape=(112, 4, 5)), 0, every=5)
    assert example.annotated.shape[1] == 112
    logits, *rest = example.tensors(torch.float32)
    assert_finite(disambiguation_loss(logits, *rest), logits)


def test_strided_logits_and_channels_last():
    logits, *rest = draw().tensors()
    last = logits.detach().to(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(disambiguation_loss(last, *rest), disambiguation_loss(logits, *rest).detach())


def test_inputs_stay_as_they_were():
    example = draw()
    tensors = example.tensors()
    disambiguation_loss(*tensors)
    for tensor, array in zip(tensors[1:], (example.label, example.group, example.annotated), strict=True):
        np.testing.assert_array_equal(tensor, array)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("label", 5, r"label: expected 0\.\.4.*found 5 at .* = \(1, 2, 3, 4\)"),
        ("label", 254, "found 254"),
        ("group", 3, r"group: expected -1\.\.2; found 3 at .* = \(1, 2, 3, 4\)"),
        ("group", -2, "found -2"),
    ],
)
def test_unlawful_values_are_refused(name, value, message):
    example = draw()
    getattr(example, name)[1, 2, 3, 4] = value
    with pytest.raises(CaseError, match=message) as error:
        disambiguation_terms(*example.tensors())
    assert isinstance(error.value, ValueError)
    assert isinstance(error.value, AbdosegError)


@pytest.mark.parametrize("dtype", [np.int8, np.int64])  # -1 and 255 are one value in 8 bits
def test_negative_labels_are_refused(dtype):
    example = draw()
    label = example.label.astype(dtype)
    label[0, 0, 0, 0] = -1
    with pytest.raises(CaseError, match="found -1"):
        disambiguation_terms(*example.replace(label=label).tensors())


def test_label_255_is_refused_where_something_is_annotated():
    example = draw(groups=2)
    example.annotated[:] = [[[True] * 4, [False] * 4]] * 2
    example.group[0, 1, 2, 3] = 0
    example.label[0, 1, 2, 3] = 255
    with pytest.raises(CaseError, match="255 is lawful only"):
        disambiguation_terms(*example.tensors())
    example.group[0, 1, 2, 3] = 1
    disambiguation_terms(*example.tensors())
    example.group[0, 1, 2, 3] = -1
    disambiguation_terms(*example.tensors())


def test_the_check_can_be_switched_off():
    example = draw(outside=False, density=1.0)
    example.label[0, 0, 0, 0] = 200
    with pytest.raises(CaseError):
        disambiguation_loss(*example.tensors())
    assert torch.isfinite(disambiguation_loss(*example.tensors(), validate=False))


@pytest.mark.parametrize(
    ("position", "change", "message"),
    [
        (0, lambda a: a[0], "logits"),
        (0, lambda a: a.detach().long(), "logits"),
        (1, lambda a: a[:, 1:], "label"),
        (1, lambda a: a[:, None], "label"),
        (1, lambda a: a.float(), "label"),
        (1, lambda a: a > 0, "label"),
        (2, lambda a: a[:1], "group"),
        (2, lambda a: a.double(), "group"),
        (3, lambda a: a[:, 0], "annotated"),
        (3, lambda a: a[:1], "annotated"),
        (3, lambda a: a[:, :, 1:], "annotated"),
        (3, lambda a: a.int(), "annotated"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(position, change, message):
    arguments = list(draw().tensors())
    arguments[position] = change(arguments[position])
    with pytest.raises(ValueError, match=message):
        disambiguation_terms(*arguments)


@pytest.mark.parametrize("setting", ["dice_over", "reduction", "implementation", "unannotated_when"])
def test_unknown_settings_are_refused(setting):
    with pytest.raises(UnknownNameError, match=setting):
        disambiguation_loss(*draw().tensors(), **{setting: "nonsense"})
    with pytest.raises(TypeError, match="no_such_setting"):
        disambiguation_terms(*draw().tensors(), no_such_setting=1)
