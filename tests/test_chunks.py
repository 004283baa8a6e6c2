"""Stored arrays read in part: the same as Zarr's own reading, and damage is told."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from abdoseg.annotation import Annotation
from abdoseg.case import Case, CaseFacts, Foreground
from abdoseg.errors import WorkspaceError
from abdoseg.kernels import blosc_box
from abdoseg.places import open_place
from abdoseg.store import Workspace, arrays
from abdoseg.store.arrays import open_case, write_case
from abdoseg.store.cache import CaseCache, case_bytes
from abdoseg.store.chunks import ShardedArray, ZarrArray, open_array

N = 3
SHAPE = (70, 33, 81)


@pytest.fixture(params=["at once", "one by one"], autouse=True, scope="module")
def way(request):
    """Chunks are decoded by one call, or one by one where blosc's function is not exported: all tests hold for both."""
    if request.param == "at once":
        assert blosc_box.AVAILABLE
    before = blosc_box.AVAILABLE
    blosc_box.AVAILABLE = request.param == "at once"
    yield
    blosc_box.AVAILABLE = before


def a_case(name="one", shape=SHAPE, seed=0, empty=False):
    rng = np.random.default_rng(seed)
    image = rng.integers(-400, 401, shape).astype(np.int16)
    image[:32] = 0  # chunks of the fill value alone
    label = np.zeros(shape, np.uint8)
    if not empty:
        label[2:9, 3:8, 5:60] = 1
        label[50:66, 10:30, 40:50] = 3
    annotation = Annotation.partial((1, 3), N)
    facts = CaseFacts(
        case=name, source="s", modality="CT", patient=name, shape=shape, native_shape=shape,
        affine=np.eye(4).tolist(), native_affine=np.eye(4).tolist(), scale=1 / 800, offset=0.5, window=(-400, 400),
        annotation=annotation.to_json(), voxels={}, fingerprint=name, digest=f"digest of {name}, {seed}",
        settings_digest="s", card_digest="c",
    )  # fmt: skip
    return Case(facts, image, label)


def store(root, case):
    folder = root / "sources" / "s.zarr" / case.facts.case
    write_case(folder, root / "incoming", case, Foreground.of(case.label, N))
    return folder


@pytest.fixture
def folder(tmp_path):
    return store(tmp_path, a_case())


def opened(folder, name, **kwargs):
    return open_array(folder / name, folder / name, holds_something=True, **kwargs)


# -- the same as Zarr ------------------------------------------------------------------------------------------------


@st.composite
def stored_boxes(draw):
    n_axes = draw(st.sampled_from([1, 3]))
    shape = tuple(draw(st.lists(st.integers(1, 75), min_size=n_axes, max_size=n_axes)))
    chunks = tuple(draw(st.lists(st.integers(5, 40), min_size=n_axes, max_size=n_axes)))
    start = tuple(draw(st.integers(0, n)) for n in shape)
    size = tuple(draw(st.integers(0, n - a)) for n, a in zip(shape, start, strict=True))
    return shape, chunks, start, size


