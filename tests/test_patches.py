"""Patches end to end: pure in (seed, t), honest about views, within their memory."""

import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abdoseg import patches as patches_module
from abdoseg.annotation import Annotation
from abdoseg.augmentation.affine import NO_AFFINE, draw_affine
from abdoseg.augmentation.flip import FlipSettings
from abdoseg.augmentation.intensity import IntensityParameters, IntensitySettings, draw_intensity
from abdoseg.case import Case, CaseFacts, Foreground
from abdoseg.errors import ConfigError, WorkspaceError
from abdoseg.kernels.patch import Cut, cut_patch, reach_of
from abdoseg.patches import PatchSettings, PatchStream, collate, find_candidates
from abdoseg.sampling import Purpose, candidate_voxels, stream
from abdoseg.store import Workspace
from abdoseg.store.arrays import OpenCase, write_case
from abdoseg.store.cache import case_bytes
from abdoseg.store.chunks import ShardedArray
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

    def open_case(self, key):
        self.reads.append(key)
        case = self.cases[key]
        return OpenCase(case.facts.digest, case.image, case.label, self.read_foreground(key))

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
    return View(name="v", axes=axes, fraction=fraction).apply(annotation, "any", SHAPE, {})


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
    settings = PatchSettings(PATCH, affine=NO_AFFINE, weights={"kind": {"partial": 0.5, "sparse": 0.5}})
    patches = stream_of(settings)
    sparse = sum(patches.example(t).case.startswith("b/") for t in range(200))
    assert 70 < sparse < 130


# -- read from disk, box by box --------------------------------------------------------------------------------------

DISK_SHAPE = (70, 45, 81)
DISK = PatchSettings((40, 36, 44), seed=5)


def large_case(name, annotation, **kwargs):
    case = make_case(name, annotation, **kwargs)
    rng = np.random.default_rng([7, *name.encode()])
    label = np.zeros(DISK_SHAPE, np.uint8)
    for c in range(1, N + 1):
        corner = rng.integers(0, 28, 3)
        label[tuple(slice(a, a + 14) for a in corner)] = c
    label[:, :5, :40] = 255
    facts = case.facts.model_copy(update={"shape": DISK_SHAPE, "digest": name, "voxels": {}})
    return Case(facts, rng.integers(-2000, 2001, DISK_SHAPE).astype(np.int16), label)


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    """``(shown cases, workspace, cases by key)``: partial, sparse, hybrid and unlabelled, stored."""
    root = tmp_path_factory.mktemp("disk")
    workspace = Workspace.create(root)
    whole, part = Annotation.partial((1, 2, 3, 4), N), Annotation.partial((1, 3), N)

    def view(axes):
        return View(name="v", axes=axes, fraction=0.3).apply(whole, "any", DISK_SHAPE, {})

    shown = [
        (large_case("part", part), part),
        (large_case("sparse", whole, source="b"), view(("axial",))),
        (large_case("hybrid", whole, source="b", modality="MR"), view(("coronal", "sagittal"))),
        (large_case("none", Annotation.partial((), N), source="c"), Annotation.partial((), N)),
    ]
    for case, _ in shown:
        write_case(workspace.case_folder(case.facts.key), root / "in", case, Foreground.of(case.label, N))
    return [(case.facts, annotation) for case, annotation in shown], workspace, {c.facts.key: c for c, _ in shown}


def whole_centre(t, structure, case, annotation, seed):
    """Choose the centre with all arrays at hand, in plain numpy."""
    generator = stream(seed, t, Purpose.VOXEL)
    axes = annotation.axes() or (None,)
    if structure == 0:
        axis = axes[generator.integers(len(axes))]
        tries = generator.integers(case.label.size, size=64)
        undrawn = annotation.known_label(case.label, axis).reshape(-1)[tries] == 0
        return tries[np.flatnonzero(undrawn)[0]], axis
    foreground = Foreground.of(case.label, N)
    found = {a: candidate_voxels(foreground, annotation, structure, a, case.label.shape) for a in axes}
    found = {a: index for a, index in found.items() if len(index)}
    axis = tuple(found)[generator.integers(len(found))]
    return found[axis][generator.integers(len(found[axis]))], axis


