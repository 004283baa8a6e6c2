"""Count a network's parameters without giving them memory."""

import torch

from abdoseg.networks import build_network


def count_parameters(name: str, out_channels: int) -> int:
    """Return the number of learnable numbers of network ``name`` with ``out_channels`` outputs."""
    with torch.device("meta"):
        network = build_network(name, out_channels)
    return sum(parameter.numel() for parameter in network.parameters())