@given(stored_boxes(), st.sampled_from(["int16", "uint8", "int32"]), st.sampled_from(["lz4", "zstd"]), st.booleans())
def test_boxes_are_those_of_zarr(tmp_path_factory, box, dtype, codec, with_checksums):
    shape, chunks, start, size = box
    folder = tmp_path_factory.mktemp("array")
    data = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    data[: shape[0] // 2] = 0
    data.reshape(-1)[-1] = 1
    compressors = [zarr.codecs.BloscCodec(cname=codec, shuffle="bitshuffle")]
    compressors += [zarr.codecs.Crc32cCodec()] if with_checksums else []
    shards = tuple(-(-n // c) * c for n, c in zip(shape, chunks, strict=True))
    stored = zarr.create_array(
        folder, data=data, chunks=chunks, shards=shards, compressors=compressors, fill_value=0, overwrite=True
    )
    found = open_array(folder, folder, holds_something=True)
    assert isinstance(found, ShardedArray)
    assert (found.shape, found.dtype, found.chunks) == (shape, dtype, chunks)
    where = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    out = np.full(size, 77, dtype)
    found.read(start, out)
    assert np.array_equal(out, stored[where])
    assert np.array_equal(found[where], stored[where])
    assert np.array_equal(found[...], data)
    last = tuple(n - 1 for n in shape)
    assert found[last] == data[last]


@given(st.tuples(*[st.integers(0, 30)] * 3), st.integers(0, 2**20))
def test_only_wanted_chunks_are_read(tmp_path_factory, start, bits):
    folder = WHOLE.get("folder") or WHOLE.setdefault("folder", store(tmp_path_factory.mktemp("w"), a_case()))
    data = a_case().image
    start = np.minimum(start, np.array(SHAPE) - 1)
    size = np.minimum(np.array(SHAPE) - start, 40)
    cells = [range(a // 32, -(-(a + n) // 32)) for a, n in zip(start, size, strict=True)]
    wanted = (np.random.default_rng(bits).random([len(c) for c in cells])) < 0.5
    out = np.full(size, 1234, np.int16)
    opened(folder, "image").read(tuple(start), out, wanted)
    at = np.stack(np.meshgrid(*[np.arange(a, a + n) for a, n in zip(start, size, strict=True)], indexing="ij"))
    cell = tuple(at // 32 - np.array([c[0] for c in cells])[:, None, None, None])
    expected = data[tuple(at)]
    assert np.array_equal(out, np.where(wanted[cell], expected, 1234))


WHOLE = {}


@pytest.mark.parametrize("kind", [ShardedArray, ZarrArray])
def test_a_box_must_lie_within_the_array(folder, kind):
    found = opened(folder, "image") if kind is ShardedArray else ZarrArray(folder / "image", folder / "image")
    assert isinstance(found, kind)
    for start, shape in [((-1, 0, 0), (2, 2, 2)), ((69, 0, 0), (2, 2, 2)), ((0, 0), (2, 2))]:
        with pytest.raises(ValueError, match="expected int16 within"):
            found.read(start, np.empty(shape, np.int16))
    with pytest.raises(ValueError, match="int16"):
        found.read((0, 0, 0), np.empty((2, 2, 2), np.int32))
    for wrong in [(70, 0, 0), (-1, 0, 0), (0, 0), (slice(0, 4, 2), 0, 0)]:
        with pytest.raises(IndexError):
            found[wrong]


def test_a_case_opened_is_the_case_read(folder):
    whole, found = arrays.read_case(folder), open_case(folder)
    assert found.digest == whole.facts.digest
    assert np.array_equal(found.image[...], whole.image)
    assert np.array_equal(found.label[...], whole.label)
    foreground = arrays.read_foreground(folder)
    assert np.array_equal(found.foreground.start, foreground.start)
    assert np.array_equal(found.foreground.index[...], foreground.index)
    assert found.foreground.index[7] == foreground.index[7]


def test_a_case_without_labels_has_no_label_file(tmp_path):
    folder = store(tmp_path, a_case(empty=True))
    assert not (folder / "label" / "c").exists()
    assert not open_case(folder).label[...].any()


# -- what is not ours is left to Zarr --------------------------------------------------------------------------------


def rewritten(folder, **kwargs):
    data = zarr.open_array(folder, mode="r")[...]
    shutil.rmtree(folder)
    zarr.create_array(folder, data=data, zarr_format=3, **kwargs)


@pytest.mark.parametrize(
    "layout",
    [
        {"chunks": (32, 32, 32)},
        {"chunks": (32, 32, 32), "shards": (64, 32, 32)},
        {"chunks": (16, 16, 16), "shards": (80, 48, 96), "compressors": None},
        {"chunks": (16, 16, 16), "shards": (80, 48, 96), "fill_value": 5},
        {"chunks": (16, 16, 16), "shards": (80, 48, 96), "serializer": zarr.codecs.BytesCodec(endian="big")},
        {"chunks": (16, 16, 16), "shards": (80, 48, 96), "chunk_key_encoding": {"name": "v2", "separator": "."}},
        {"chunks": (16, 16, 16), "shards": (80, 48, 96), "filters": zarr.codecs.TransposeCodec(order=(2, 1, 0))},
    ],
)
def test_other_layouts_are_read_by_zarr(folder, layout):
    data = a_case().image
    rewritten(folder / "image", **layout)
    found = open_case(folder)
    assert isinstance(found.image, ZarrArray)
    assert isinstance(found.label, ShardedArray)
    assert np.array_equal(found.image[...], data)
    assert np.array_equal(found.image[3:50, 2:9, 70:81], data[3:50, 2:9, 70:81])
    assert found.image[60, 3, 4] == data[60, 3, 4]


def test_another_key_separator_is_ours_too(folder):
    rewritten(
        folder / "image",
        chunks=(16, 16, 16),
        shards=(80, 48, 96),
        compressors=zarr.codecs.BloscCodec(),
        chunk_key_encoding={"name": "default", "separator": "."},
    )
    found = open_case(folder).image
    assert isinstance(found, ShardedArray)
    assert np.array_equal(found[...], a_case().image)


def test_an_object_store_is_read_by_zarr(tmp_path):
    """The memory file system stands for any that is not the machine's own."""
    pytest.importorskip("upath")
    folder = open_place("memory://chunks") / "sources" / "s.zarr" / "one"
    write_case(folder, folder.parent / "incoming", a_case(), Foreground.of(a_case().label, N))
    found = open_case(folder)
    assert isinstance(found.image, ZarrArray)
    assert np.array_equal(found.image[10:60, 3:9, 5:70], a_case().image[10:60, 3:9, 5:70])
    assert found.foreground.index[3] == Foreground.of(a_case().label, N).index[3]


# -- damage ----------------------------------------------------------------------------------------------------------


def shard(folder, name="image"):
    return folder / name / "c" / ("0" if name == "foreground" else Path("0", "0", "0"))


def told(folder, name="image"):
    """Read everything; return the message of the error."""
    with pytest.raises(WorkspaceError) as caught:
        _ = getattr(open_case(folder), name)[...]
    message = str(caught.value)
    assert "one" in message
    assert "--replace" in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("kept", [0, 1, 100, -1, -500])
def test_a_shard_cut_off(folder, kept):
    file = shard(folder)
    file.write_bytes(file.read_bytes()[:kept])
    assert "damaged" in told(folder)


def test_a_shard_with_another_files_end(folder):
    """All lengths fit, but the index is not this shard's."""
    file = shard(folder)
    data = bytearray(file.read_bytes())
    data[-40] ^= 1
    file.write_bytes(data)
    assert "checksum" in told(folder)


def with_index(folder, change, name="image"):
    """Change the index, and give it a right checksum again."""
    file = shard(folder, name)
    data = file.read_bytes()
    entries = 3 * 2 * 3
    index = np.frombuffer(data[-4 - entries * 16 : -4], "<u8").reshape(entries, 2).copy()
    change(index)
    raw = index.tobytes()
    file.write_bytes(data[: -4 - entries * 16] + raw + google_crc32c.value(raw).to_bytes(4, "little"))
    return index


def first_stored(index):
    return np.flatnonzero(index[:, 0] != 2**64 - 1)[0]


@pytest.mark.parametrize("value", [2**63, 10**7])
@pytest.mark.parametrize("column", [0, 1])
def test_an_index_that_points_beyond_the_end(folder, column, value):
    def change(index):
        index[first_stored(index), column] = value

    with_index(folder, change)
    assert "beyond its end" in told(folder)


@pytest.mark.parametrize("size", [0, 7, 100])
def test_a_chunk_that_is_too_short(folder, size):
    def change(index):
        index[first_stored(index), 1] = size

    with_index(folder, change)
    assert "chunk at byte" in told(folder)


@pytest.mark.parametrize("byte", [*range(2, 3), *range(4, 16)])
def test_a_chunk_with_a_damaged_header(folder, byte):
    index = with_index(folder, lambda index: None)
    file = shard(folder)
    data = bytearray(file.read_bytes())
    data[int(index[first_stored(index), 0]) + byte] ^= 0xFF
    file.write_bytes(data)
    try:
        message = told(folder)
    except pytest.fail.Exception:
        # Flags and sizes of blocks that still decode: no other voxels may come of it.
        assert np.array_equal(open_case(folder).image[...], a_case().image)
    else:
        assert "chunk at byte" in message


def test_chunks_overwritten_with_nonsense(folder):
    file = shard(folder)
    data = bytearray(file.read_bytes())
    data[: len(data) // 2] = os.urandom(len(data) // 2)
    file.write_bytes(data)
    assert "chunk at byte" in told(folder)


@pytest.mark.parametrize("name", ["image", "label"])
def test_a_lost_shard_is_no_empty_one(folder, name):
    shard(folder, name).unlink()
    assert "not there" in told(folder, name)
    rewritten(folder / "foreground", chunks=(500,))
    shutil.rmtree(folder / "foreground" / "c")
    with pytest.raises(WorkspaceError, match="--replace"):
        open_case(folder)


@pytest.mark.parametrize("name", ["image", "label", "foreground"])
def test_an_array_without_its_description(folder, name):
    (folder / name / "zarr.json").write_text("{")
    assert name in told(folder)
    (folder / name / "zarr.json").unlink()
    assert name in told(folder)


def test_arrays_of_two_cases(folder, tmp_path):
    other = store(tmp_path / "other", a_case(shape=(40, 33, 81)))
    shutil.rmtree(folder / "label")
    shutil.copytree(other / "label", folder / "label")
    assert "damaged" in told(folder)


def test_damage_that_zarr_finds(folder):
    """A layout that is not read directly, its shard cut off."""
    rewritten(folder / "image", chunks=(16, 16, 16), shards=(80, 48, 96), compressors=None)
    file = shard(folder)
    file.write_bytes(file.read_bytes()[:-500])
    assert "damaged" in told(folder)


def test_no_case_and_other_versions_are_told(folder):
    with pytest.raises(WorkspaceError, match="ingest the case again"):
        open_case(folder.parent / "two")
    described = json.loads((folder / "zarr.json").read_text())
    described["attributes"]["abdoseg_format"] = 99
    (folder / "zarr.json").write_text(json.dumps(described))
    with pytest.raises(WorkspaceError, match="case format 99"):
        open_case(folder)
    del described["attributes"]["foreground_start"]
    described["attributes"]["abdoseg_format"] = 1
    (folder / "zarr.json").write_text(json.dumps(described))
    with pytest.raises(WorkspaceError, match="foreground_start"):
        open_case(folder)


@pytest.mark.parametrize("length", [0, 100, 2000])
def test_a_shard_cut_off_while_it_is_open(folder, length):
    """By a copy that overwrites it, or a file server: no signal that ends the process, but the file's name."""
    found = open_case(folder)
    os.truncate(shard(folder), length)
    with pytest.raises(WorkspaceError, match=r"image.*damaged \(the chunk at byte \d+ is cut off\).*--replace"):
        _ = found.image[...]
    assert np.array_equal(found.label[...], a_case().label)


def test_a_chunk_that_is_gone_is_not_the_one_read_before(folder):
    """The memory for stored bytes still has it."""
    found = open_case(folder)
    stored = np.argwhere(found.image._index[..., 0] != blosc_box.MISSING)[0] * found.image.chunks
    box = tuple(slice(a, a + 5) for a in stored)
    assert np.array_equal(found.image[box], a_case().image[box])
    os.truncate(shard(folder), 0)
    with pytest.raises(WorkspaceError, match="is cut off"):
        _ = found.image[box]


def test_a_disk_that_fails_while_a_shard_is_open_is_told(folder, tmp_path):
    found = open_case(folder)
    # The descriptor of a folder: reading it is an error of the system, as a broken disk's is.
    broken = os.open(tmp_path, os.O_RDONLY)
    os.dup2(broken, found.image._shard.fileno())
    os.close(broken)
    with pytest.raises(WorkspaceError, match=r"image.*cannot be read \(Is a directory\); check the disk"):
        _ = found.image[...]


# -- open files ------------------------------------------------------------------------------------------------------


def test_an_open_case_outlives_its_files(folder, tmp_path):
    """`ingest --replace` while a training reads: who has it open reads the earlier case to its end."""
    found = open_case(folder)
    store(tmp_path, a_case(seed=1))
    assert np.array_equal(found.image[...], a_case().image)
    again = open_case(folder)
    assert again.digest != found.digest
    assert np.array_equal(again.image[...], a_case(seed=1).image)


def test_a_case_replaced_while_it_is_opened(folder, tmp_path, monkeypatch):
    genuine = arrays.open_array

    def slow(array_folder, *args, **kwargs):
        if array_folder.name == "label":
            store(tmp_path, a_case(seed=1))
        return genuine(array_folder, *args, **kwargs)

    monkeypatch.setattr(arrays, "open_array", slow)
    with pytest.raises(WorkspaceError, match="replaced while"):
        open_case(folder)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files by /proc")
def test_open_files_are_few(tmp_path):
    folders = {name: store(tmp_path, a_case(name, shape=(40, 8, 8))) for name in "abcdefgh"}
    before = open_files()
    cache = CaseCache(0, max_open=3)
    for name in "abcdefghabcabc":
        cache.case(name, lambda name=name: open_case(folders[name]))
    assert open_files() <= before + 9
    assert len(cache) == cache.used == 0
    del cache
    assert open_files() == before


# -- memory ----------------------------------------------------------------------------------------------------------


def test_what_came_first_stays_until_the_budget_is_full(tmp_path):
    folders = {name: store(tmp_path, a_case(name, shape=(40, 8, 8))) for name in "abcd"}
    size = case_bytes(open_case(folders["a"]))
    case = open_case(folders["a"])
    foreground = arrays.read_foreground(folders["a"])
    assert size == 40 * 8 * 8 * 3 + foreground.index.nbytes + foreground.start.nbytes
    cache, opens = CaseCache(2 * size + 1), []

    def ask(name):
        return cache.case(name, lambda: opens.append(name) or open_case(folders[name]))

    for name in "abcabdc":
        found = ask(name)
        assert isinstance(found.image, np.ndarray) == (name in "ab")
        assert np.array_equal(found.image[...], case.image[...]) or name != "a"
        assert np.array_equal(found.foreground.index[...], foreground.index)
    assert opens == list("abcd")
    assert (len(cache), cache.used) == (2, 2 * size)
    assert str(cache) == "2 cases in memory, 0 of 0 MiB"


def test_a_case_that_cannot_be_read_takes_no_memory(folder):
    cache = CaseCache(2**20)
    damaged = open_case(folder)
    file = shard(folder)
    index = with_index(folder, lambda index: None)
    data = bytearray(file.read_bytes())
    data[int(index[first_stored(index), 0]) + 4] ^= 0xFF
    file.write_bytes(data)
    damaged = open_case(folder)
    for _ in range(2):
        with pytest.raises(WorkspaceError, match="--replace"):
            cache.case("one", lambda: damaged)
    assert (len(cache), cache.used) == (0, 0)


def test_threads_obey_the_budget_together(tmp_path):
    names = [f"c{i}" for i in range(12)]
    folders = {name: store(tmp_path, a_case(name, shape=(40, 33, 20), seed=i)) for i, name in enumerate(names)}
    images = {name: open_case(folder).image[...] for name, folder in folders.items()}
    size = case_bytes(open_case(folders["c0"]))
    cache, seen = CaseCache(5 * size), []

    def ask(k):
        name = names[np.random.default_rng(k).integers(len(names))]
        found = cache.case(name, lambda: open_case(folders[name]))
        seen.append(cache.used)
        return np.array_equal(found.image[5:40, 2:30, 3:9], images[name][5:40, 2:30, 3:9])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(300)))
    assert max(seen) <= cache.budget
    assert cache.used == 5 * size
    assert len(cache) == 5


def test_a_workspace_opens_its_cases(tmp_path):
    workspace = Workspace.create(tmp_path)
    store(tmp_path, a_case())
    assert np.array_equal(workspace.open_case("s/one").image[...], a_case().image)


def test_a_file_that_cannot_be_opened_is_no_damage(folder, monkeypatch):
    genuine = Path.open

    def refuse(path, *args, **kwargs):
        if path == shard(folder):
            raise OSError(24, "Too many open files")
        return genuine(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(WorkspaceError, match=r"cannot be read \(Too many open files\).*limit"):
        open_case(folder)
