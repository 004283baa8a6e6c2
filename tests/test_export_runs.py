"""Runs for other programs: MONAI's own bundle runner gives the labels of `abdoseg predict`; ONNX gives the scores."""

import json
import subprocess
import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import nn

from abdoseg.anatomy import ABDOMEN
from abdoseg.errors import ConfigError, RunError, WorkspaceError
from abdoseg.geometry import axis_positions, from_canonical, spacing_of, to_canonical
from abdoseg.harmonise import harmonise_image
from abdoseg.inference import sliding_window_logits
from abdoseg.methods.assemble import build_model, method_for
from abdoseg.methods.parts import Predictor
from abdoseg.methods.task import Task
from abdoseg.model import SegmentationModel
from abdoseg.sharing import monai_bundle, onnx_model
from abdoseg.sharing.agreement import require_agreement
from abdoseg.sharing.parts import SharedRun
from abdoseg.steps.predict import predict_file
from abdoseg.windows import Windows
from tests.conftest import write_nifti
from tests.test_predict import THREE, Nearest, a_model, affine_of, phantom

# torch.jit is deprecated in favour of torch.export, whose programs MONAI's evaluator cannot run.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

METHODS = ("self_disambiguation", "sigmoid", "multi_head", "dodnet", "clip_driven")


class Blurred(nn.Module):
    """Scores from the neighbourhood of a voxel, so that windows and their weights matter."""

    def __init__(self):
        super().__init__()
        self.of_intensity = Nearest()
        self.blur = nn.Conv3d(1, 1, 3, padding=1, bias=False)
        with torch.no_grad():
            self.blur.weight.copy_(torch.rand(1, 1, 3, 3, 3, generator=torch.Generator().manual_seed(3)))
            self.blur.weight /= self.blur.weight.sum()

    def forward(self, x):
        return self.of_intensity(self.blur(x))


def shared(model):
    card = {
        "abdoseg": "0",
        "network": "n",
        "method": "m",
        "steps": 5,
        "sources": {"a": {"title": "A source"}},
        "intended_use": "Research.",
    }
    return SharedRun(model, card, "# page\n")


def method_model(method, sides=(16, 16, 16)):
    task = Task(THREE.names, sources=(("a", (1, 2)), ("b", (2, 3))))
    torch.manual_seed(0)
    trained = build_model("unet_small", method, task)
    network = Predictor(trained.for_prediction(), method_for("unet_small", method).scores).eval()
    return SegmentationModel(network, THREE, 2.0, Windows(), sides)


def native_scores(model, file, modality):
    """Scores of all classes on the scan's own grid, by SciPy."""
    image = nib.load(file)
    array = np.asarray(image.dataobj)
    harmonised = harmonise_image(array, image.affine, modality, model.windows, model.spacing_mm)
    intensity = harmonised.intensity()
    scores = sliding_window_logits(model.network, intensity, model.settings())
    canonical, affine = to_canonical(array, image.affine)
    step = np.array(spacing_of(affine)) / model.spacing_mm
    where = np.meshgrid(*axis_positions(canonical.shape, step, intensity.shape), indexing="ij")
    return np.stack([from_canonical(map_coordinates(one, where, order=1), image.affine) for one in scores])


def assert_equal_but_for_ties(found, expected, scores):
    different = found != expected
    assert different.mean() < 0.01
    if different.any():
        mine, other = (np.take_along_axis(scores, one[None].astype(int), 0)[0] for one in (found, expected))
        # A level of the intensities, 1/800 of the window, changes the scores of these networks by at most 0.25.
        assert np.abs(mine - other)[different].max() < 0.3
        assert np.median(np.abs(mine - other)[different]) < 0.1


RUN_ALL = """
import json, runpy, sys
sys.modules["abdoseg"] = None  # importing it is an error
for arguments in json.load(open(sys.argv[1])):
    sys.argv = ["monai.bundle", *arguments]
    runpy.run_module("monai.bundle", run_name="__main__")
from monai.bundle import ConfigWorkflow
config, meta, root = (arguments[i] for i in (2, 4, 6))
workflow = ConfigWorkflow(config, meta, None, workflow_type="infer", bundle_root=root)
workflow.initialize()
print("MISSING", workflow.check_properties())
"""


