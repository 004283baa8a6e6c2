"""The viewer: what is sent, who may ask for it, what is refused, and the page in a browser."""

import hashlib
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import tomllib
import zipfile
from dataclasses import replace
from functools import partial
from urllib.parse import quote

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from abdoseg.anatomy import ABDOMEN
from abdoseg.annotation import Annotation
from abdoseg.cards import load_card
from abdoseg.errors import CaseError
from abdoseg.runs import load_run
from abdoseg.steps.ingest import ingest
from abdoseg.steps.view import view_case, view_files
from abdoseg.store import Workspace
from abdoseg.viewer import Scene, ViewerServer, resources_of
from abdoseg.viewer.resources import ASSETS, Resource
from abdoseg.viewer.scene import (
    OTHER_STRUCTURE,
    PREDICTION_ONLY,
    REFERENCE_ONLY,
    difference_of,
    found_structures,
    require_viewable,
)
from abdoseg.viewer.volumes import as_int16, nifti_gz

from .browser import browser, page_of  # noqa: F401
from .conftest import body, word_case, write_nifti

N = len(ABDOMEN)
OBLIQUE = np.array([[1.9, 0.3, 0, -40], [-0.3, 1.9, 0, 12], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])


def read_back(content):
    image = nib.Nifti1Image.from_bytes(__import__("gzip").decompress(content))
    return image, np.asanyarray(image.dataobj)


# -- what is sent ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("view")
    for number in (1, 2):
        word_case(root / "raw" / "WORD-V0.1.0", number)
    opened = Workspace.create(root / "workspace")
    ingest(opened, load_card("word"), root / "raw")
    return opened


def test_a_case_is_sent_as_it_is_stored(workspace):
    key = workspace.case_keys()[0]
    case = workspace.read_case(key)
    table = resources_of(view_case(workspace, key))
    image, hu = read_back(table["/image.nii.gz"].content)
    np.testing.assert_array_equal(image.dataobj.get_unscaled(), case.image)
    low, high = case.facts.window
    np.testing.assert_allclose(hu, low + case.intensity() * (high - low), atol=0.01)
    label, values = read_back(table["/reference.nii.gz"].content)
    np.testing.assert_array_equal(values, case.label)
    assert (image.get_data_dtype(), values.dtype) == (np.int16, np.uint8)
    for one in (image, label):
        np.testing.assert_allclose(one.affine, case.facts.affine_array, atol=1e-4)
    assert "/prediction.nii.gz" not in table
    assert "/difference.nii.gz" not in table


@given(
    hnp.arrays(np.int16, st.tuples(*[st.integers(1, 6)] * 3)),
    st.sampled_from([(1.0, 0.0), (0.5, -400.0), (0.0122, -400.0)]),
)
def test_volumes_survive_the_way(array, scale):
    image, values = read_back(nifti_gz(array, OBLIQUE, *scale))
    np.testing.assert_array_equal(image.dataobj.get_unscaled(), array)
    np.testing.assert_allclose(values, array * scale[0] + scale[1], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), OBLIQUE @ np.diag([1, 1, 1, 1]), atol=1e-4)


@given(hnp.arrays(np.float32, (3, 4, 2), elements=st.floats(-1e6, 1e6, width=32)))
def test_float_images_are_kept_to_a_step_of_int16(array):
    whole, slope, intercept = as_int16(array)
    assert whole.dtype == np.int16
    span = float(array.max()) - float(array.min())
    np.testing.assert_allclose(whole * slope + intercept, array, rtol=1e-6, atol=0.51 * span / 65534 + 1e-9)


def test_whole_numbers_stay_as_they_are():
    for dtype in (np.int16, np.uint8, np.int32, np.float64):
        image, slope, intercept = as_int16(np.arange(24, dtype=dtype).reshape(2, 3, 4))
        assert (slope, intercept) == (1.0, 0.0)
        np.testing.assert_array_equal(image.ravel(), np.arange(24))


