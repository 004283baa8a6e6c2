"""Deep supervision: the loss of every level, halved from level to level."""

import pytest
import torch

from abdoseg.methods import METHODS
from abdoseg.methods.assemble import build_model, method_for
from abdoseg.methods.parts import LossSettings, Predictor
from abdoseg.networks import NETWORKS

from .inputs import TASK, make_batch

DEEP = [name for name, spec in NETWORKS.items() if spec.deep_supervision]


def test_there_are_networks_for_it():
    assert "dynunet" in DEEP


@pytest.mark.parametrize("method", [name for name, spec in METHODS.items() if spec.learns_logits])
def test_the_loss_is_the_weighted_mean_over_levels(method):
    batch = make_batch()
    single, deep = METHODS[method].load(), method_for("dynunet", method)
    channels = single.channels(TASK)
    levels = tuple(torch.randn(2, channels, 16, 16, 32) for _ in range(3))
    parts = [single.loss(level, batch, LossSettings()) for level in levels]
    found = deep.loss(levels, batch, LossSettings())
    weights = [4 / 7, 2 / 7, 1 / 7]
    torch.testing.assert_close(found.total, sum(w * p.total for w, p in zip(weights, parts, strict=True)))
    for i, term in enumerate(found.terms):
        torch.testing.assert_close(term, sum(w * p.terms[i] for w, p in zip(weights, parts, strict=True)))


@pytest.mark.slow
def test_training_shows_every_level_and_prediction_one():
    torch.manual_seed(0)
    model, method = build_model("dynunet", "self_disambiguation", TASK), method_for("dynunet", "self_disambiguation")
    batch = make_batch(shape=(32, 32, 64))
    outputs = model(batch.image)
    assert len(outputs) > 1
    assert {tuple(level.shape) for level in outputs} == {(2, 5, 32, 32, 64)}
    method.loss(outputs, batch, LossSettings()).total.backward()
    assert all(p.grad is not None for p in model.parameters())
    predictor = Predictor(model, method.scores).eval()
    with torch.no_grad():
        torch.testing.assert_close(predictor(batch.image), model.network(batch.image))


def test_methods_with_heads_of_their_own_leave_the_deep_heads_alone():
    with torch.device("meta"):
        model = build_model("dynunet", "dodnet", TASK)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen
    assert all("deep_heads" in name for name in frozen)