def noisy(path, shape, affine, modality="CT"):
    array, _ = phantom(shape, affine)
    rng = np.random.default_rng(0)
    if modality == "MR":
        array = np.clip(array + 100, 0, None) * 3
    return write_nifti(path, array + rng.integers(0, 30, shape).astype(np.int16), affine)


SCANS = {
    "straight": ("RAS", (2, 2, 2), 0.0, "CT", (24, 24, 24)),
    "thick slices": ("LPS", (1.6, 1.6, 3.1), 0.0, "CT", (24, 24, 24)),
    "oblique": ("SAL", (4.1, 1.3, 2.2), 0.2, "CT", (24, 24, 24)),
    "mr": ("LPS", (1.6, 1.6, 3.1), 0.0, "MR", (24, 24, 24)),
    "smaller than a window": ("LPS", (2, 2, 2), 0.0, "CT", (60, 59, 64)),
}


def model_of(name):
    modality, patch = SCANS[name][3:]
    network = Blurred() if modality == "CT" else Nearest((-400, -100, 100, 350))
    return replace(a_model(network), patch_shape=patch)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A folder for each of SCANS, with MONAI's labels in it; and what the runner printed."""
    root = tmp_path_factory.mktemp("bundles")
    jobs = []
    for name, (codes, spacing_mm, angle, modality, _) in SCANS.items():
        folder = root / name
        noisy(folder / "scans" / "a.nii.gz", (22, 31, 26), affine_of(codes, spacing_mm, angle), modality)
        monai_bundle.write(shared(model_of(name)), folder / "bundle")
        configs = folder / "bundle" / "configs"
        files = ["--config_file", str(configs / "inference.json"), "--meta_file", str(configs / "metadata.json")]
        places = ["--dataset_dir", str(folder / "scans"), "--output_dir", str(folder / "labels")]
        own = ["--bundle_root", str(folder / "bundle"), "--modality", modality]
        jobs.append(["run", *files, *own, *places])
    jobs.append(["verify_net_in_out", *files, *own, "--net_id", "network_def", "--device", "cpu"])
    (root / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, "-c", RUN_ALL, str(root / "jobs.json")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return root, done.stdout


@pytest.mark.parametrize("name", SCANS)
def test_monais_command_line_gives_the_labels_of_predict_without_abdoseg(ran, tmp_path, name):
    folder, model, modality = ran[0] / name, model_of(name), SCANS[name][3]
    predict_file(model, folder / "scans" / "a.nii.gz", tmp_path / "ours.nii.gz", modality.lower())
    found, ours = nib.load(folder / "labels" / "a.nii.gz"), nib.load(tmp_path / "ours.nii.gz")
    np.testing.assert_allclose(found.affine, ours.affine, atol=1e-4)
    labels = np.asarray(ours.dataobj)
    assert len(np.unique(labels)) > 2
    scores = native_scores(model, folder / "scans" / "a.nii.gz", modality)
    assert_equal_but_for_ties(np.asarray(found.dataobj), labels, scores)


def test_monai_finds_what_it_asks_of_a_bundle(ran):
    root, printed = ran
    assert "MISSING []" in printed
    facts = json.loads((root / "straight" / "bundle" / "configs" / "metadata.json").read_text())
    required = {"schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version", "task"}
    required |= {"description", "authors", "copyright", "network_data_format", "required_packages_version"}
    assert required <= facts.keys()
    assert facts["version"] in facts["changelog"]
    assert facts["network_data_format"]["outputs"]["pred"]["channel_def"]["3"] == "liver"


@pytest.mark.parametrize("method", METHODS)
def test_networks_of_all_methods_in_a_bundle(tmp_path, method):
    model = method_model(method)
    monai_bundle.write(shared(model), tmp_path / "bundle")
    written = torch.jit.load(str(tmp_path / "bundle" / "models" / "model.ts"))
    image = torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        torch.testing.assert_close(written(image), model.network(image), rtol=1e-4, atol=1e-4)
    assert written(image).shape == (1, 4, 16, 16, 16)


@pytest.mark.parametrize("method", ["multi_head", "dodnet"])  # sums over heads; a head for each structure, in chunks
def test_networks_with_other_heads_as_onnx(tmp_path, method):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = method_model(method)
    report = onnx_model.write(shared(model), tmp_path)
    assert report.difference <= 1e-3
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    image = torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(7))
    (found,) = session.run(None, {"image": image.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, model.network(image).numpy(), rtol=1e-3, atol=1e-3)
    facts = json.loads((tmp_path / "model.json").read_text())
    assert facts["classes"] == {"0": "background", "1": "spleen", "2": "right_kidney", "3": "liver"}
    assert facts["input"]["shape"] == [1, 1, 16, 16, 16] == session.get_inputs()[0].shape
    assert facts["intensities"]["CT"] == {"low_hu": -400.0, "high_hu": 400.0, "levels": 800}
    assert facts["opset"]["ai.onnx"] >= 17
    assert (session.get_inputs()[0].name, session.get_outputs()[0].name) == (facts["input_name"], facts["output_name"])


def test_what_computes_something_else_is_not_written(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    from abdoseg.networks.exporting import export_onnx

    wrong = Nearest((-1000, -90, 60, 300))
    monkeypatch.setattr(
        onnx_model, "export_onnx", lambda network, patch, path: export_onnx(wrong_of(wrong), patch, path)
    )
    with pytest.raises(RunError, match="differ from the run's"):
        onnx_model.write(shared(a_model()), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def wrong_of(network):
    network.nothing = nn.Parameter(torch.zeros(1))  # an exporter reads the type from a weight
    return network


@pytest.mark.parametrize("value", [1.01, float("nan")])
def test_disagreement_is_found(value):
    network = Nearest()
    with pytest.raises(RunError, match="the copy: its scores differ"):
        require_agreement(network, lambda x: network(x) * value, (4, 4, 4), "the copy")
    assert require_agreement(network, network, (4, 4, 4), "the copy") == 0


def test_a_missing_package_is_said(monkeypatch):
    monkeypatch.setattr(onnx_model.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else 1)
    with pytest.raises(ConfigError, match=r"needs onnxscript; `pip install 'abdoseg\[onnx\]'`"):
        onnx_model.require_onnx()


def test_a_bundle_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    out = tmp_path / "bundle"
    monai_bundle.write(shared(a_model()), out)
    before = (out / "configs" / "metadata.json").read_text()

    def full(*_args, **_changes):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(monai_bundle, "_write_json", full)
    with pytest.raises(WorkspaceError, match="bundle: cannot be written"):
        monai_bundle.write(shared(a_model(Blurred())), out)
    assert (out / "configs" / "metadata.json").read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_command_line(abdoseg, word_source, tmp_path):
    pytest.importorskip("onnxruntime")
    abdoseg("ingest", "word", word_source)
    assert abdoseg("export", "--to", "onnx", "--out", "o").status == 2
    tiny = ("--steps", 2, "--set", "patch=[16,16,16]", "--set", "batch=1", "--name", "r")
    assert abdoseg("train", "--preset", "small", *tiny).status == 0
    found = abdoseg("export", "r", "--to", "onnx", "--out", "o")
    assert (found.status, found.out) == (0, "wrote o/model.onnx\nwrote o/model.json\n")
    again = abdoseg("export", "r", "--to", "onnx", "--out", "o")
    assert again.status == 2
    assert "o/model.onnx: is there already; choose another --out, or --force" in again.err
    assert abdoseg("export", "r", "--to", "onnx", "--out", "o", "--force").status == 0

    found = abdoseg("export", "--to", "monai-bundle", "--out", "b")
    assert (found.status, found.out) == (0, "wrote b\n")
    facts = json.loads((tmp_path / "b" / "configs" / "metadata.json").read_text())
    assert facts["abdoseg"]["run"] == "r"
    assert list(facts["abdoseg"]["classes"].values()) == ["background", *ABDOMEN.names]
    assert "WORD" in facts["data_source"]
    assert "| WORD" in (tmp_path / "b" / "docs" / "README.md").read_text()
    assert abdoseg("export", "--to", "monai-bundle", "--out", "b").status == 2
    assert abdoseg("export", "--to", "monai-bundle", "--out", "b", "--force").status == 0
    other = abdoseg("export", "--to", "monai-bundle", "--out", "workspace", "--force")
    assert other.status == 2
    assert "is no MONAI bundle and is not replaced" in other.err
    assert "Did you mean onnx?" in abdoseg("export", "--to", "onx", "--out", "x").err
    assert "--split: of an export of cases" in abdoseg("export", "--to", "onnx", "--out", "x", "--split", "val").err
    assert "takes one run" in abdoseg("export", "r", "s", "--to", "onnx", "--out", "x").err
    assert not (tmp_path / "x").exists()
