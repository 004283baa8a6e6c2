"""Dynamic heads against convolutions as they were published, and what they cost."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from abdoseg.losses import blocks
from abdoseg.methods import dynamic
from abdoseg.methods.assemble import build_model, method_for
from abdoseg.methods.dynamic import DynamicOutputs, head_logits, learnt_structures
from abdoseg.methods.parts import LossSettings
from abdoseg.methods.task import Task

from .inputs import STRUCTURES, TASK, make_batch

SIXTEEN = tuple(f"structure {i}" for i in range(16))


def outputs_for(batch, seed=0, structures=4):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(batch.image), 8, *batch.label.shape[1:])
    features = torch.randn(shape, generator=generator)
    parameters = torch.randn(len(batch.image), structures, 153, generator=generator) * 0.3
    return DynamicOutputs(features.requires_grad_(), parameters.requires_grad_())


def published_head(features, parameters):
    """Return logits of one head on ``(1, 8, X, Y, Z)``: three convolutions of weights, then biases."""
    w = [parameters[:64].view(8, 8, 1, 1, 1), parameters[64:128].view(8, 8, 1, 1, 1), parameters[128:136]]
    b = [parameters[136:144], parameters[144:152], parameters[152:]]
    x = functional.relu(functional.conv3d(features, w[0], b[0]))
    x = functional.relu(functional.conv3d(x, w[1], b[1]))
    return functional.conv3d(x, w[2].view(1, 8, 1, 1, 1), b[2])[0, 0]


def test_heads_are_three_convolutions():
    batch = make_batch()
    features, parameters = outputs_for(batch)
    found = head_logits(features[0].flatten(1), parameters[0])
    for c in range(4):
        expected = published_head(features[:1], parameters[0, c])
        torch.testing.assert_close(found[c].view_as(expected), expected, rtol=1e-4, atol=1e-4)


def test_scores_are_background_where_no_head_reaches_a_half():
    batch = make_batch()
    outputs = outputs_for(batch)
    with torch.no_grad():
        best = dynamic.scores(outputs)[:, 1:].amax(dim=1).flatten(1).median(dim=1).values
        outputs.parameters[..., -1] -= best[:, None]
    labels = dynamic.scores(outputs).argmax(dim=1)
    for b in range(2):
        p = torch.stack([published_head(outputs.features[b : b + 1], q) for q in outputs.parameters[b]]).sigmoid()
        best, index = p.max(dim=0)
        expected = torch.where(best > 0.5, index + 1, 0)
        assert (labels[b] == expected).float().mean() > 0.999  # beside ties by rounding
        assert 0 < (expected == 0).float().mean() < 1


@pytest.mark.parametrize("smooth", ["both", "denominator"])
def test_the_loss_is_the_mean_over_annotated_structures(smooth):
    batch = make_batch()
    outputs = outputs_for(batch)
    expected = []
    for b in range(2):
        terms = []
        for c in batch.annotated[b, 0].nonzero()[:, 0].tolist():
            inside = batch.group[b] == 0
            x = published_head(outputs.features[b : b + 1], outputs.parameters[b, c])[inside]
            g = (batch.label[b] == c + 1)[inside].float()
            bce = functional.binary_cross_entropy_with_logits(x, g)
            p = x.sigmoid()
            above = 2 * (p * g).sum() + (1 if smooth == "both" else 0)
            terms.append(torch.stack([bce, 1 - above / (p.sum() + g.sum() + 1)]))
        expected.append(torch.stack(terms).mean(dim=0))
    wanted = torch.stack(expected).mean(dim=0)
    found = dynamic.loss(outputs, batch, LossSettings(dice_smooth=smooth))
    torch.testing.assert_close(torch.stack(found.terms), wanted, rtol=1e-4, atol=1e-5)
    slopes = torch.autograd.grad(found.total, outputs, retain_graph=True)
    for slope, of_reference in zip(slopes, torch.autograd.grad(wanted.sum(), outputs), strict=True):
        torch.testing.assert_close(slope, of_reference, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("voxels", [1000, 8192, 10_000])
def test_blocks_change_nothing(monkeypatch, voxels):
    """Of 8192 voxels: with a rest, all at once, fewer than there is room for."""
    batch = make_batch((((True, False, True, False), (False, True, True, False)),) * 2)
    outputs = outputs_for(batch)

    def everything():
        found = dynamic.loss(outputs, batch, LossSettings())
        return found.total, *torch.autograd.grad(found.total, outputs), dynamic.scores(outputs)

    whole = everything()
    monkeypatch.setattr(blocks, "_KEPT", 0)
    monkeypatch.setattr(blocks, "_ON_CPU", 8 * 4 * voxels)
    for a, b in zip(everything(), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_an_exported_program_computes_the_same_scores():
    given = tuple(t.detach() for t in outputs_for(make_batch()))

    class Heads(torch.nn.Module):
        def forward(self, features, parameters):
            return dynamic.scores(DynamicOutputs(features, parameters))

    program = torch.export.export(Heads(), given)
    torch.testing.assert_close(program.module()(*given), Heads()(*given), rtol=1e-4, atol=1e-5)
    assert not any("copy" in str(node.target) for node in program.graph.nodes)  # nothing is put in place


def test_an_example_without_a_structure_adds_nothing_in_any_precision():
    batch = make_batch((((True, False, True, False),), ((False,) * 4,)))
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        outputs = DynamicOutputs(*(t.detach().to(dtype).requires_grad_() for t in outputs_for(batch)))
        found = dynamic.loss(outputs, batch, LossSettings())
        assert found.total.dtype == torch.promote_types(dtype, torch.float32)
        slope, of_heads = torch.autograd.grad(found.total, outputs)
        assert slope[0].any()
        assert not slope[1].any()
        assert not of_heads[1].any()


def test_sixteen_heads_keep_no_maps_for_the_gradient():
    """Published code keeps 16 times two maps of 8 channels: 0.7 GB and more at 112^3."""
    annotated = (((True,) * 16,),)
    batch = make_batch(annotated, shape=(48, 48, 48), source=(0,))
    outputs = outputs_for(batch, structures=16)
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        total = dynamic.loss(outputs, batch, LossSettings()).total
    total.backward()
    features = 8 * 4 * 48**3
    assert features <= sum(kept.values()) < 1.1 * features
    assert outputs.features.grad.any()


EVEN = torch.arange(1, 17) % 2 == 0


def learnt(drawn, at_most, looked_for=EVEN, seed=0):
    return learnt_structures(looked_for, drawn, at_most, np.random.default_rng(seed))


def test_the_drawn_structure_is_learnt_first():
    for seed in range(50):
        assert learnt(6, 1, seed=seed) == [6]
        some = learnt(6, 3, seed=seed)
        assert len(some) == 3
        assert 6 in some
        assert some == sorted(some)
        assert set(some) <= set(range(2, 17, 2))
    others = np.bincount([c for seed in range(350) for c in learnt(6, 3, seed=seed) if c != 6], minlength=17)
    assert (others[[2, 4, 8, 10, 12, 14, 16]] > 60).all()  # 100 each


@pytest.mark.parametrize("drawn", [0, -1, 5])
def test_instead_of_background_one_of_those_looked_for_is_learnt(drawn):
    """Also where a view hides the drawn one from the patch."""
    counts = np.bincount([learnt(drawn, 1, seed=seed)[0] for seed in range(400)], minlength=17)
    assert counts[1::2].sum() == 0
    assert (counts[2::2] > 25).all()  # 50 each


def test_all_are_learnt_unless_fewer_are_asked_for():
    assert learnt(6, 0) == learnt(6, 8) == learnt(0, 20) == list(range(2, 17, 2))
    assert learnt(6, 1, torch.zeros(16, dtype=torch.bool)) == []


def learnt_of(batch, **settings):
    outputs = outputs_for(batch)
    dynamic.loss(outputs, batch, LossSettings(tasks_per_step=1, **settings)).total.backward()
    found = outputs.parameters.grad.any(dim=2)
    assert found.sum(dim=1).tolist() == [1, 1]
    assert (found <= batch.annotated.any(dim=1)).all()
    return (found.int().argmax(dim=1) + 1).tolist()


def test_one_task_a_step_learns_the_structure_that_the_sampler_drew():
    batch = make_batch((((True,) * 4,),) * 2, shape=(4, 4, 4))
    for pair in ([1, 2], [3, 3], [4, 1]):
        assert learnt_of(replace(batch, structure=torch.tensor(pair))) == pair


def test_what_is_drawn_beside_the_sampler_depends_on_example_and_seed():
    batch = make_batch((((True,) * 4,),) * 2, shape=(4, 4, 4))
    batch = replace(batch, structure=torch.zeros(2, dtype=torch.int64))

    def drawn(seed, first):
        return learnt_of(replace(batch, number=torch.tensor([first, first + 1])), seed=seed)

    table = [[drawn(seed, first) for first in range(0, 20, 2)] for seed in range(4)]
    assert table == [[drawn(seed, first) for first in range(0, 20, 2)] for seed in range(4)]
    assert len({str(row) for row in table}) == 4
    assert all(len({c for pair in row for c in pair}) > 1 for row in table)


def test_a_structure_that_only_a_group_outside_the_patch_knows_is_not_learnt():
    batch = make_batch((((True, False, False, False), (False, True, True, True)),) * 2, shape=(4, 4, 4))
    batch.group[batch.group == 1] = -1
    outputs = outputs_for(batch)
    dynamic.loss(outputs, batch, LossSettings()).total.backward()
    assert outputs.parameters.grad.any(dim=2).tolist() == [[True, False, False, False]] * 2


@pytest.mark.parametrize(
    ("method", "text", "parameters"),
    [
        ("dodnet", "learned", 67_461_201),
        ("clip_driven", "anything fixed", 67_721_409),
        ("clip_driven", "learned", 67_594_177),
    ],
)
def test_size_on_the_papers_network(method, text, parameters):
    with torch.device("meta"):
        model = build_model("transunet3d", method, Task(SIXTEEN, text_embeddings=text))
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("method", ["dodnet", "clip_driven"])
def test_a_pass_for_each_structure_predicts_the_same(method):
    torch.manual_seed(0)
    once = build_model("unet_small", method, TASK).eval()
    each = build_model("unet_small", method, Task(STRUCTURES, passes_per_structure=True)).eval()
    each.load_state_dict(once.state_dict())
    passes = []
    once.network.register_forward_pre_hook(lambda *_: None)
    features = type(each.network).features

    def counted(self, x):
        passes.append(1)
        return features(self, x)

    image = torch.rand(1, 1, 16, 16, 32)
    scores = method_for("unet_small", method).scores
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(type(each.network), "features", counted)
        expected = scores(once(image))
        assert len(passes) == 1
        assert torch.equal(scores(each(image)), expected)
        assert len(passes) == 1 + 4


def test_the_image_and_the_structure_both_make_the_head():
    torch.manual_seed(0)
    for method in ("dodnet", "clip_driven"):
        model = build_model("unet_small", method, TASK).eval()
        with torch.no_grad():
            parameters = model(torch.rand(2, 1, 16, 16, 32)).parameters
        assert not torch.allclose(parameters[0], parameters[1])
        assert not torch.allclose(parameters[:, 0], parameters[:, 1])