@given(hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 7)] * 3), elements=st.sampled_from([0, 0, 1, 3, 255])))
def test_centres_lie_in_their_structure(label):
    found = found_structures(label)
    assert sorted(found) == [i for i in np.unique(label) if i > 0]
    for i, one in found.items():
        assert one.voxels == np.count_nonzero(label == i)
        assert label[one.centre] == i
        where = np.argwhere(label == i)
        far = np.square(where - where.mean(axis=0)).sum(axis=1)
        assert np.square(one.centre - where.mean(axis=0)).sum() == pytest.approx(far.min())


def test_unannotated_structures_are_not_absent(workspace):
    facts = view_case(workspace, workspace.case_keys()[0]).facts()
    told = {one["name"]: one for one in facts["structures"]}
    assert told["aorta"]["annotated"] == "not annotated"  # WORD does not draw it
    assert told["pancreas"]["annotated"] == "annotated"  # drawn, not there
    assert told["pancreas"]["reference"] is None
    assert told["liver"]["colour"] == ABDOMEN.structure(ABDOMEN.id_of("liver")).colour
    case = workspace.read_case(workspace.case_keys()[0])
    assert told["liver"]["reference"]["ml"] == pytest.approx(np.count_nonzero(case.label == 6) * 8 / 1000)
    known = facts["annotation"]["rows"][0]
    assert 6 in known
    assert 8 not in known


def sparse_scene(**changes):
    rows = np.zeros((2, N), dtype=bool)
    rows[1, [0, 5]] = True
    slices = np.array([0, 1, 0, 0, 1], dtype=np.int32)
    label = np.zeros((4, 4, 5), dtype=np.uint8)
    label[:2, :, 1] = 6
    image = np.arange(80, dtype=np.int16).reshape(4, 4, 5)
    scene = Scene(
        "s", image, 1.0, 0.0, np.diag([2.0, 2, 2, 1]), ABDOMEN, "CT", label, annotation=Annotation(rows, {2: slices})
    )
    return replace(scene, **changes)


def test_sparse_slices_are_told():
    facts = sparse_scene().facts()
    told = {one["name"]: one["annotated"] for one in facts["structures"]}
    assert told["liver"] == "annotated in 2 of 5 axial slices"
    assert told["aorta"] == "not annotated"
    assert facts["annotation"] == {"rows": [[], [1, 6]], "slices": {"2": [0, 1, 0, 0, 1]}}


def test_values_that_are_no_structures_are_shown_by_number():
    label = np.zeros((4, 4, 5), dtype=np.uint8)
    label[0], label[1] = 40, 255
    told = {one["id"]: one for one in sparse_scene(reference=label, annotation=None).facts()["structures"]}
    assert told[40]["title"] == "value 40, no structure's"
    assert "255" in told[255]["title"]
    assert {one["annotated"] for one in told.values()} == {""}  # the file does not say: noted once, not per structure
    assert len({one["colour"] for one in told.values()}) == len(told)


# -- what values mean --------------------------------------------------------------------------------------------------


def label_file(path, values, legend=None):
    """Write a label map of 12 x 10 x 8 voxels, a slice of x for each value, and a side file with these names."""
    label = np.zeros((12, 10, 8), np.uint8)
    for x, value in enumerate(values):
        label[x] = value
    if legend is not None:
        rows = [{"id": i, "name": name} for i, name in legend.items()]
        path.with_name(path.name.removesuffix(".nii.gz") + ".labels.json").write_text(json.dumps({"structures": rows}))
    return write_nifti(path, label, OBLIQUE)


def names_at(scene, label):
    """Return the name on the page of the value in each slice of x."""
    names = {one["id"]: one["name"] for one in scene.facts()["structures"]}
    return [names.get(int(value)) for value in label[:, 0, 0]]


