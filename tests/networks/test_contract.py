"""What every network in the table must do; a new network is tested by being listed."""

import subprocess
import sys

import pytest
import torch

from abdoseg.errors import UnknownNameError
from abdoseg.networks import NETWORKS, build_network

OUT = 5

every_network = pytest.mark.parametrize("name", list(NETWORKS))


@pytest.fixture(scope="module")
def built():
    """Networks of this module by name, built once; tests leave weights as they are."""
    made = {}

    def get(name):
        if name not in made:
            torch.manual_seed(0)
            made[name] = build_network(name, OUT)
        made[name].zero_grad()
        return made[name].train()

    return get


def image(*sides, batch=1, seed=0):
    return torch.rand(batch, 1, *sides, generator=torch.Generator().manual_seed(seed))


def test_listing_loads_neither_torch_nor_monai():
    code = (
        "import sys; from abdoseg.networks import NETWORKS; assert NETWORKS;"
        "print(sorted({'torch', 'monai', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_refused_with_a_guess():
    with pytest.raises(UnknownNameError, match=r"network 'unetsmall' is not known\. Did you mean unet_small"):
        build_network("unetsmall", 17)


@every_network
def test_the_entry_tells_the_truth(name):
    spec = NETWORKS[name]
    with torch.device("meta"):
        network = spec.build(1, 17, False)
    assert spec.name == name
    assert spec.title
    assert spec.source
    assert sum(p.numel() for p in network.parameters()) == spec.parameters
    assert network.divisor == spec.divisor
    assert all(side % spec.divisor == 0 for side in spec.patch)


@every_network
@pytest.mark.parametrize("sides", [(9, 20, 13), (16, 16, 16), (1, 1, 33)])
def test_any_sides(built, name, sides):
    network = built(name).eval()
    with torch.no_grad():
        logits = network(image(*sides, batch=2))
    assert logits.shape == (2, OUT, *sides)
    assert torch.isfinite(logits).all()


@every_network
def test_sides_that_fit_pass_as_they_are(built, name):
    network, x = built(name).eval(), image(32, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(network(x), network.network(x), rtol=0, atol=0)


@every_network
def test_padding_is_zero_at_the_far_ends(built, name):
    network, x = built(name).eval(), image(32, 16, 16)
    x[:, :, 27:], x[:, :, :, 14:], x[..., 9:] = 0, 0, 0
    with torch.no_grad():
        torch.testing.assert_close(network(x[:, :, :27, :14, :9]), network(x)[:, :, :27, :14, :9])


@every_network
def test_features_and_head_make_the_logits(built, name):
    network, x = built(name).eval(), image(20, 16, 9)
    with torch.no_grad():
        last, deepest = network.features(x)
        logits = network(x)
    padded = [-(-side // 16) * 16 for side in (20, 16, 9)]
    assert last.shape == (1, network.last_channels, *(side // network.last_stride for side in padded))
    assert deepest.shape[:2] == (1, network.deepest_channels)
    assert [32 % side for side in deepest.shape[2:]] == [0, 0, 0]
    torch.testing.assert_close(network.head(last)[:, :, :20, :16, :9], logits)


@every_network
def test_every_parameter_learns(built, name):
    network = built(name)
    network(image(32, 32, 16)).square().mean().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        if parameter.ndim > 1:  # a bias in front of a norm rightly learns nothing
            assert parameter.grad.any(), key


@every_network
@pytest.mark.parametrize("channels", [1, 30])
def test_output_channels(name, channels):
    with torch.device("meta"):
        network = build_network(name, channels)
        assert network(torch.rand(1, 1, 32, 32, 16)).shape == (1, channels, 32, 32, 16)


@every_network
def test_more_input_channels(name):
    with torch.device("meta"):
        assert build_network(name, 3, in_channels=2)(torch.rand(1, 2, 32, 16, 16)).shape == (1, 3, 32, 16, 16)


@every_network
def test_training_and_prediction_compute_the_same(built, name):
    x = image(32, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(built(name).train()(x), built(name).eval()(x), rtol=0, atol=0)


@every_network
def test_examples_do_not_mix(built, name):
    network, x = built(name).eval(), image(32, 16, 16, batch=2)
    with torch.no_grad():
        torch.testing.assert_close(network(x)[1:], network(x[1:]), rtol=1e-3, atol=1e-4)


@every_network
def test_the_seed_decides_the_weights_and_state_round_trips(built, name, tmp_path):
    network = built(name).eval()
    torch.manual_seed(0)
    same = build_network(name, OUT).eval()
    for (key, a), (_, b) in zip(network.state_dict().items(), same.state_dict().items(), strict=True):
        assert torch.equal(a, b), key
    torch.manual_seed(1)
    other = build_network(name, OUT).eval()
    x = image(32, 16, 16)
    with torch.no_grad():
        expected = network(x)
        assert not torch.equal(other(x), expected)
        torch.save(network.state_dict(), tmp_path / "weights.pt")
        other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
        torch.testing.assert_close(other(x), expected, rtol=0, atol=0)


@every_network
def test_bfloat16_autocast(built, name):
    # Not 32: of two deepest voxels along X, oneDNN's bfloat16 weight gradient of a 3^3 convolution reads memory that
    # nobody wrote, and now and then is not a number (PyTorch 2.13.0, CPU).
    network, x = built(name), image(48, 32, 16)
    with torch.no_grad():
        expected = network(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(x)
    logits.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
    difference = (logits.float() - expected).square().mean().sqrt() / expected.std()
    assert difference < 0.1


@every_network
def test_checkpointing_changes_nothing_but_memory(built, name):
    plain = built(name)
    checkpointed = build_network(name, OUT, checkpointing=True)
    checkpointed.load_state_dict(plain.state_dict())
    x = image(32, 16, 16)
    saved = []
    for network in (plain, checkpointed):
        kept = [0]

        def count(tensor, kept=kept):
            kept[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            logits = network(x)
        logits.square().mean().backward()
        saved.append(kept[0])
    assert saved[1] < 0.6 * saved[0]
    for a, b in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
