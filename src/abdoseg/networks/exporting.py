"""Networks as programs for other runtimes: torch.export and ONNX, for one size of patch."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram


def export_program(network: nn.Module, patch: Sequence[int], *, in_channels: int = 1) -> ExportedProgram:
    """Return a network as a program of plain operators.

    Parameters
    ----------
    network
        Maps ``(B, in_channels, X, Y, Z)`` to ``(B, out, X, Y, Z)``; put in evaluation mode.
    patch
        Sides ``(X, Y, Z)`` in voxels. The program takes a batch of one image of just this size, as a sliding window
        gives.
    in_channels
        Channels of the image.

    Returns
    -------
    ExportedProgram
        ``program.module()(image)`` gives the logits.
    """
    first = next(network.parameters())
    example = torch.zeros(1, in_channels, *patch, dtype=first.dtype, device=first.device)
    with torch.no_grad():
        return torch.export.export(network.eval(), (example,))


def export_onnx(network: nn.Module, patch: Sequence[int], path: Path, *, in_channels: int = 1) -> None:
    """Write a network as an ONNX file with input ``image`` and output ``logits``.

    Parameters
    ----------
    network, patch, in_channels
        As for :func:`export_program`.
    path
        The file; weights beyond 2 GB would go to a second file beside it.

    Raises
    ------
    ImportError
        If the package onnxscript is not installed.
    """
    program = export_program(network, patch, in_channels=in_channels)
    with warnings.catch_warnings():
        # The exporter warns of its own use of deprecated parts of torch.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            program,
            f=str(path),
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            external_data=False,
            verbose=False,
        )