def test_values_are_taken_as_ids_and_that_is_said(scan, tmp_path):
    file = label_file(tmp_path / "drawn.nii.gz", [1, 6, 40])
    scene = view_files(scan, file, file)
    assert names_at(scene, scene.reference)[:3] == ["spleen", "liver", "value_40"]
    taken, unsaid, of_prediction = scene.notes
    assert "drawn.nii.gz: values are taken as abdoseg's structure ids (1 spleen, 2 right_kidney, ...)" in taken
    assert "--card" in taken
    assert "does not say what was annotated" in unsaid
    assert "structure ids" in of_prediction
    assert "--card" not in of_prediction  # a card is of a reference's values


def test_a_card_says_what_raw_values_mean(scan, tmp_path):
    """WORD: 1 is the liver, 2 the spleen, 12 both adrenal glands as one, 10 the colon, which is not among the 16."""
    scene = view_files(scan, label_file(tmp_path / "raw.nii.gz", [1, 2, 12, 10]), card="word")
    assert scene.reference[:5, 0, 0].tolist() == [ABDOMEN.id_of("liver"), ABDOMEN.id_of("spleen"), 255, 0, 0]
    told = {one["name"]: one["annotated"] for one in scene.facts()["structures"]}
    assert told["aorta"] == "not annotated"
    assert told["right_adrenal_gland"] == "not annotated"
    assert told["pancreas"] == "annotated"
    assert any("right_adrenal_gland and left_adrenal_gland as one value" in note for note in scene.notes)
    assert not any("structure ids" in note for note in scene.notes)


def test_cards_that_do_not_fit_are_refused(abdoseg, workspace, scan, tmp_path):
    raw = label_file(tmp_path / "raw.nii.gz", [1, 99])
    refused(abdoseg("view", scan, "--label", raw, "--card", "word"), "raw.nii.gz", "99", "card")
    refused(abdoseg("view", scan, "--label", raw, "--card", "wrod"), "wrod", "word")
    refused(abdoseg("view", scan, "--label", raw, "--card", tmp_path / "none.toml"), "none.toml")
    refused(abdoseg("view", scan, "--card", "word"), "--card", "--label")
    refused(abdoseg("view", "word/word_0001", "--card", "word", "-w", workspace.path), "--card word", "own labels")


def test_names_beside_a_file_are_heeded(scan, tmp_path):
    ours = label_file(tmp_path / "ours.nii.gz", [6, 1], {6: "liver"})
    assert "structure ids" not in " ".join(view_files(scan, None, ours).notes)
    own = label_file(tmp_path / "own.nii.gz", [1, 2, 0, 255], {1: "heart", 2: "liver"})
    other = label_file(tmp_path / "other.nii.gz", [3, 1], {3: "lung", 1: "heart"})
    scene = view_files(scan, own, other)
    assert names_at(scene, scene.reference)[:4] == ["heart", "liver", None, "unknown"]
    assert names_at(scene, scene.prediction)[:2] == ["lung", "heart"]
    assert "structure ids" not in " ".join(scene.notes)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"structures": [{"id": 1}]}',
        '{"structures": [{"id": 0, "name": "liver"}]}',
        '{"structures": [{"id": 1, "name": "liver"}, {"id": 2, "name": "liver"}]}',
        json.dumps({"structures": [{"id": i, "name": f"s{i}"} for i in range(1, 254)]}),
    ],
)
def test_names_that_cannot_be_used_are_refused(abdoseg, scan, tmp_path, text):
    file = label_file(tmp_path / "a.nii.gz", [1])
    (tmp_path / "a.labels.json").write_text(text)
    refused(abdoseg("view", scan, "--pred", file), "a.labels.json")


def test_colours_beside_a_file_cannot_become_styles(scan, tmp_path):
    file = label_file(tmp_path / "a.nii.gz", [1])
    rows = [{"id": 1, "name": "x", "colour": "red;background:url(//x)"}]
    (tmp_path / "a.labels.json").write_text(json.dumps({"structures": rows}))
    colours = {one["colour"] for one in view_files(scan, file).facts()["structures"]}
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)


