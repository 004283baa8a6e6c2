"""The cost told is the cost paid: windows are counted, passes timed."""

import time

import pytest

from abdoseg.inference import TEST_TIME_VIEWS, InferenceSettings
from abdoseg.methods.assemble import build_model, method_for
from abdoseg.methods.dynamic import DynamicModel
from abdoseg.methods.parts import Predictor
from abdoseg.methods.task import Task
from abdoseg.steps.explain_cost import explain_cost
from tests.test_predict import THREE, Nearest, a_model, affine_of, phantom, saved


@pytest.fixture
def scan(tmp_path):
    affine = affine_of("LPS", (2, 2, 4))
    array, _ = phantom((40, 30, 25), affine)
    return saved(tmp_path / "s.nii.gz", array, affine)


def test_windows_are_those_of_a_prediction(scan):
    calls = 0

    class Counting(Nearest):
        def forward(self, x):
            nonlocal calls
            calls += len(x)
            return super().forward(x)

    from abdoseg.steps.predict import predict_file

    for views in (TEST_TIME_VIEWS[:1], TEST_TIME_VIEWS):
        model = a_model(Counting(), inference=InferenceSettings((24, 24, 24), views=views))
        cost = explain_cost(model, scan)
        assert cost.shape[:2] == (40, 30)
        calls = 0
        predict_file(model, scan, scan.parent / "o.nii.gz")
        assert cost.windows == calls
        assert cost.window_seconds_per_structure is None


@pytest.mark.parametrize("as_published", [False, True])
def test_a_pass_for_each_structure_costs_that_many_passes(scan, monkeypatch, as_published):
    """A backbone that takes 20 ms and heads that take 50: 70 ms for all structures, 110 as published."""
    method = method_for("unet_small", "dodnet")
    task = Task(THREE.names, passes_per_structure=as_published)
    predictor = Predictor(build_model("unet_small", "dodnet", task), slow_heads(method.scores)).eval()
    inner = DynamicModel._once

    def once(self, image):
        outputs = inner(self, image)
        time.sleep(0.02)
        return outputs

    monkeypatch.setattr(DynamicModel, "_once", once)
    clock = Clock()
    monkeypatch.setattr("abdoseg.steps.explain_cost.time.perf_counter", clock.now)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    cost = explain_cost(a_model(predictor), scan)
    assert cost.window_seconds == pytest.approx(0.07)
    assert cost.window_seconds_per_structure == pytest.approx(0.11)
    assert cost.seconds_per_structure == pytest.approx(0.11 * cost.windows)


class Clock:
    """Time that only sleeping spends, so that no load of the machine is measured."""

    def __init__(self):
        self.seconds = 0.0

    def now(self):
        return self.seconds

    def sleep(self, seconds):
        self.seconds += seconds


def slow_heads(scores):
    def slowly(outputs):
        time.sleep(0.05)
        return scores(outputs)

    return slowly


def test_a_scan_that_cannot_be_read_is_told(tmp_path):
    from abdoseg.errors import CaseError

    (tmp_path / "s.nii.gz").write_bytes(b"rubbish")
    with pytest.raises(CaseError, match=r"s\.nii\.gz"):
        explain_cost(a_model(), tmp_path / "s.nii.gz")
