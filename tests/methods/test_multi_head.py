"""A head a source: which labels teach which head, and how heads are joined."""

import numpy as np
import pytest
import torch

from abdoseg.errors import ConfigError
from abdoseg.methods import multi_head
from abdoseg.methods.assemble import build_model
from abdoseg.methods.parts import LossSettings
from abdoseg.methods.task import Task

from .inputs import STRUCTURES, TASK, make_batch
from .test_losses import focal_and_dice, softmax


def built(task=TASK, seed=0):
    torch.manual_seed(seed)
    return build_model("unet_small", "multi_head", task)


def test_each_example_teaches_its_own_sources_head():
    model, batch = built(), make_batch()
    outputs = model(batch.image, batch.source)
    assert [(len(own.logits), own.ids) for own in outputs] == [(3, (1, 3)), (4, (2, 3, 4))]
    expected = []
    for i, (logits, ids) in enumerate(outputs):
        inside = (batch.group[i] >= 0).flatten().numpy()
        x = logits.detach().flatten(1).numpy().astype(np.float64)[:, inside]
        label = batch.label[i].flatten().numpy()[inside]
        own = np.select([label == c for c in ids], range(1, len(ids) + 1), 0)
        expected.append(focal_and_dice(softmax(x), own))
    found = multi_head.loss(outputs, batch, LossSettings())
    np.testing.assert_allclose([t.item() for t in found.terms], np.mean(expected, axis=0), rtol=1e-5)


def test_a_head_learns_from_its_own_source_alone():
    model = built()
    batch = make_batch(source=(0, 0), annotated=(((True, False, True, False),),) * 2)
    multi_head.loss(model(batch.image, batch.source), batch, LossSettings()).total.backward()
    assert not any(p.grad.any() for p in model.heads["1"].parameters())
    assert all(p.grad.any() for p in model.network.head.parameters())


def test_a_structures_probability_is_the_mean_over_the_heads_that_have_it():
    model, image = built().eval(), torch.rand(1, 1, 16, 16, 32)
    with torch.no_grad():
        heads = [model(image, torch.tensor([source]))[0].logits.double().softmax(dim=0) for source in (0, 1)]
        scores = model(image)[0].double()
    a, b = heads
    mean = torch.stack([a[1], b[1], (a[2] + b[2]) / 2, b[3]])
    torch.testing.assert_close(scores[1:].sigmoid(), mean, rtol=1e-3, atol=1e-5)
    best, index = mean.max(dim=0)
    assert torch.equal(scores.argmax(dim=0), torch.where(best > 0.5, index + 1, 0))


def test_a_structure_no_source_annotates_is_never_predicted():
    task = Task(STRUCTURES, sources=(("a", (1, 3)), ("b", (3,))))
    with torch.no_grad():
        labels = built(task).eval()(torch.rand(1, 1, 16, 16, 32)).argmax(dim=1)
    assert set(labels.unique().tolist()) <= {0, 1, 3}


def test_a_decoder_for_each_source():
    shared, own = built(), built(Task(TASK.structures, TASK.sources, decoder_per_source=True))
    decoder = sum(p.numel() for p in shared.network.decoder.parameters())
    sizes = [sum(p.numel() for p in model.parameters()) for model in (shared, own)]
    assert sizes[1] - sizes[0] == decoder
    batch = make_batch(source=(1, 1), annotated=(((False, True, True, True),),) * 2)
    multi_head.loss(own(batch.image, batch.source), batch, LossSettings()).total.backward()
    assert any(p.grad.any() for p in own.decoders["1"].parameters())
    assert not any(p.grad.any() for p in own.network.decoder.parameters())


def test_without_annotation_there_is_nothing_to_build():
    with pytest.raises(ConfigError, match="multi_head: no source annotates a structure"):
        built(Task(STRUCTURES, sources=(("a", ()),)))