def whole_example(patches, case, annotation, t):
    """Cut example ``t`` out of whole arrays, step by step."""
    settings = patches.settings
    structure = patches.sampler.draw(t).structure
    index, axis = whole_centre(t, structure, case, annotation, settings.seed)
    voxel = np.array(np.unravel_index(index, case.label.shape), float)
    matrix = draw_affine(stream(settings.seed, t, Purpose.SPACE), settings.affine).matrix()
    rows = np.concatenate([annotation.rows, np.zeros((1, N), bool)])
    used_axis, groups = annotation.slice_groups(axis, case.label.shape)
    groups = np.where(rows[groups].any(axis=1), groups, len(annotation.rows)).astype(np.int32)
    known = np.zeros((len(rows), 256), bool)
    known[:, 1 : N + 1] = rows
    cut = Cut(voxel, matrix, settings.shape)
    window = (case.facts.scale, case.facts.offset)
    found = cut_patch(case.image, case.label, (used_axis, groups), known, cut, window)
    occurring = np.unique(found.group[found.group >= 0])
    group = np.full_like(found.group, -1)
    for new, old in enumerate(occurring):
        group[found.group == old] = new
    return [
        *(found.image[None].tobytes(), found.label.tobytes(), group.tobytes(), rows[occurring].tobytes()),
        *(case.facts.key, structure, tuple(int(x) for x in voxel)),
    ]


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_patches_read_in_boxes_are_those_of_whole_arrays(on_disk, cache_bytes):
    shown, workspace, cases = on_disk
    patches = PatchStream(shown, workspace, DISK, cache_bytes)
    annotations = {facts.key: annotation for facts, annotation in shown}
    seen = set()
    for t in range(60):
        # What an earlier patch left in the box must not matter.
        patches_module._IMAGE_BOX.array(DISK_SHAPE, np.int16)[...] = 30000 * (-1) ** t
        patches_module._LABEL_BOX.array(DISK_SHAPE, np.uint8)[...] = 1 + t % 4
        patch = patches.example(t)
        assert contents(patch) == whole_example(patches, cases[patch.case], annotations[patch.case], t)
        seen.add(patch.case)
    assert seen == set(cases)
    assert (patches.cache.used > 0) == (cache_bytes > 0)


def test_threads_cut_the_same(on_disk):
    shown, workspace, _ = on_disk
    one, many = (PatchStream(shown, workspace, DISK, budget) for budget in (0, case_bytes_of(shown) * 2))
    expected = [contents(one.example(t)) for t in range(40)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda t: contents(many.example(t)), range(40)))
    assert found == expected


def case_bytes_of(shown):
    return 3 * int(np.prod(shown[0][0].shape)) + 4 * 20_000


def test_no_more_is_read_than_a_patch_needs(on_disk, monkeypatch):
    """Of a case, the choice of the centre reads one entry, a structure's part or one voxel; the patch its box."""
    shown, workspace, _ = on_disk
    asked = []
    genuine = ShardedArray.read

    def noted(self, start, out, wanted=None):
        asked.append((self.dtype.name, out.shape))
        genuine(self, start, out, wanted)

    monkeypatch.setattr(ShardedArray, "read", noted)
    patches = PatchStream(shown, workspace, DISK, 0, find_candidates(shown, workspace))
    for t in range(30):
        asked.clear()
        recipe = patches.recipe(t)
        if recipe.structure == 0:
            assert set(asked) == {("uint8", (1, 1, 1))}
        elif recipe.facts.source != "b":
            assert asked == [("int32", (1,))]
        else:
            start = recipe.case.foreground.start
            assert asked == [("int32", (start[recipe.structure] - start[recipe.structure - 1],))]
        asked.clear()
        patches.example(t)
        box = reach_of(recipe.cut, DISK_SHAPE).shape
        assert [shape for _, shape in asked if len(shape) == 3 and shape != (1, 1, 1)] == [box, box]


def test_another_case_in_its_place_is_told(on_disk, tmp_path):
    shown, workspace, _ = on_disk
    other = [(facts.model_copy(update={"digest": "earlier"}), annotation) for facts, annotation in shown]
    patches = PatchStream(other, workspace, DISK)
    with pytest.raises(WorkspaceError, match="taken in again with other voxels"):
        patches.example(0)


@pytest.mark.parametrize("n_cases", [0, 1, 2.5, 20])
def test_cache_keeps_to_its_budget(n_cases):
    shown, reader = workplace()
    largest = max(case_bytes(reader.open_case(key)) for key in reader.cases)
    patches = PatchStream(shown, reader, TURNED, int(n_cases * largest))
    reader.reads.clear()
    for t in range(60):
        patches.example(t)
        assert patches.cache.used <= patches.cache.budget
    assert len(patches.cache) == {0: 0, 1: 1, 2.5: 2, 20: len(shown)}[n_cases]
    assert len(reader.reads) == len(set(reader.reads)) == len(shown)


# -- padding, flips, intensity ---------------------------------------------------------------------------------------


