"""3D TransUNet is the method's 7.1, part by part."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from abdoseg.losses import disambiguation_loss
from abdoseg.networks.standardised import ResidualBlock, StandardisedConv3d, conv_norm_relu, double, halve
from abdoseg.networks.transformer import CosineAttention, LearnedPositions, TransformerLayer
from abdoseg.networks.transunet3d import TransUNet3D, fuse_for_prediction


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return TransUNet3D(1, 17).eval()


def test_parameters_of_each_part(network):
    mixer = network.encoder.mixer
    assert count(network.encoder.convolutions) == 40_677_760
    assert count(mixer.embed) == 524_800
    assert count(mixer.positions) == 175_616
    assert count(mixer.layers, mixer.norm) == 8_412_192
    assert count(network.decoder) == 17_588_224
    assert count(network.head) == 1_105
    assert count(network) == 67_379_697


def test_sizes_at_112():
    with torch.device("meta"):
        network = TransUNet3D(1, 17)
        x = torch.rand(1, 1, 112, 112, 112)
        deepest, skips = network.encoder.convolutions(x)
        last, tokens = network.features(x)
    assert deepest.shape == (1, 1024, 7, 7, 7)
    assert [tuple(s.shape[1:3]) for s in skips] == [(64, 112), (64, 56), (256, 28), (512, 14)]
    assert tokens.shape == (1, 512, 7, 7, 7)
    assert last.shape == (1, 64, 112, 112, 112)


def test_the_work_of_a_forward_pass():
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        TransUNet3D(1, 17)(torch.rand(1, 1, 112, 112, 112))
    assert counter.get_total_flops() / 1e12 == pytest.approx(2.94, abs=0.01)


@pytest.mark.parametrize("sides", [(16, 16, 16), (24, 32, 32), (32, 32, 40)])
def test_sides_it_cannot_take(network, sides):
    with pytest.raises(ValueError, match=r"multiples of 16, not all of them 16"):
        network(torch.rand(1, 1, *sides))


def test_start_values(network):
    assert not network.encoder.mixer.positions.vectors.any()
    for layer in network.encoder.mixer.layers:
        torch.testing.assert_close(layer.attention.log_scale, torch.full((8, 1, 1), math.log(10)))
        for linear in (layer.mlp[0], layer.mlp[2]):
            bound = math.sqrt(6 / (512 + 1024))
            assert 0.99 * bound < linear.weight.abs().max() <= bound
            assert 0 < linear.bias.abs().max() < 1e-5
    for module in network.modules():
        if isinstance(module, torch.nn.GroupNorm | torch.nn.LayerNorm):
            assert module.eps == 1e-6
            assert (module.weight == 1).all()
            assert not module.bias.any()
        if isinstance(module, torch.nn.GroupNorm):
            assert module.num_groups == module.num_channels


@pytest.mark.parametrize("keep_features", [False, True])
def test_fused_for_prediction_is_the_same(network, keep_features):
    fused = fuse_for_prediction(network, keep_features=keep_features)
    x = torch.rand(1, 1, 32, 16, 16)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        torch.testing.assert_close(fused(x), network(x), rtol=1e-4, atol=1e-5)
        if keep_features:
            for a, b in zip(fused.features(x), network.features(x), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    apart = 64 * 64 * 27 + 64 + 1105
    assert count(fused) == count(network) - (0 if keep_features else apart - 64 * 17 * 27 - 17)
    assert not any(isinstance(module, StandardisedConv3d) for module in fused.modules())
    # The original is left alone.
    assert isinstance(network.head, torch.nn.Conv3d)
    assert any(isinstance(module, StandardisedConv3d) for module in network.modules())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_weight_standardisation_by_the_formula():
    convolution = StandardisedConv3d(3, 4, 5)
    weight = convolution.weight.detach().numpy().astype(np.float64)
    expected = np.stack([(w - w.mean()) / np.sqrt(w.var() + 1e-5) for w in weight])
    np.testing.assert_allclose(convolution.standardised_weight().detach(), expected, rtol=1e-4, atol=1e-6)
    x = torch.rand(1, 3, 6, 7, 8)
    by_hand = functional.conv3d(x, torch.tensor(expected).float(), convolution.bias, padding=2)
    torch.testing.assert_close(convolution(x), by_hand, rtol=1e-4, atol=1e-4)


def test_conv_norm_relu_by_the_formula():
    layer = conv_norm_relu(2, 3, 3)
    x = torch.rand(2, 2, 4, 5, 6)
    y = layer[0](x)
    axes = (2, 3, 4)
    normed = (y - y.mean(axes, keepdim=True)) / (y.var(axes, correction=0, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(layer(x), normed.clamp(min=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("width_in", "width_out"), [(4, 4), (4, 6)])
def test_residual_block_by_the_formula(width_in, width_out):
    block = ResidualBlock(width_in, 3, width_out)
    first, second, norm = block.body
    x = torch.rand(1, width_in, 4, 4, 4)
    shortcut = x if width_in == width_out else block.shortcut(x)
    assert count(block.shortcut) == (0 if width_in == width_out else width_in * width_out + width_out)
    torch.testing.assert_close(block(x), (norm(second(first(x))) + shortcut).relu())


def test_resizing_keeps_the_corners():
    x = torch.rand(1, 2, 4, 6, 8)
    for y, sides in ((halve(x), (2, 3, 4)), (double(x), (8, 12, 16))):
        assert y.shape[2:] == sides
        torch.testing.assert_close(y[..., 0, 0, 0], x[..., 0, 0, 0])
        torch.testing.assert_close(y[..., -1, -1, -1], x[..., -1, -1, -1])


@pytest.mark.parametrize("s", [math.log(10), 9.0])
def test_cosine_attention_by_the_formula(s):
    attention = CosineAttention(12, 3).double()
    attention.log_scale.data.fill_(s)
    x = torch.rand(2, 5, 12, dtype=torch.float64)
    q, k, v = (f(x).detach().numpy() for f in (attention.q, attention.k, attention.v))
    expected = np.zeros((2, 5, 12))
    for b in range(2):
        for columns in (slice(0, 4), slice(4, 8), slice(8, 12)):
            a, c = q[b, :, columns], k[b, :, columns]
            cosine = (a @ c.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(c, axis=1)
            weight = np.exp(cosine * min(math.exp(s), 100))
            expected[b, :, columns] = weight / weight.sum(1, keepdims=True) @ v[b, :, columns]
    torch.testing.assert_close(attention(x), attention.out(torch.tensor(expected)))


def test_transformer_layer_is_pre_norm():
    layer = TransformerLayer(8, 16, 2)
    x = torch.rand(1, 4, 8)
    y = x + layer.attention(functional.layer_norm(x, (8,), eps=1e-6))
    hidden = functional.gelu(layer.mlp[0](functional.layer_norm(y, (8,), eps=1e-6)))
    torch.testing.assert_close(layer(x), y + layer.mlp[2](hidden))


def test_positions_follow_the_grid():
    positions = LearnedPositions(3, (7, 7, 7))
    axes = torch.meshgrid(*[torch.arange(7.0)] * 3, indexing="ij")
    positions.vectors.data = torch.stack([a.flatten() for a in axes], dim=1)[None]
    assert positions((7, 7, 7)) is positions.vectors
    resized = positions((3, 7, 14)).detach().view(3, 7, 14, 3)
    torch.testing.assert_close(resized[:, 0, 0, 0], torch.tensor([2 / 3, 3.0, 16 / 3]))
    torch.testing.assert_close(resized[0, :, 0, 1], torch.arange(7.0))
    assert (resized[0, 0, 1:, 2] >= resized[0, 0, :-1, 2]).all()
    assert resized[0, 0, -1, 2] == 6


def test_positions_reach_the_logits(network):
    x = torch.rand(1, 1, 32, 32, 16)
    vectors = network.encoder.mixer.positions.vectors
    with torch.no_grad():
        before = network(x)
        try:
            vectors.normal_(generator=torch.Generator().manual_seed(0))
            assert not torch.allclose(network(x), before)
        finally:
            vectors.zero_()


@pytest.mark.slow
def test_it_learns_in_a_few_steps():
    torch.manual_seed(0)
    network = TransUNet3D(1, 3)
    label = torch.zeros(1, 32, 32, 16, dtype=torch.long)
    label[0, 4:18, 6:20, 3:12] = 1
    label[0, 20:30, 6:20, 3:12] = 2
    x = label[:, None] * 0.4 + torch.rand(1, 1, 32, 32, 16) * 0.2
    group, annotated = torch.zeros_like(label), torch.ones(1, 1, 2, dtype=torch.bool)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-4)
    losses = []
    for _ in range(6):
        optimiser.zero_grad()
        loss = disambiguation_loss(network(x), label, group, annotated)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
