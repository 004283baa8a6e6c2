"""MONAI's networks behind our contract give MONAI's own logits."""

import pytest
import torch
from monai.networks.nets import UNETR, BasicUNetPlusPlus, DynUNet, SegResNet, SwinUNETR, ViT
from monai.networks.nets.mednext import create_mednext

from abdoseg.networks import build_network

OUT = 3

REFERENCES = {
    "mednext": lambda: create_mednext("L", in_channels=1, out_channels=OUT),
    "mednext_m": lambda: create_mednext("M", in_channels=1, out_channels=OUT),
    "mednext_b": lambda: create_mednext("B", in_channels=1, out_channels=OUT),
    "mednext_s": lambda: create_mednext("S", in_channels=1, out_channels=OUT),
    "swin_unetr": lambda: SwinUNETR(1, OUT, feature_size=48),
    "unetpp": lambda: BasicUNetPlusPlus(out_channels=OUT),
    "segresnet": lambda: SegResNet(init_filters=32, out_channels=OUT),
    "dynunet": lambda: DynUNet(
        3,
        1,
        OUT,
        [3] * 5,
        (1, 2, 2, 2, 2),
        (2, 2, 2, 2),
        (32, 64, 128, 256, 320),
        deep_supervision=True,
        deep_supr_num=2,
    ),
}


def both(name):
    """The reference and ours with the same weights: both are made by the same calls from the same seed."""
    torch.manual_seed(0)
    reference = REFERENCES[name]()
    torch.manual_seed(0)
    return reference, build_network(name, OUT).network


@pytest.mark.parametrize("name", list(REFERENCES))
def test_logits_are_monais(name):
    reference, ours = both(name)
    x = torch.rand(1, 1, 2 * ours.divisor, ours.divisor, ours.divisor)
    with torch.no_grad():
        expected = reference.eval()(x)
        torch.testing.assert_close(ours.eval()(x), expected[0] if isinstance(expected, list) else expected)


def test_deep_logits_are_monais():
    reference, ours = both("dynunet")
    x = torch.rand(1, 1, 32, 16, 16)
    with torch.no_grad():
        expected = reference.train()(x).unbind(1)
        for a, b in zip(ours.deep_logits(x), expected, strict=True):
            torch.testing.assert_close(a, b)


def test_only_unused_weights_are_left_out():
    counts = {}
    for name in ("swin_unetr", "unetpp", "segresnet", "mednext_s", "dynunet"):
        reference, ours = both(name)
        counts[name] = sum(p.numel() for p in reference.parameters()) - sum(p.numel() for p in ours.parameters())
    heads = 3 * (32 * OUT + OUT)  # of the side outputs that plain logits do not have
    assert counts == {"swin_unetr": 0, "unetpp": heads, "segresnet": 0, "mednext_s": 0, "dynunet": 0}


def test_unetr_is_monais_with_positions_resized():
    torch.manual_seed(0)
    ours = build_network("unetr", OUT).network.eval()
    positions = ours.encoder.positions
    assert positions((6, 6, 6)) is positions.vectors
    assert positions.vectors.std() > 0.01
    torch.manual_seed(0)
    weights = UNETR(1, OUT, img_size=96).state_dict()
    reference = UNETR(1, OUT, img_size=(32, 16, 48)).eval()
    weights["vit.patch_embedding.position_embeddings"] = positions((2, 1, 3)).detach()
    reference.load_state_dict(weights)
    x = torch.rand(1, 1, 32, 16, 48)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), reference(x))


def test_transunet3d_nnunets_transformer_is_a_vit_on_the_deepest_map():
    torch.manual_seed(0)
    encoder = build_network("transunet3d_nnunet", OUT).encoder.eval()
    with torch.no_grad():
        encoder.positions.vectors.normal_()
    grid = (2, 1, 3)
    vit = ViT(320, grid, 1, qkv_bias=True).eval()
    state = {f"blocks.{key}": value for key, value in encoder.layers.state_dict().items()}
    state |= {f"norm.{key}": value for key, value in encoder.norm.state_dict().items()}
    state |= {f"patch_embedding.patch_embeddings.{key}": value for key, value in encoder.embed.state_dict().items()}
    state["patch_embedding.position_embeddings"] = encoder.positions(grid).detach()
    unused = vit.load_state_dict(state, strict=False)
    assert not unused.unexpected_keys
    assert all("norm_cross_attn" in key for key in unused.missing_keys)
    for module in vit.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-6
    with torch.no_grad():
        *_, deepest = encoder.convolutions(x := torch.rand(1, 1, 32, 16, 48))
        expected = vit(deepest)[0].mT.reshape(1, 768, *grid)
        torch.testing.assert_close(encoder(x)[-1], expected, rtol=1e-4, atol=1e-4)