def test_a_zip_is_viewed_as_predict_reads_it(scan, tmp_path):
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as file:
        file.write(scan, "deep/in/it.nii.gz")
    scene, plain = view_files(tmp_path / "scan.zip"), view_files(scan)
    assert scene.title == "scan.zip"
    np.testing.assert_array_equal(scene.image, plain.image)
    np.testing.assert_array_equal(scene.affine, plain.affine)
    assert scene.modality == "CT"


def test_zips_without_one_scan_are_refused(abdoseg, scan, tmp_path):
    for name, entries in (("two.zip", ("a.nii.gz", "b.nii.gz")), ("none.zip", ())):
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            file.writestr("readme.txt", "x")
            for entry in entries:
                file.write(scan, entry)
        refused(abdoseg("view", tmp_path / name), name, "scan")


def test_difference_counts_only_what_somebody_looked_for():
    prediction = np.zeros((4, 4, 5), dtype=np.uint8)
    prediction[1:3, :, 1] = 6  # agrees in x = 1, added in x = 2, missed in x = 0
    prediction[3, :, 1] = 8  # nobody looked for an aorta
    prediction[:, :, 0] = 6  # nobody looked here
    scene = sparse_scene(prediction=prediction)
    found = difference_of(scene.reference, prediction, scene.annotation)
    expected = np.zeros_like(found)
    expected[0, :, 1], expected[2, :, 1] = REFERENCE_ONLY, PREDICTION_ONLY
    np.testing.assert_array_equal(found, expected)
    _, sent = read_back(resources_of(scene)["/difference.nii.gz"].content)
    np.testing.assert_array_equal(sent, expected)


@given(
    hnp.arrays(np.uint8, (3, 3, 3), elements=st.sampled_from([0, 1, 2, 255])),
    hnp.arrays(np.uint8, (3, 3, 3), elements=st.integers(0, 2)),
)
def test_difference_of_whole_references(reference, prediction):
    found = difference_of(reference, prediction, None)
    for index in np.ndindex(found.shape):
        r, p = int(reference[index]), int(prediction[index])
        expected = 0 if r in (p, 255) else REFERENCE_ONLY if p == 0 else PREDICTION_ONLY if r == 0 else OTHER_STRUCTURE
        assert found[index] == expected


def test_the_vendored_file_is_the_pinned_one():
    pinned = tomllib.loads((ASSETS / "niivue.toml").read_text())
    assert hashlib.sha256((ASSETS / "niivue.js").read_bytes()).hexdigest() == pinned["sha256"]
    assert "BSD 2-Clause" in (ASSETS / "niivue.LICENSE.txt").read_text()
    ours = "".join((ASSETS / name).read_text() for name in ("index.html", "viewer.js", "viewer.css"))
    assert re.findall(r"(?:https?:)?//[a-z0-9]", ours) == []  # nothing comes from elsewhere


# -- the server --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server():
    table = {"/": Resource(b"page", "text/html"), "/image.nii.gz": Resource(bytes(range(256)), "application/gzip")}
    with ViewerServer(table) as started:
        thread = threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield started
        started.shutdown()
        thread.join()


def ask(server, path="/", method="GET", host=None, cookie=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True)
        for value in [host or f"127.0.0.1:{server.port}"] if isinstance(host, str | None) else host:
            connection.putheader("Host", value)
        if cookie is not None:
            connection.putheader("Cookie", cookie)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def the_cookie(server):
    return f"{server.cookie_name}={server.token}"


def test_the_token_opens_the_page_and_the_cookie_the_rest(server):
    assert server.server_address[0] == "127.0.0.1"
    status, headers, content = ask(server, f"/?token={server.token}")
    assert (status, content) == (200, b"page")
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert ask(server, "/image.nii.gz", cookie=cookie.split(";")[0])[2] == bytes(range(256))
    assert len(server.token) >= 32


