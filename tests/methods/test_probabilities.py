"""What scores mean as probabilities: of classes that exclude each other, or of heads that do not; by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import nn

from abdoseg.annotation import Annotation
from abdoseg.ensemble import ensemble_of
from abdoseg.inference import InferenceSettings, sliding_window_logits
from abdoseg.inference.restoring import Uncertainty
from abdoseg.methods import METHODS
from abdoseg.methods.assemble import build_model, method_for
from abdoseg.methods.parts import Predictor
from abdoseg.methods.pseudo_label import label_case
from abdoseg.progress import SILENT
from abdoseg.readers import Scan
from abdoseg.segmentation import Clock, segment
from tests.test_predict import a_model

from .inputs import TASK

INDEPENDENT = {"sigmoid", "multi_head", "dodnet", "clip_driven"}
NOTHING_KNOWN = Annotation(np.zeros((1, 16), dtype=bool))
CERTAINLY_NOT = -30.0


def voxel(*logits, n=16, rest=CERTAINLY_NOT):
    """Return scores ``(1 + n, 1, 1, 1)`` of heads: the logits given, then ``rest``."""
    values = [0.0, *logits, *[rest] * (n - len(logits))]
    return np.array(values, dtype=np.float32)[:, None, None, None]


def logit(p):
    return math.log(p / (1 - p))


def labelled(scores, confidence=0.9, annotation=NOTHING_KNOWN, *, independent=True):
    empty = np.zeros((1, 1, 1), dtype=np.uint8)
    return int(label_case(empty, annotation, scores, confidence, independent=independent)[0, 0, 0])


@pytest.mark.parametrize("name", list(METHODS))
def test_methods_say_what_their_scores_are(name):
    torch.manual_seed(0)
    method = method_for("unet_small", name)
    assert method.independent == (name in INDEPENDENT)
    predictor = Predictor(build_model("unet_small", name, TASK), method.scores, independent=method.independent).eval()
    with torch.no_grad():
        scores = predictor(torch.rand(1, 1, 16, 16, 32))
    assert bool((scores[:, 0] == 0).all()) == method.independent


def test_background_is_sure_where_all_heads_deny():
    """16 structures at 0.047: background has 0.953. A softmax over 17 would give it 0.56."""
    denied = voxel(rest=-3.0)
    assert labelled(denied, 0.9) == 0
    assert labelled(denied, 0.952) == 0
    assert labelled(denied, 0.953) == 255
    assert labelled(denied, 0.9, independent=False) == 255


def test_two_heads_that_claim_a_voxel_do_not_make_each_other_unsure():
    """The most probable is taken, as in the label map; a softmax would give each half."""
    assert labelled(voxel(4.0, 4.1), 0.9) == 2
    assert labelled(voxel(4.1, 4.0), 0.9) == 1
    assert labelled(voxel(4.0, 4.1), 0.9, independent=False) == 255
    assert labelled(voxel(40.0, 41.0), 0.9) == 2  # both are 1 in float32


@pytest.mark.parametrize(
    ("p", "confidence", "expected"),
    [(0.88, 0.9, 255), (0.92, 0.9, 1), (0.2, 0.9, 255), (0.08, 0.9, 0), (0.6, 0.5, 1), (0.4, 0.5, 0), (0.4, 0.7, 255)],
)
def test_one_head_at_a_time(p, confidence, expected):
    assert labelled(voxel(logit(p)), confidence) == expected


def test_a_structure_that_was_looked_for_is_no_label_and_makes_background_unsure():
    annotation = Annotation.partial([1], 16)
    assert labelled(voxel(4.0, -3.0), 0.9, annotation) == 255  # background: 1 - 0.982
    assert labelled(voxel(4.0, 3.0), 0.9, annotation) == 2
    assert labelled(voxel(-3.0, -3.0), 0.9, annotation) == 0


def binary_entropy(p):
    return -(p * math.log2(p) + (1 - p) * math.log2(1 - p))


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([-3.0] * 16, binary_entropy(float(expit(-3.0)))),  # 0.275; a softmax would say 0.60
        ([4.0, 4.1], binary_entropy(float(expit(4.0)))),  # 0.130; a softmax 0.25
        ([0.0], 1.0),
        ([logit(0.9), logit(0.3)], binary_entropy(0.3)),
        ([CERTAINLY_NOT], 0.0),
    ],
)
@pytest.mark.parametrize("as_probabilities", [False, True])
def test_uncertainty_is_that_of_the_least_certain_head(logits, expected, as_probabilities):
    scores = voxel(*logits)
    undecided = Uncertainty((1, 1, 1), probabilities=as_probabilities, independent=True)
    box = (slice(0, 1),) * 3
    given = expit(scores) if as_probabilities else scores
    for _, handed_on in undecided.watched([(box, given)]):
        assert np.array_equal(handed_on, given)
    assert undecided.map[0, 0, 0] == pytest.approx(expected, abs=1e-5)


class Heads(nn.Module):
    """The same scores for every patch: a column a voxel along X, each ``(1 + N,)``."""

    def __init__(self, columns, *, independent=True):
        super().__init__()
        self.columns, self.independent_heads = torch.tensor(columns, dtype=torch.float32), independent

    def forward(self, x):
        rows = self.columns.T[None, :, :, None, None]
        return rows.expand(len(x), -1, -1, *x.shape[3:]).contiguous()


def heads(*p):
    """Return scores of heads with these probabilities."""
    return [0.0, *map(logit, p)]


def everywhere(columns, settings=None, **kind):
    return a_model(Heads(columns, **kind), patch_shape=(4, 4, 4), inference=settings)


def ensemble_at(*columns_of_models):
    """Return scores and label of an ensemble at one voxel; a model is ``(its column, independent)``."""
    models = [everywhere([column] * 4, independent=independent) for column, independent in columns_of_models]
    together = ensemble_of(models)
    found = sliding_window_logits(together.network, np.zeros((4, 4, 4), np.float32), together.settings())
    return together, found[:, 0, 0, 0]


def test_windows_average_the_probabilities_of_heads():
    """Window 0 covers voxels 0 to 3, window 2 voxels 2 to 5: voxel 2 is the third of one and the first of the other."""
    columns = [heads(0.9, 0.2, 0.1), heads(0.9, 0.2, 0.1), heads(0.2, 0.7, 0.1), heads(0.1, 0.9, 0.1)]
    settings = InferenceSettings((4, 4, 4), weights="constant", average="softmax")
    found = sliding_window_logits(Heads(columns), np.zeros((6, 4, 4), np.float32), settings)
    np.testing.assert_allclose(found[:, 2, 0, 0], [0.5, 0.55, 0.45, 0.1], atol=1e-6)
    np.testing.assert_allclose(found[:, 5, 0, 0], [0.5, 0.1, 0.9, 0.1], atol=1e-6)
    assert found.argmax(axis=0)[:, 0, 0].tolist() == [1, 1, 1, 2, 2, 2]


def test_an_ensemble_of_heads_is_background_where_no_mean_reaches_a_half():
    _, scores = ensemble_at((heads(0.9, 0.2, 0.1), True), (heads(0.2, 0.4, 0.1), True))
    np.testing.assert_allclose(scores, [0.5, 0.55, 0.3, 0.1], atol=1e-6)
    assert scores.argmax() == 1
    # 0.485 on average. Softmaxes would give background 0.36 and the structure 0.37.
    together, scores = ensemble_at((heads(0.7, 0.27, 0.27), True), (heads(0.27, 0.27, 0.27), True))
    assert scores.argmax() == 0
    assert together.independent_heads


def test_certain_heads_do_not_make_an_ensemble_infinite():
    column = [0.0, 200.0, -200.0, -200.0]
    together, scores = ensemble_at((column, True), (column, True))
    assert scores.argmax() == 1
    assert together.network(torch.zeros(1, 1, 4, 4, 4)).isfinite().all()


def test_an_ensemble_of_both_kinds_averages_classes():
    """Classes of the one 0.5, 0.3, 0.1, 0.1; of the other background 1 - 0.7."""
    classes = [math.log(p) for p in (0.5, 0.3, 0.1, 0.1)]
    together, scores = ensemble_at((classes, False), (heads(0.7, 0.1, 0.1), True))
    mean = np.array([0.4, 0.5, 0.1, 0.1])
    np.testing.assert_allclose(scores, mean / mean.sum(), atol=1e-6)
    assert not together.independent_heads


@pytest.mark.parametrize("average", ["logits", "softmax"])
def test_a_predictions_uncertainty_knows_the_heads(average):
    settings = InferenceSettings((4, 4, 4), average=average)
    model = everywhere([heads(0.05, 0.05, 0.05)] * 4, settings)
    ramp = np.arange(64, dtype=np.float32).reshape(4, 4, 4)
    scan = Scan(ramp, np.diag([2.0, 2.0, 2.0, 1.0]))
    label, undecided = segment(model, scan, "CT", settings, (Clock(), SILENT), uncertainty=True)
    assert not label.any()
    np.testing.assert_allclose(undecided / 10_000, binary_entropy(0.05), atol=1e-3)
