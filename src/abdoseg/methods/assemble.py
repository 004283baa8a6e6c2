"""From names to a model and a method: a network with a method's layers around it."""

from typing import cast

from torch import nn

from abdoseg.methods import METHODS
from abdoseg.methods.deep_supervision import with_deep_supervision
from abdoseg.methods.parts import Method
from abdoseg.methods.task import Task
from abdoseg.networks import NETWORKS, build_network
from abdoseg.networks.contract import DeeplySupervisedNetwork


def method_for(network: str, method: str) -> Method:
    """Return how a method trains a network: at every level, where the network has logits of several.

    Parameters
    ----------
    network, method
        Keys of :data:`abdoseg.networks.NETWORKS` and :data:`abdoseg.methods.METHODS`.
    """
    loaded = METHODS[method].load()
    deep = NETWORKS[network].deep_supervision and METHODS[method].learns_logits
    return with_deep_supervision(loaded) if deep else loaded


def build_model(network: str, method: str, task: Task, *, checkpointing: bool = False) -> nn.Module:
    """Return a fresh model; its weights depend on torch's global seed alone.

    Parameters
    ----------
    network, method
        Keys of :data:`abdoseg.networks.NETWORKS` and :data:`abdoseg.methods.METHODS`.
    task
        What it is to learn.
    checkpointing
        Recompute activations in the backward pass.

    Returns
    -------
    nn.Module
        Maps what the method's ``inputs`` says to outputs for its ``loss`` and ``scores``.

    Raises
    ------
    UnknownNameError
        If there is no such network.
    ConfigError
        If the method cannot learn this task.
    """
    parts = method_for(network, method)
    built = build_network(network, parts.channels(task), checkpointing=checkpointing)
    if NETWORKS[network].deep_supervision and not METHODS[method].learns_logits:
        # Heads that no loss reaches: with several processes, every weight that wants a gradient has to get one.
        cast("DeeplySupervisedNetwork", built.inner).deep_heads.requires_grad_(requires_grad=False)
    return parts.build(built, task)
