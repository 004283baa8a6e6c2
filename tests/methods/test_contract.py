"""What every method must do; a new method is tested by being listed."""

import subprocess
import sys

import pytest
import torch

from abdoseg.config import make_config
from abdoseg.errors import ConfigError
from abdoseg.methods import METHODS, OWN_SETTINGS
from abdoseg.methods.assemble import build_model, method_for
from abdoseg.methods.parts import LossSettings, Predictor

from .inputs import TASK, make_batch, unannotated

every_method = pytest.mark.parametrize("name", list(METHODS))


def built(name, network="unet_small", seed=0):
    torch.manual_seed(seed)
    return build_model(network, name, TASK), method_for(network, name)


def test_listing_loads_no_torch():
    code = "import sys; from abdoseg.methods import METHODS; assert METHODS; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@every_method
def test_every_weight_has_a_gradient_whatever_is_annotated(name):
    """Processes that share a batch wait for the gradient of every weight."""
    model, method = built(name)
    for batch in (make_batch(), unannotated(), make_batch(source=(1, 1))):
        model.zero_grad()
        parts = method.loss(model(*method.inputs(batch)), batch, LossSettings())
        assert parts.total.shape == ()
        assert torch.isfinite(parts.total)
        assert len(parts.terms) == len(method.terms)
        parts.total.backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key


@every_method
def test_the_loss_falls(name):
    model, method = built(name)
    batch = make_batch((((True, False, True, False),), ((True, True, True, True),)))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        parts = method.loss(model(*method.inputs(batch)), batch, LossSettings(0.0, 0.0))
        parts.total.backward()
        optimiser.step()
        losses.append(parts.total.item())
    assert min(losses[-3:]) < 0.98 * losses[0]


@every_method
def test_voxels_outside_the_image_do_not_count(name):
    model, method = built(name)
    batch = make_batch()
    outputs = model(*method.inputs(batch))
    before = method.loss(outputs, batch, LossSettings())
    outside = batch.group < 0
    batch.label[outside] = 3
    after = method.loss(outputs, batch, LossSettings())
    assert before.total == after.total


@every_method
@pytest.mark.parametrize("sides", [(16, 16, 32), (9, 20, 13)])
def test_scores_of_any_size(name, sides):
    model, method = built(name)
    predictor = Predictor(model, method.scores).eval()
    image = torch.rand(2, 1, *sides)
    with torch.no_grad():
        scores = predictor(image)
        assert scores.shape == (2, 5, *sides)
        assert torch.isfinite(scores).all()
        torch.testing.assert_close(predictor(image[1:]), scores[1:], rtol=1e-3, atol=2e-3)


@every_method
def test_the_seed_decides_and_state_round_trips(name):
    (model, method), (same, _), (other, _) = built(name), built(name), built(name, seed=1)
    image = torch.rand(1, 1, 16, 16, 32)
    expected, again, another = (Predictor(each, method.scores).eval()(image).detach() for each in (model, same, other))
    assert torch.equal(expected, again)
    assert not torch.equal(expected, another)
    other.load_state_dict(model.state_dict())
    assert torch.equal(Predictor(other, method.scores).eval()(image).detach(), expected)
    stored = [p.data_ptr() for p in model.state_dict().values()]
    assert len(set(stored)) == len(stored)  # safetensors takes no two names of one tensor


@pytest.mark.slow
@pytest.mark.parametrize("network", ["unet_small", "transunet3d"])
@every_method
def test_the_form_for_prediction_predicts_the_same(name, network):
    model, method = built(name, network)
    image = torch.rand(1, 1, 16, 16, 32)
    with torch.no_grad():
        expected = Predictor(model, method.scores).eval()(image)
        found = Predictor(model.for_prediction(), method.scores).eval()(image)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-3)


@every_method
def test_bfloat16(name):
    model, method = built(name)
    batch = make_batch()
    expected = method.loss(model(*method.inputs(batch)), batch, LossSettings())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(*method.inputs(batch))
    found = method.loss(outputs, batch, LossSettings())
    torch.testing.assert_close(found.total.float(), expected.total, rtol=0.02, atol=0.02)


@every_method
def test_the_entry_tells_the_truth(name):
    spec = METHODS[name]
    assert spec.name == name
    assert spec.title
    assert spec.source
    assert set(spec.settings) <= OWN_SETTINGS


@pytest.mark.parametrize(
    ("method", "setting", "value"),
    [
        ("self_disambiguation", "tasks_per_step", 1),
        ("sigmoid", "tasks_per_step", 1),
        ("multi_head", "dice_smooth", "denominator"),
        ("dodnet", "text_embeddings", "clip"),
        ("dodnet", "decoder_per_source", True),
    ],
)
def test_settings_of_other_methods_are_refused(method, setting, value):
    with pytest.raises(ConfigError, match=f"{setting}: means nothing to method {method}; leave it out"):
        make_config("small", {"method": method, setting: value})


def test_settings_of_a_method_are_taken():
    for spec in METHODS.values():
        values = {"tasks_per_step": 1, "dice_smooth": "denominator", "passes_per_structure": True}
        values |= {"text_embeddings": "clip", "decoder_per_source": True, "confidence": 0.5}
        given = {"method": spec.name, **{name: values[name] for name in spec.settings}}
        config = make_config("small", given | ({"start_from": "earlier"} if spec.needs_teacher else {}))
        assert all(getattr(config, name) == values[name] for name in spec.settings)
