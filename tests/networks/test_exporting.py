"""Exported networks give the logits of the network."""

import onnxruntime
import pytest
import torch

from abdoseg.networks import NETWORKS, build_network
from abdoseg.networks.exporting import export_onnx, export_program

# The sizes of MedNeXt differ in numbers alone; of the others, one is quick to write.
WRITTEN = [name for name in NETWORKS if name not in {"mednext", "mednext_m", "mednext_b"}]
QUICK = {"unet_small"}


def network_and_image(name, sides=None):
    torch.manual_seed(0)
    d = NETWORKS[name].divisor
    return build_network(name, 3).eval(), torch.rand(1, 1, *(sides or (2 * d, d, d)))


@pytest.mark.parametrize("name", WRITTEN)
def test_the_program_agrees(name):
    network, x = network_and_image(name)
    program = export_program(network, x.shape[2:]).module()
    with torch.no_grad():
        torch.testing.assert_close(program(x), network(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in WRITTEN]
)
def test_onnx_agrees(name, tmp_path):
    onnx_agrees(*network_and_image(name), tmp_path)


def test_onnx_of_sides_that_need_padding(tmp_path):
    onnx_agrees(*network_and_image("unet_small", (19, 16, 9)), tmp_path)


def onnx_agrees(network, x, folder):
    path = folder / "network.onnx"
    export_onnx(network, x.shape[2:], path)
    assert [file.name for file in folder.iterdir()] == ["network.onnx"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), network(x), rtol=1e-3, atol=1e-3)