def test_two_servers_have_two_tokens(server):
    with ViewerServer({}) as other:
        assert other.token != server.token
        assert other.cookie_name != server.cookie_name


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=60))
def test_no_other_token_does(server, token):
    for path, cookie in ((f"/?token={quote(token)}", None), ("/", f"{server.cookie_name}={token}")):
        status, headers, content = ask(server, path, cookie=cookie)
        assert status == 403
        assert "Set-Cookie" not in headers
        assert b"page" not in content.split(b";")[0]


@pytest.mark.parametrize("path", ["/", "/image.nii.gz", "/nothing", "/?token=", "/?other=1"])
def test_without_a_token_nothing_is_told_apart(server, path):
    assert ask(server, path)[0] == 403


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.1.evil.example:{port}",
        "[::1]:{port}",
    ],
)
def test_other_hosts_are_refused(server, host):
    assert ask(server, host=host.format(port=server.port), cookie=the_cookie(server))[0] == 403


def test_one_host_of_ours_is_taken(server):
    assert ask(server, host=f"LocalHost:{server.port}", cookie=the_cookie(server))[0] == 200
    good = f"127.0.0.1:{server.port}"
    for hosts in ([], [good, "evil.example"]):
        assert ask(server, host=hosts, cookie=the_cookie(server))[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_only_get_and_head(server, method):
    status, headers, _ = ask(server, method=method, cookie=the_cookie(server))
    assert status == 405
    assert headers["Allow"] == "GET, HEAD"


def test_head_has_no_content(server):
    status, headers, content = ask(server, "/image.nii.gz", "HEAD", cookie=the_cookie(server))
    assert (status, headers["Content-Length"], content) == (200, "256", b"")


PIECES = st.sampled_from(
    ["..", ".", "etc", "passwd", "%2e%2e", "%2F", "\\", "//", "viewer.js", "server.py", "%00", "~", "C:"]
)


@given(
    st.lists(PIECES, min_size=1, max_size=6)
    .map(lambda pieces: "/" + "/".join(pieces))
    .filter(lambda path: path.strip("/"))
)
def test_no_path_reaches_the_disk(server, path):
    status, _, content = ask(server, path, cookie=the_cookie(server))
    assert status in (400, 404)
    assert content.split(b" ")[0] in (b"400", b"404")
    assert path.encode() not in content


@pytest.mark.parametrize("path", ["/", "/nothing"])
@pytest.mark.parametrize("known", [True, False])
def test_headers_of_every_answer(server, path, known):
    _, headers, _ = ask(server, path, cookie=the_cookie(server) if known else None)
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "unsafe-inline" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Server"] == "abdoseg"
    assert "Access-Control-Allow-Origin" not in headers


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def scan(tmp_path):
    return write_nifti(tmp_path / "scan.nii.gz", body((12, 10, 8)), OBLIQUE)


def refused(outcome, *words):
    assert outcome.status == 2
    (line,) = outcome.err.strip().splitlines()
    for word in words:
        assert word in line
    return line


@pytest.fixture(autouse=True)
def never_served(request, monkeypatch):
    """In process nothing is to be served: what is not refused would wait for Ctrl-C for ever."""

    def served(*_, **__):
        pytest.fail("was served, and should have been refused")

    if "abdoseg" in request.fixturenames:
        monkeypatch.setattr("abdoseg.cli.view._serve", served)


def test_what_is_not_there_is_refused(abdoseg, workspace, scan, tmp_path):
    refused(abdoseg("view", "nothing.nii.gz"), "nothing.nii.gz", "no such file")
    refused(abdoseg("view", "word/word_0001", "-w", tmp_path / "none"), "no such file", "no case")
    where = ("-w", workspace.path)
    refused(abdoseg("view", "word/word_0009", *where), "word_0009", "word_0001")
    refused(abdoseg("view", "wrod/word_0001", *where), "wrod", "word")
    refused(abdoseg("view", "word/word_0001", "--run", "none", *where), "run 'none'")
    refused(abdoseg("view", "word/word_0001", "--label", scan, *where), "--label")
    refused(abdoseg("view", scan, "--run", "any"), "--run any", "abdoseg predict")
    refused(abdoseg("view", scan, "--pred", "none.nii.gz"), "none.nii.gz", "no such file")
    (tmp_path / "empty").mkdir()
    refused(abdoseg("view", tmp_path / "empty"), "name one scan")


def test_other_grids_are_refused(abdoseg, workspace, scan, tmp_path):
    small = write_nifti(tmp_path / "small.nii.gz", np.ones((12, 10, 7), np.uint8), OBLIQUE)
    moved = OBLIQUE.copy()
    moved[0, 3] += 4
    far = write_nifti(tmp_path / "far.nii.gz", np.ones((12, 10, 8), np.uint8), moved)
    floats = write_nifti(tmp_path / "floats.nii.gz", np.full((12, 10, 8), 0.5, np.float32), OBLIQUE)
    refused(abdoseg("view", scan, "--label", small), "12 x 10 x 7", "12 x 10 x 8", "this very scan")
    refused(abdoseg("view", scan, "--pred", far), "far.nii.gz", "voxels from the scan")
    refused(abdoseg("view", scan, "--pred", floats), "0.5", "whole numbers")
    refused(abdoseg("view", "word/word_0001", "--pred", small, "-w", workspace.path), "the case has", "scan's file")


def test_odd_scans_are_refused(abdoseg, tmp_path):
    holes = np.zeros((4, 4, 4), np.float32)
    holes[0, 0, 0] = np.nan
    rgb = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    refused(abdoseg("view", write_nifti(tmp_path / "nan.nii", holes, np.diag([3.0, 3, 3, 1]))), "nan.nii", "NaN")
    refused(abdoseg("view", write_nifti(tmp_path / "rgb.nii", rgb, np.diag([3.0, 3, 3, 1]))), "rgb.nii")
    for shape in ((2049, 1, 1), (1024, 1024, 1024)):
        with pytest.raises(CaseError, match="browser"):
            require_viewable(shape)
    require_viewable((512, 512, 2000))


def test_a_port_that_is_taken_is_refused(abdoseg, scan):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(abdoseg("view", scan, "--no-open", "--port", port), str(port), "in use")


def test_a_run_is_predicted_once_and_shown(abdoseg, workspace):
    where = ("-w", workspace.path)
    tiny = ("--steps", 1, "--set", "patch=[16, 16, 16]", "--device", "cpu", "--name", "tiny")
    assert abdoseg("train", *tiny, *where).status == 0
    run = load_run(workspace, "tiny")
    key = next(case.key for case in run.data.cases if case.side == "train")
    scene = view_case(workspace, key, run, device="cpu")
    (file,) = (run.folder / "predictions").rglob("*.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(nib.load(file).dataobj), scene.prediction)
    assert scene.prediction_title == "run tiny, 1 steps"
    assert any("trained on this very case" in note for note in scene.notes)
    kept = np.full(scene.image.shape, 6, dtype=np.uint8)
    write_nifti(file, kept, workspace.read_facts(key).affine_array)
    np.testing.assert_array_equal(view_case(workspace, key, run, device="cpu").prediction, kept)
    refused(abdoseg("view", key, "--run", "tiny", "--pred", file, *where), "two predictions")


def test_turned_files_meet_on_one_grid(tmp_path):
    label = np.zeros((12, 10, 8), np.uint8)
    label[2, 3, 4] = 6
    turned = nib.as_closest_canonical(nib.Nifti1Image(label, OBLIQUE)).as_reoriented(
        np.array([[1, -1], [0, 1], [2, -1]])
    )
    nib.save(turned, tmp_path / "turned.nii.gz")
    scan = write_nifti(tmp_path / "scan.nii.gz", body((12, 10, 8)), OBLIQUE)
    scene = view_files(scan, tmp_path / "turned.nii.gz")
    np.testing.assert_array_equal(scene.reference, label)
    assert scene.modality == "CT"


def test_ctrl_c_ends_it_with_one_line(scan):
    command = [sys.executable, "-m", "abdoseg", "view", str(scan), "--no-open"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # A shell's background jobs ignore Ctrl-C, and so would what they start.
    heed = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=heed) as process:  # noqa: PLW1509
        try:
            url = next(line for line in process.stderr if line.startswith("http"))
            port, token = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)\n", url).groups()
            connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
            connection.request("GET", f"/scene.json?token={token}")
            assert json.loads(connection.getresponse().read())["title"] == "scan.nii.gz"
            connection.close()
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert rest == "stopped\n"


# -- the page ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_server():
    """A body with its liver on the patient's right and its spleen on the left; the prediction lies a bit beside."""
    shape = (40, 36, 30)
    label = np.zeros(shape, dtype=np.uint8)
    label[24:34, 12:26, 10:20] = 6  # RAS+: large x is the patient's right
    label[6:12, 12:20, 10:20] = 1
    image = body(shape)
    annotation = Annotation.partial(ABDOMEN.ids_of(("liver", "spleen", "pancreas")), N)
    scene = Scene(
        "phantom <b>", image, 1.0, 0.0, np.diag([2.0, 2, 2, 1]), ABDOMEN, "CT", label, np.roll(label, 2, axis=1),
        reference_title="by hand", prediction_title="shifted", annotation=annotation, notes=("a note",),
    )  # fmt: skip
    with ViewerServer(resources_of(scene)) as started:
        thread = threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield started
        started.shutdown()
        thread.join()


def opened(page, server):
    page.goto(server.url)
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    assert page.evaluate("document.body.dataset.ready") == "true", page.inner_text("#loading")
    return page


def picture(page):
    return np.asarray(Image.open(io.BytesIO(page.locator("#canvas").screenshot())).convert("RGB")).astype(int)


def changed(page, act):
    before = picture(page)
    act()
    return int((np.abs(picture(page) - before).max(axis=2) > 8).sum())


def test_the_page_in_a_browser(page_of, page_server):  # noqa: F811
    page = opened(page_of(1280), page_server)
    assert page.url.endswith("/")  # the token is gone from the address
    assert page.inner_text("#title") == "phantom <b>"
    assert page.inner_text("#notes") == "a note"
    page.keyboard.press("2")
    assert page.get_attribute("#layouts button:nth-child(2)", "aria-pressed") == "true"
    liver = page.locator("tr[data-structure=liver]")
    assert re.split(r"\s+", liver.inner_text().strip()) == ["liver", "11.2", "11.2"]
    assert "not annotated" in page.locator("tr[data-structure=aorta]").inner_text()
    assert "absent" in page.locator("tr[data-structure=pancreas]").inner_text()
    liver.locator(".jump").click()
    assert page.inner_text("#at-reference") == "liver"
    assert page.inner_text("#at-prediction") == "liver"
    at = [float(v) for v in page.inner_text("#at-mm").split(",")]
    assert 48 <= at[0] <= 66
    assert -1000 < float(page.inner_text("#at-value")) < 100
    # The patient's right, with the liver, is on the left.
    red, _, blue = np.moveaxis(picture(page), 2, 0)
    brown = np.argwhere(red - blue > 40)[:, 1]
    assert len(brown) > 500
    assert brown.max() < red.shape[1] / 2
    # Every control is seen in the picture.
    assert changed(page, lambda: page.keyboard.press("Shift+PageUp")) > 500  # ten slices up, out of the liver
    assert page.inner_text("#at-reference") == "background or not annotated"
    page.keyboard.press("Shift+PageDown")
    assert changed(page, lambda: page.locator("#show-6").uncheck()) > 500
    page.locator("#show-6").check()
    for layer in ("reference", "prediction"):
        assert changed(page, lambda layer=layer: page.locator(f"#opacity-{layer}").fill("0")) > 500
        page.locator(f"#opacity-{layer}").fill("50")
    assert changed(page, lambda: page.keyboard.press("d")) > 500
    assert page.locator("#difference-legend").is_visible()
    page.locator("#canvas").focus()
    page.keyboard.press("d")
    assert changed(page, lambda: page.locator("#outline").check()) > 500
    assert changed(page, lambda: page.get_by_role("button", name="bone").click()) > 500
    assert (page.input_value("#level"), page.input_value("#width")) == ("400", "1800")


def test_arrow_keys_go_where_they_point(page_of, page_server):  # noqa: F811
    page = opened(page_of(1280), page_server)
    for layout, steps in {
        "2": {"ArrowRight": (0, -2), "ArrowUp": (1, 2), "PageUp": (2, 2)},
        "3": {"ArrowLeft": (0, 2), "ArrowUp": (2, 2), "PageDown": (1, -2)},
        "4": {"ArrowRight": (1, 2), "ArrowDown": (2, -2), "PageUp": (0, 2)},
    }.items():
        page.keyboard.press(layout)
        for key, (axis, by) in steps.items():
            before = [float(v) for v in page.inner_text("#at-mm").split(",")]
            page.keyboard.press(key)
            after = [float(v) for v in page.inner_text("#at-mm").split(",")]
            expected = [by if a == axis else 0 for a in range(3)]
            assert np.subtract(after, before) == pytest.approx(expected, abs=0.11), (layout, key)


def test_planes_stand_apart(page_of, page_server):  # noqa: F811
    """Between coronal and sagittal plane there is room, so that L of one and P of the other are two letters."""
    page = opened(page_of(1280), page_server)
    tiles = page.evaluate("abdoseg.nv.screenSlices.map(s => [s.axCorSag, ...s.leftTopWidthHeight])")
    (coronal,), (sagittal,) = ([tile for tile in tiles if tile[0] == plane] for plane in (1, 2))
    letters = page.evaluate("2 * abdoseg.nv.fontPx")  # both as wide as high
    assert sagittal[1] - (coronal[1] + coronal[3]) >= letters * 0.75


def test_unknown_voxels_leave_the_others_colours_alone(page_of):  # noqa: F811
    """255 makes the table of colours long; background stays bare and the liver brown."""
    shape = (40, 36, 30)
    label = np.zeros(shape, dtype=np.uint8)
    label[24:34, 12:26, 10:20] = 6
    image = np.full(shape, 40, dtype=np.int16)
    scene = Scene("s", image, 1.0, 0.0, np.diag([2.0, 2, 2, 1]), ABDOMEN, "CT", label)
    unknown = label.copy()
    unknown[:4, :4, :4] = 255  # in a corner, not in the planes through the liver
    pictures = []
    for one in (label, unknown):
        with ViewerServer(resources_of(replace(scene, reference=one))) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                page = opened(page_of(1280), server)
                page.keyboard.press("2")
                page.locator("tr[data-structure=liver] .jump").click()
                pictures.append(picture(page))
            finally:
                server.shutdown()
                thread.join()
    assert np.abs(pictures[0] - pictures[1]).max() <= 8


def test_the_page_is_narrow_and_reachable_by_keyboard(page_of, page_server):  # noqa: F811
    page = opened(page_of(400), page_server)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.locator("#canvas").bounding_box()["height"] > 300
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
    named = "e.ariaLabel || e.textContent.trim() || e.labels?.length"
    controls = f"[...document.querySelectorAll('button, input')].filter(e => !({named})).length"
    assert page.evaluate(controls) == 0
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert {"canvas", "level", "opacity-reference"} <= reached
