"""Patches end to end: pure in (seed, t), honest about views, within their memory."""

import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abdoseg import patches as patches_module
from abdoseg.annotation import Annotation
from abdoseg.augmentation.affine import NO_AFFINE
from abdoseg.case import Case, CaseFacts, Foreground
from abdoseg.errors import ConfigError, WorkspaceError
from abdoseg.patches import (
    ByteCache,
    PatchSettings,
    PatchStream,
    case_bytes,
    collate,
    find_candidates,
    foreground_bytes,
)
from abdoseg.sampling import Purpose, stream
from abdoseg.views import View

N = 4
NAMES = ("one", "two", "three", "four")
SHAPE = (18, 20, 22)
PATCH = (8, 9, 10)
PLAIN = PatchSettings(PATCH, affine=NO_AFFINE, seed=3)
TURNED = PatchSettings(PATCH, seed=3)


class FakeReader:
    """A store in memory that counts what it is asked for."""

    def __init__(self, cases):
        self.cases = {case.facts.key: case for case in cases}
        self.reads = []

    def read_case(self, key):
        self.reads.append(key)
        return self.cases[key]

    def read_foreground(self, key):
        return Foreground.of(self.cases[key].label, N)


def make_case(name, annotation, *, source="a", modality="CT", unknown=False, seed=0):
    rng = np.random.default_rng([seed, *name.encode()])
    label = np.zeros(SHAPE, np.uint8)
    for c in range(1, N + 1):
        corner = rng.integers(0, 12, 3)
        label[tuple(slice(a, a + 6) for a in corner)] = c
    if unknown:
        label[:, :, :6] = 255
    facts = CaseFacts(
        case=name, source=source, modality=modality, patient=name, shape=SHAPE, native_shape=SHAPE,
        affine=np.diag([2.0, 2, 2, 1]).tolist(), native_affine=np.diag([2.0, 2, 2, 1]).tolist(),
        scale=1 / 4000, offset=0.5, window=(-400, 400), annotation=annotation.to_json(), fingerprint=name,
        digest="d", settings_digest="s", card_digest="c",
        voxels={n: int((label == c).sum()) for c, n in enumerate(NAMES, start=1)},
    )  # fmt: skip
    return Case(facts, rng.integers(-2000, 2001, SHAPE).astype(np.int16), label)


def thinned(annotation, axes=("axial",), fraction=0.3):
    return View(name="v", axes=axes, fraction=fraction).apply(annotation, "any", SHAPE)


def workplace():
    """Partial, sparse, hybrid, unlabelled and partly unknown cases: ``(shown cases, reader)``."""
    whole, part = Annotation.partial((1, 2, 3, 4), N), Annotation.partial((1, 3), N)
    cases = [
        (make_case("part", part), part),
        (make_case("sparse", whole, source="b"), thinned(whole)),
        (make_case("hybrid", whole, source="b", modality="MR"), thinned(whole, ("coronal", "sagittal"))),
        (make_case("none", Annotation.partial((), N), source="c"), Annotation.partial((), N)),
        (make_case("unknown", whole, source="d", unknown=True), whole),
    ]
    return [(case.facts, shown) for case, shown in cases], FakeReader([case for case, _ in cases])


def stream_of(settings=TURNED, **kwargs):
    shown, reader = workplace()
    return PatchStream(shown, reader, settings, **kwargs)


def contents(patch):
    arrays = (patch.image, patch.label, patch.group, patch.annotated)
    return [a.tobytes() for a in arrays] + [patch.case, patch.structure, patch.centre]


def contents_of(numbers):
    patches = stream_of()
    return [contents(patches.example(t)) for t in numbers]