def test_padding_as_background_has_the_group_of_the_nearest_slice():
    whole = Annotation.partial((1, 2, 3, 4), N)
    case = make_case("sparse", whole)
    shown = thinned(whole, fraction=1.0)
    both = [
        PatchStream([(case.facts, shown)], FakeReader([case]), PatchSettings(PATCH, NO_AFFINE, seed=3, padding=padding))
        for padding in ("outside", "background")
    ]
    padded = 0
    for t in range(40):
        plain, patch = (patches.example(t) for patches in both)
        outside = plain.group < 0
        padded += outside.sum()
        assert np.array_equal(patch.image, plain.image)
        assert np.array_equal(patch.label, plain.label)
        assert not patch.label[outside].any()
        assert patch.group.min() == 0
        z = np.clip(np.arange(PATCH[2]) - PATCH[2] // 2 + patch.centre[2], 0, SHAPE[2] - 1)
        assert np.array_equal(patch.group, np.broadcast_to(z - z.min(), PATCH))
    assert padded
    with pytest.raises(ConfigError, match="padding: found 'zeros'"):
        PatchSettings(padding="zeros")


FLIPPED = FlipSettings((1.0, 0.0, 0.0), (2, 1, 3, 4))


def test_a_flip_along_x_swaps_sides():
    """Structures 1 and 2 are partners; in a plain crop the patch is mirrored about its centre voxel."""
    shown, reader = workplace()
    plain = PatchStream(shown, reader, PLAIN)
    flipped = PatchStream(shown, reader, PatchSettings(PATCH, NO_AFFINE, seed=3, flip=FLIPPED))
    swap = np.array([0, 2, 1, 3, 4])
    for t in range(60):
        a, b = plain.example(t), flipped.example(t)
        assert (a.case, a.centre, a.structure) == (b.case, b.centre, b.structure)
        # 8 voxels, centre at index 4: index i shows what lies at 8 - i; index 0 has no twin.
        assert np.array_equal(b.image[:, 1:], a.image[:, :0:-1])
        assert np.array_equal(b.label[1:], swap[a.label[:0:-1]])
        inside = a.group[:0:-1] >= 0
        assert np.array_equal(b.group[1:] >= 0, inside)
        rows = a.annotated[a.group[:0:-1][inside]]
        assert np.array_equal(b.annotated[b.group[1:][inside]], rows[:, swap[1:] - 1])
        assert b.label[tuple(n // 2 for n in PATCH)] == swap[b.structure] == b.shown
        assert a.shown == a.structure
        assert collate([a, b]).structures == (a.structure, b.shown)


@pytest.mark.parametrize("axis", [1, 2])
def test_other_flips_are_plain(axis):
    probability = [0.0, 0.0, 0.0]
    probability[axis] = 1.0
    shape = (8, 9, 9)
    plain, flipped = (
        stream_of(PatchSettings(shape, NO_AFFINE, seed=3, flip=flip))
        for flip in (FlipSettings(), FlipSettings(tuple(probability)))
    )
    for t in range(20):
        a, b = plain.example(t), flipped.example(t)
        assert np.array_equal(b.image, np.flip(a.image, axis + 1))
        assert np.array_equal(b.label, np.flip(a.label, axis))
        assert np.array_equal(b.annotated[b.group], np.flip(a.annotated[a.group], axis))


def test_flips_leave_all_other_draws_alone():
    both = [stream_of(TURNED), stream_of(PatchSettings(PATCH, seed=3, flip=FlipSettings((0.0, 0.5, 0.5))))]
    for t in range(20):
        a, b = (patches.recipe(t) for patches in both)
        assert a.centre == b.centre
        assert np.array_equal(np.abs(a.cut.matrix), np.abs(b.cut.matrix))


def test_intensity_parameters_go_with_patch_and_batch():
    settings = IntensitySettings(noise_probability=0.5, gamma_probability=0.5)
    patches = stream_of(PatchSettings(PATCH, seed=3, intensity=settings))
    found = [patches.example(t) for t in range(20)]
    expected = [draw_intensity(stream(3, t, Purpose.INTENSITY), settings) for t in range(20)]
    assert [patch.intensity for patch in found] == expected
    assert collate(found).intensity == tuple(expected)
    assert len({(each.noise_std > 0, each.gamma != 1) for each in expected}) == 4
    plain = stream_of().example(0)
    assert plain.intensity is None
    assert collate([plain]).intensity == ()
    assert isinstance(expected[0], IntensityParameters)
    assert np.array_equal(found[0].image, plain.image)  # applied later, on the device


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
    candidates = find_candidates(shown[:1], reader)
    reader.read_foreground = lambda _: Foreground.of(np.zeros(SHAPE, np.uint8), N)
    patches = PatchStream(shown[:1], reader, PLAIN, candidates=candidates)
    with pytest.raises(WorkspaceError, match=r"a/part.*--replace"):
        [patches.example(t) for t in range(20)]


def test_shapes_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="patch shape"):
        PatchSettings((0, 4, 4))


def test_nothing_here_loads_torch():
    code = "import sys, abdoseg.patches; sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
