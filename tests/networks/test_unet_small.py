import pytest
import torch

from abdoseg.losses import disambiguation_loss
from abdoseg.networks import NETWORKS, build_network


def test_it_is_small():
    assert NETWORKS["unet_small"].parameters < 1_000_000


def test_it_learns_a_cube_in_a_few_steps():
    torch.manual_seed(0)
    network = build_network("unet_small", 3)
    label = torch.zeros(2, 16, 16, 16, dtype=torch.long)
    label[0, 2:9, 3:9, 4:12] = 1
    label[1, 5:13, 6:14, 2:10] = 2
    x = label[:, None] * 0.4 + torch.rand(2, 1, 16, 16, 16) * 0.2
    group, annotated = torch.zeros_like(label), torch.ones(2, 1, 2, dtype=torch.bool)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = disambiguation_loss(network(x), label, group, annotated)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert (network(x).argmax(1) == label).float().mean() > 0.99


@pytest.mark.parametrize("sides", [(17, 16, 16), (8, 8, 8)])
def test_the_bare_network_wants_its_divisor(sides):
    with pytest.raises((RuntimeError, ValueError)):
        build_network("unet_small", 3).network(torch.rand(1, 1, *sides))