def shown_volumes(case, shown, axis):
    """Return label and row of every voxel as the view shows them, voxel by voxel through plain numpy."""
    used, groups = shown.slice_groups(axis, SHAPE)
    rows = shown.rows[np.broadcast_to(np.expand_dims(groups, [a for a in range(3) if a != used]), SHAPE)]
    rows = np.where((case.label == 255)[..., None], False, rows)
    value = np.where(case.label <= N, case.label, 0)
    known = np.concatenate([np.zeros((*SHAPE, 1), bool), rows], axis=-1)
    return np.where(np.take_along_axis(known, value[..., None].astype(int), -1)[..., 0], value, 0), rows


def crop(volume, centre, fill=0):
    padded = np.pad(volume, [(20, 20)] * 3 + [(0, 0)] * (volume.ndim - 3), constant_values=fill)
    return padded[tuple(slice(c - n // 2 + 20, c - n // 2 + 20 + n) for c, n in zip(centre, PATCH, strict=True))]


def test_plain_patches_are_crops_of_what_the_view_shows():
    patches = stream_of(PLAIN)
    shown = {facts.key: annotation for facts, annotation in patches.cases}
    seen = set()
    for t in range(150):
        patch = patches.example(t)
        case = patches.reader.cases[patch.case]
        assert np.array_equal(patch.image[0], crop(case.intensity(), patch.centre))
        inside = crop(np.ones(SHAPE, bool), patch.centre)
        assert np.array_equal(patch.group >= 0, inside)
        rows = patch.annotated[patch.group]
        matches = []
        for axis in shown[patch.case].axes() or (None,):
            label, known = shown_volumes(case, shown[patch.case], axis)
            same_rows = np.array_equal(rows[inside], crop(known, patch.centre)[inside])
            matches.append(same_rows and np.array_equal(patch.label, crop(label, patch.centre)))
        assert any(matches)
        seen.add(patch.case)
    assert seen == set(shown)


@pytest.mark.parametrize("settings", [PLAIN, TURNED])
def test_the_drawn_structure_is_at_the_centre(settings):
    patches = stream_of(settings)
    middle = tuple(n // 2 for n in PATCH)
    for t in range(150):
        patch = patches.example(t)
        assert patch.group[middle] >= 0
        assert patch.label[middle] == patch.structure
        if patch.structure:
            assert patch.annotated[patch.group[middle], patch.structure - 1]


@pytest.mark.parametrize("settings", [PLAIN, TURNED])
def test_arrays_are_what_the_loss_takes(settings):
    patches = stream_of(settings)
    for t in range(60):
        patch = patches.example(t)
        assert patch.image.shape == (1, *PATCH)
        assert patch.label.shape == patch.group.shape == PATCH
        assert (patch.image.dtype, patch.label.dtype, patch.group.dtype) == (np.float32, np.uint8, np.int16)
        assert patch.annotated.dtype == bool
        assert 0 <= patch.image.min() <= patch.image.max() <= 1
        used = np.unique(patch.group[patch.group >= 0])
        assert used.tolist() == list(range(len(patch.annotated)))
        labelled = patch.label > 0
        assert patch.annotated[patch.group[labelled], patch.label[labelled].astype(int) - 1].all()


def test_rows_are_no_more_than_needed():
    patches = stream_of(PLAIN)
    for t in range(150):
        patch = patches.example(t)
        empty = (~patch.annotated.any(axis=1)).sum()
        if patch.case in {"a/part", "c/none"}:
            assert len(patch.annotated) == 1
        elif patch.case == "d/unknown":
            assert len(patch.annotated) == 1 + (patch.centre[2] - PATCH[2] // 2 < 6)
        else:
            assert empty <= 1


def test_empty_rows_of_a_source_become_one():
    """A source may number its undrawn slices one by one; no term tells them apart, from unknown voxels neither."""
    rows = np.zeros((SHAPE[2], N), dtype=bool)
    rows[::5] = True
    shown = Annotation(rows, {2: np.arange(SHAPE[2], dtype=np.int32)})
    case = make_case("source", shown, unknown=True)
    patches = PatchStream([(case.facts, shown)], FakeReader([case]), PLAIN)
    assert {int((~patches.example(t).annotated.any(axis=1)).sum()) for t in range(20)} == {1}


@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_annotated_slices_are_not_merged(fraction):
    """The dice term is per slice: a crop has as many annotated groups as annotated slices."""
    whole = Annotation.partial((1, 2, 3, 4), N)
    case = make_case("sparse", whole)
    shown = thinned(whole, fraction=fraction)
    patches = PatchStream([(case.facts, shown)], FakeReader([case]), PLAIN)
    drawn = shown.rows[shown.slices[2]].any(axis=1)
    for t in range(30):
        patch = patches.example(t)
        first = patch.centre[2] - PATCH[2] // 2
        expected = drawn[max(first, 0) : first + PATCH[2]].sum()
        assert patch.annotated.any(axis=1).sum() == expected
        groups = [np.unique(patch.group[:, :, z][patch.group[:, :, z] >= 0]) for z in range(PATCH[2])]
        assert all(len(group) <= 1 for group in groups)


def test_rotation_tilts_slices_but_keeps_them_apart():
    whole = Annotation.partial((1, 2, 3, 4), N)
    case = make_case("sparse", whole)
    patches = PatchStream([(case.facts, thinned(whole))], FakeReader([case]), TURNED)
    assert any(
        len(np.unique(patch.group[:, :, z])) > 2 for patch in map(patches.example, range(20)) for z in range(PATCH[2])
    )


@given(st.permutations(range(12)), st.sampled_from([0, 30_000, 2**30]))
def test_examples_do_not_depend_on_order_or_memory(order, cache_bytes):
    patches = stream_of(cache_bytes=cache_bytes)
    found = {t: contents(patches.example(t)) for t in order}
    assert [found[t] for t in range(12)] == REFERENCE


REFERENCE = contents_of(range(12))


def test_another_process_cuts_the_same():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(contents_of, [5, 0, 9]).result() == [REFERENCE[t] for t in (5, 0, 9)]


def test_a_pickled_stream_goes_on_the_same():
    patches = stream_of()
    patches.example(1)
    again = pickle.loads(pickle.dumps(patches))
    assert len(again.cache) == 0
    assert [contents(again.example(t)) for t in (3, 2)] == [REFERENCE[3], REFERENCE[2]]


def test_seed_changes_what_is_drawn_and_how_it_is_turned():
    by_seed = [stream_of(PatchSettings(PATCH, seed=seed)) for seed in (0, 1)]
    centres = [[p.example(t).centre for t in range(20)] for p in by_seed]
    assert centres[0] != centres[1]


def test_voxel_and_rotation_have_streams_of_their_own():
    """Augmentation on or off: the same voxels are drawn."""
    plain, turned = stream_of(PLAIN), stream_of(TURNED)
    for t in range(30):
        a, b = plain.example(t), turned.example(t)
        assert (a.case, a.structure, a.centre) == (b.case, b.structure, b.centre)
        assert not np.array_equal(a.image, b.image)


def test_each_purpose_has_its_own_numbers(monkeypatch):
    """A rotation that reuses the voxel's numbers would turn every place its own way."""
    asked = []
    monkeypatch.setattr(patches_module, "stream", lambda *where: asked.append(where) or stream(*where))
    stream_of(TURNED).example(7)
    assert sorted(asked) == [(3, 7, Purpose.VOXEL), (3, 7, Purpose.SPACE)]


def test_random_sampler_draws_any_voxel():
    patches = stream_of(PatchSettings(PATCH, sampler="random", seed=1))
    drawn = [patches.example(t) for t in range(60)]
    assert {patch.structure for patch in drawn} == {None}
    assert {patch.case for patch in drawn} == {facts.key for facts, _ in patches.cases}


def test_mix_alternates_partial_and_sparse():
    settings = PatchSettings(PATCH, affine=NO_AFFINE, mix=(("partial", 0.5), ("sparse", 0.5)))
    patches = stream_of(settings)
    sparse = sum(patches.example(t).case.startswith("b/") for t in range(200))
    assert 70 < sparse < 130


def test_candidates_by_facts_are_those_by_voxels():
    shown, reader = workplace()
    by_facts, by_voxels = find_candidates(shown, reader, NAMES), find_candidates(shown, reader)
    assert np.array_equal(by_facts.has, by_voxels.has)
    assert by_facts.kinds == ("partial", "sparse", "sparse", "partial", "partial")
    whole = [(facts, annotation) for facts, annotation in shown if not annotation.slices]
    find_candidates(whole, None, NAMES)  # nothing is read


class CountingCache(ByteCache):
    """Notes the largest fill."""

    highest = 0

    def get(self, key, load, size_of):
        value = super().get(key, load, size_of)
        assert self.used == sum(size for size, _ in self._entries.values())
        self.highest = max(self.highest, self.used)
        return value


@pytest.mark.parametrize("n_cases", [0, 1, 2.5, 20])
def test_cache_keeps_to_its_budget(n_cases):
    shown, reader = workplace()
    budget = int(n_cases * case_bytes(next(iter(reader.cases.values()))))
    patches = PatchStream(shown, reader, TURNED, budget)
    patches.cache = CountingCache(budget)
    for t in range(60):
        patches.example(t)
    assert patches.cache.highest <= budget
    if n_cases == 20:
        assert len(reader.reads) == len(set(reader.reads)) == len(shown)
    if n_cases == 0:
        assert len(reader.reads) == 60


def test_cache_drops_what_was_used_longest_ago():
    cache, loads = ByteCache(2), []

    def ask(key):
        return cache.get(("x", key), lambda: loads.append(key) or key, lambda _: 1)

    for key in "abacaab":
        assert ask(key) == key
    assert loads == list("abcb")
    assert cache.used == 2
    cache.get(("x", "huge"), lambda: "huge", lambda _: 3)
    assert len(cache) == 2


def test_cache_counts_all_bytes():
    shown, reader = workplace()
    case = reader.cases[shown[0][0].key]
    assert case_bytes(case) == 3 * np.prod(SHAPE)
    foreground = reader.read_foreground(shown[0][0].key)
    assert foreground_bytes(foreground) == 4 * foreground.counts().sum() + 8 * (N + 1)


def test_batches_pad_groups_with_empty_rows():
    patches = [stream_of(PLAIN).example(t) for t in range(8)]
    batch = collate(patches)
    widest = max(len(patch.annotated) for patch in patches)
    assert batch.image.shape == (8, 1, *PATCH)
    assert batch.label.shape == batch.group.shape == (8, *PATCH)
    assert batch.annotated.shape == (8, widest, N)
    assert batch.cases == tuple(patch.case for patch in patches)
    assert len({len(patch.annotated) for patch in patches}) > 1
    for i, patch in enumerate(patches):
        assert np.array_equal(batch.image[i], patch.image)
        assert np.array_equal(batch.label[i], patch.label)
        assert np.array_equal(batch.group[i], patch.group)
        assert np.array_equal(batch.annotated[i, : len(patch.annotated)], patch.annotated)
        assert not batch.annotated[i, len(patch.annotated) :].any()


def test_slice_lists_must_fit():
    shown, reader = workplace()
    wrong = Annotation.partial((1,), N).thinned({2: np.ones(SHAPE[2] + 1, dtype=bool)})
    with pytest.raises(WorkspaceError, match=r"a/part.*sparsify"):
        PatchStream([(shown[0][0], wrong)], reader)


def test_a_structure_that_is_gone_is_told_by_its_case():
    shown, reader = workplace()
    patches = PatchStream(shown[:1], reader, PLAIN)
    reader.read_foreground = lambda _: Foreground.of(np.zeros(SHAPE, np.uint8), N)
    with pytest.raises(WorkspaceError, match="a/part"):
        [patches.example(t) for t in range(20)]


def test_shapes_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="patch shape"):
        PatchSettings((0, 4, 4))


def test_nothing_here_loads_torch():
    code = "import sys, abdoseg.patches; sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
