"""What every network in the table must do; a new network is tested by being listed."""

import copy
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

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


def smallest(name, batch=1):
    """An image of the smallest sides that the bare network takes."""
    d = NETWORKS[name].divisor
    return image(2 * d, d, d, batch=batch)


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
    assert hasattr(network, "deep_logits") == spec.deep_supervision


@every_network
@pytest.mark.parametrize("sides", [(9, 20, 13), (16, 16, 16), (1, 1, 33)])
def test_any_sides(built, name, sides):
    network = built(name).eval()
    with torch.no_grad():
        logits = network(image(*sides))
    assert logits.shape == (1, OUT, *sides)
    assert torch.isfinite(logits).all()


@every_network
def test_the_bare_network_refuses_sides_that_do_not_fit(built, name):
    d = NETWORKS[name].divisor
    for sides in ((d, d, d), (2 * d, d, d + d // 2)):
        with pytest.raises(ValueError, match=rf"{sides[0]}, {sides[1]}, .*multiples of {d}, not all of them {d}"):
            built(name).network(image(*sides))


@every_network
def test_sides_that_fit_pass_as_they_are(built, name):
    network, x = built(name).eval(), smallest(name)
    with torch.no_grad():
        torch.testing.assert_close(network(x), network.network(x), rtol=0, atol=0)


@every_network
def test_padding_is_zero_at_the_far_ends(built, name):
    network, x = built(name).eval(), smallest(name)
    d = NETWORKS[name].divisor
    i, j, k = 2 * d - 3, d - 2, d - 1
    x[:, :, i:], x[:, :, :, j:], x[..., k:] = 0, 0, 0
    with torch.no_grad():
        torch.testing.assert_close(network(x[:, :, :i, :j, :k]), network(x)[:, :, :i, :j, :k])


@every_network
def test_parts_make_the_logits(built, name):
    network, x = built(name).eval(), image(20, 16, 9)
    with torch.no_grad():
        logits = network(x)
        last, deepest = network.features(x)
        maps = network.encoder(network.pad(x))
        shown = list(maps)
        again = copy.deepcopy(network.decoder)(maps)
    assert len(maps) == len(shown)
    assert all(a is b for a, b in zip(maps, shown, strict=True))
    sides = network.pad(x).shape[2:]
    assert last.shape == (1, network.last_channels, *(side // network.last_stride for side in sides))
    assert deepest.shape[:2] == (1, network.deepest_channels)
    assert all(side % fine == 0 for side, fine in zip(sides, deepest.shape[2:], strict=True))
    torch.testing.assert_close(maps[-1], deepest)
    torch.testing.assert_close(again, last)
    torch.testing.assert_close(network.head(last)[:, :, :20, :16, :9], logits)


@every_network
def test_a_new_head_gives_its_channels_everywhere(built, name):
    network, x = built(name).eval(), image(20, 16, 9)
    with torch.no_grad():
        torch.manual_seed(3)
        head = network.new_head(8)
        torch.manual_seed(3)
        same = network.new_head(8)
        last, _ = network.features(x)
        y = head(last)
        assert y.shape == (1, 8, *network.pad(x).shape[2:])
        assert all(torch.equal(a, b) for a, b in zip(head.parameters(), same.parameters(), strict=True))
    per_output = {p.numel() * OUT for p in head.parameters()}
    assert per_output == {p.numel() * 8 for p in network.head.parameters()}
    assert not {id(p) for p in head.parameters()} & {id(p) for p in network.parameters()}


@pytest.mark.parametrize("name", [name for name, spec in NETWORKS.items() if spec.deep_supervision])
def test_deep_logits_are_those_of_coarser_levels(built, name):
    network, x = built(name).eval(), image(20, 16, 9)
    with torch.no_grad():
        deep, logits = network.deep_logits(x), network(x)
    assert len(deep) > 1
    assert all(level.shape == logits.shape for level in deep)
    torch.testing.assert_close(deep[0], logits)
    for level, coarse in enumerate(deep[1:], 1):  # each block of 2^level voxels has one value
        side = 2**level
        for axis in (2, 3, 4):
            inside = coarse.narrow(axis, 0, coarse.shape[axis] // side * side).unflatten(axis, (-1, side))
            assert torch.equal(inside, inside.narrow(axis + 1, 0, 1).expand_as(inside))
        assert coarse.std() > 0


@every_network
def test_every_parameter_learns(built, name):
    network, x = built(name), smallest(name)
    if NETWORKS[name].deep_supervision:
        sum(logits.square().mean() for logits in network.deep_logits(x)).backward()
    else:
        network(x).square().mean().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        if parameter.ndim > 1:  # a bias in front of a norm rightly learns nothing
            assert parameter.grad.any(), key


def with_channels(built, name, channels):
    """Return the network of other output channels: weights of its own where they depend on them, else those built."""
    with torch.device("meta"):
        network = build_network(name, channels)
    known = built(name).state_dict()
    generator = torch.Generator().manual_seed(0)
    state = {
        key: known[key] if known[key].shape == made.shape else torch.randn(made.shape, generator=generator) * 0.05
        for key, made in network.state_dict().items()
    }
    network.load_state_dict(state, assign=True)
    return network


@every_network
@pytest.mark.parametrize("structures", [1, 30])
def test_it_learns_so_many_structures(built, name, structures):
    network, x = with_channels(built, name, 1 + structures), smallest(name)
    label = torch.randint(1 + structures, (1, *x.shape[2:]), generator=torch.Generator().manual_seed(1))
    deep = NETWORKS[name].deep_supervision
    levels = network.deep_logits(x) if deep else (network(x),)
    assert all(logits.shape == (1, 1 + structures, *x.shape[2:]) for logits in levels)
    sum(functional.cross_entropy(logits, label) for logits in levels).backward()
    for key, parameter in network.named_parameters():
        assert torch.isfinite(parameter.grad).all(), key
        if parameter.ndim > 1:
            assert parameter.grad.any(), key
    biases = [parameter for parameter in network.head.parameters() if parameter.ndim == 1]
    assert biases
    assert all(bias.grad.all() for bias in biases)  # each structure has an output that learns


@every_network
def test_one_output_channel(name):
    with torch.device("meta"):
        assert build_network(name, 1)(torch.rand(1, 1, 32, 32, 16)).shape == (1, 1, 32, 32, 16)


@every_network
def test_more_input_channels(name):
    with torch.device("meta"):
        assert build_network(name, 3, in_channels=2)(torch.rand(1, 2, 32, 16, 16)).shape == (1, 3, 32, 16, 16)


@every_network
def test_training_and_prediction_compute_the_same(built, name):
    x = smallest(name)
    with torch.no_grad():
        torch.testing.assert_close(built(name).train()(x), built(name).eval()(x), rtol=0, atol=0)


@every_network
@pytest.mark.parametrize("keep_features", [False, True])
def test_the_form_for_prediction_gives_the_same(built, name, keep_features):
    network = built(name).train()
    fast = network.for_prediction(keep_features=keep_features)
    assert not fast.training
    if fast is network:
        return
    x = image(20, 16, 9)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), network.eval()(x), rtol=1e-4, atol=1e-5)
        if keep_features:
            torch.testing.assert_close(fast.features(x)[0], network.features(x)[0], rtol=1e-4, atol=1e-5)


@every_network
def test_examples_do_not_mix(built, name):
    network, x = built(name).eval(), smallest(name, batch=2)
    with torch.no_grad():
        # Norms over two deepest voxels make much of rounding, so the bound is on the whole.
        assert difference(network(x)[1:], network(x[1:])) < 1e-3


@every_network
def test_the_seed_decides_the_weights_and_state_round_trips(built, name, tmp_path):
    network = built(name).eval()
    torch.manual_seed(0)
    other = build_network(name, OUT).eval()
    for (key, a), (_, b) in zip(network.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(a, b), key
    x = smallest(name)
    with torch.no_grad():
        expected = network(x)
        for parameter in other.parameters():
            parameter.mul_(0.9)
        assert not torch.equal(other(x), expected)
        torch.save(network.state_dict(), tmp_path / "weights.pt")
        other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
        torch.testing.assert_close(other(x), expected, rtol=0, atol=0)


@every_network
def test_bfloat16_autocast(built, name):
    # Not 32: of two deepest voxels along X, oneDNN's bfloat16 weight gradient of a 3^3 convolution reads memory that
    # nobody wrote, and now and then is not a number (PyTorch 2.13.0, CPU).
    d = NETWORKS[name].divisor
    network, x = built(name), image(3 * d, d, d)
    with torch.no_grad():
        expected = network(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(x)
    logits.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    assert difference(logits, expected) < 0.1


@every_network
def test_half_precision_weights(built, name):
    network, x = built(name).eval(), smallest(name)
    with torch.no_grad():
        expected = network(x)
        logits = copy.deepcopy(network).to(torch.bfloat16)(x.to(torch.bfloat16))
    assert logits.dtype == torch.bfloat16
    assert difference(logits, expected) < 0.15


# PyTorch's CPU (2.13) has all operations in float16, but no fast convolutions: a forward pass of these sizes takes 4 to
# 120 times as long as in float32, and the slow ones up to minutes.
QUICK_IN_FLOAT16 = {"unet_small", "segresnet", "mednext_s", "unetr"}
in_float16 = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK_IN_FLOAT16 else pytest.mark.slow) for name in NETWORKS]
)


@in_float16
def test_float16(built, name):
    network, x = built(name), smallest(name)
    with torch.no_grad():
        expected = network(x)
        weights = copy.deepcopy(network).half()(x.half())
    with torch.autocast("cpu", dtype=torch.float16):
        mixed = network(x)
    mixed.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    assert weights.dtype == torch.float16
    assert difference(weights, expected) < 0.05
    assert difference(mixed, expected) < 0.05


def difference(logits, expected):
    return (logits.float() - expected).square().mean().sqrt() / expected.std()


@every_network
def test_checkpointing_changes_nothing_but_memory(built, name):
    plain = built(name)
    with torch.device("meta"):
        checkpointed = build_network(name, OUT, checkpointing=True)
    checkpointed.load_state_dict(plain.state_dict(), assign=True)
    x = smallest(name)
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
    for (key, a), (_, b) in zip(plain.named_parameters(), checkpointed.named_parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), key
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad)
