"""The report: figures are those of eval, the page needs nothing else, and a browser has nothing to complain of."""

import base64
import hashlib
import json
import re
import zlib
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from abdoseg.anatomy import ABDOMEN
from abdoseg.cards import load_card
from abdoseg.config import make_config
from abdoseg.metrics import summarise
from abdoseg.report import Section, ShownCase, render
from abdoseg.report.charts import box_plots, line_chart
from abdoseg.report.ticks import ticks
from abdoseg.runs import load_run, start_run
from abdoseg.steps.evaluate_run import evaluate_run
from abdoseg.steps.ingest import ingest
from abdoseg.steps.report import confusion_of, report_run
from abdoseg.steps.train import train
from abdoseg.store import Settings, Workspace
from tests.browser import browser, page_of  # noqa: F401 -- fixtures
from tests.conftest import word_case

TINY = {"steps": 6, "batch": 1, "patch": (16, 16, 16), "workers": 1, "log_every": 2}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Two training cases and two test cases of WORD, and a trained run."""
    folder = tmp_path_factory.mktemp("report")
    for number, part in ((1, "Tr"), (2, "Tr"), (3, "Ts"), (4, "Ts")):
        word_case(folder / "raw", number, part)
    made = Workspace.create(folder / "workspace", Settings(spacing_mm=4.0))
    ingest(made, load_card("word"), folder / "raw")
    train(made, make_config("small", TINY), device="cpu")
    return made


@pytest.fixture(scope="module")
def page(workspace):
    return report_run(workspace, load_run(workspace), device="cpu")


class Elements(HTMLParser):
    """Every tag with its attributes, and the text of tables."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._inside = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data):
        self.text.setdefault(self._inside, []).append(data)


def test_nothing_is_loaded_from_elsewhere(page):
    found = Elements(page)
    for tag, attributes in found.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        for name in ("src", "href", "action", "data"):
            assert attributes.get(name, "#").startswith("#"), (tag, attributes)
    assert "@import" not in page
    assert "url(" not in page


def test_the_policy_lets_the_pages_own_script_run_and_nothing_else(page):
    (policy,) = [a["content"] for t, a in Elements(page).tags if a.get("http-equiv") == "Content-Security-Policy"]
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_figures_are_those_of_eval(page, workspace):
    scores = evaluate_run(workspace, load_run(workspace), device="cpu").scores
    cells = [a["data-value"] for t, a in Elements(page).tags if t == "td" and "data-value" in a]
    for by in (("structure",), ("subject",), ("structure", "dataset")):
        for row in summarise(scores, by):
            assert str(row.mean) in cells
            assert row.std is None or str(row.std) in cells


def test_every_part_is_there(page):
    ids = {a["id"] for _, a in Elements(page).tags if "id" in a}
    assert ids >= {"training", "scores", "spread", "confusion", "sampling", "provenance", "cases"}
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert [case["title"].split(":")[0] for case in data["cases"]] == ["Worst", "Best"]
    assert [s["colour"] for s in data["structures"]] == [s.colour for s in ABDOMEN.structures]


def test_a_run_without_weights_is_shown_as_far_as_it_came(workspace):
    run, _ = start_run(workspace, make_config("small", {**TINY, "seed": 9}), "later")
    found = report_run(workspace, run, device="cpu")
    assert "Nothing was written down yet" in found
    assert "No weights yet" in found


@given(
    st.integers(2, 5).flatmap(
        lambda n: st.tuples(
            st.just(n),
            arrays.arrays(np.uint8, (3, 4, 2), elements=st.sampled_from([*range(n), 255])),
            arrays.arrays(np.uint8, (3, 4, 2), elements=st.integers(0, n - 1)),
        )
    )
)
def test_confusion_counts_voxels(given_):
    n, reference, prediction = given_
    found = confusion_of(reference, prediction, n)
    for i in range(n):
        for j in range(n):
            assert found[i, j] == np.sum((reference == i) & (prediction == j))


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_and_on_the_axis(low, length):
    high = low + length
    if not high > low:
        return
    found = ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), length)
    assert all(low - slack <= at <= high + slack for at in found)
    assert len(found) <= 7


def numbers_of(svg, tag, name):
    return [
        float(e.get(name)) for e in ET.fromstring(svg).iter(tag) if e.get(name) and e.get("class") in ("box", "point")
    ]


def test_boxes_are_quartiles():
    values = [10.0, 20.0, 30.0, 40.0, 90.0]
    svg = box_plots({"liver": ("#123456", [(f"c{v}", v) for v in values])}, label="x", unit="y", most=100)
    points = numbers_of(svg, "circle", "cx")
    (left,), (width,) = numbers_of(svg, "rect", "x"), numbers_of(svg, "rect", "width")
    assert left == pytest.approx(points[1], abs=0.11)
    assert left + width == pytest.approx(points[3], abs=0.11)
    titles = [e.text for e in ET.fromstring(svg).iter("title")]
    assert titles[-1] == "c90.0: 90.0"


def test_curves_go_through_their_points():
    svg = line_chart({"loss": [(0, 1.0), (10, 3.0), (20, 2.0)], "empty": []}, label="x")
    (line,) = ET.fromstring(svg).iter("polyline")
    xy = [tuple(map(float, p.split(","))) for p in line.get("points").split()]
    assert xy[1][0] == pytest.approx((xy[0][0] + xy[2][0]) / 2)
    assert xy[1][1] < xy[2][1] < xy[0][1]  # downwards on the screen
    assert xy[2][1] == pytest.approx((xy[0][1] + xy[1][1]) / 2)


def a_case(shape=(6, 5, 4), title="case"):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, shape).astype(np.uint8)
    return ShownCase(title, "caption", rng.random(shape).astype(np.float32), label, label[::-1].copy(), 2.0)


def unpacked(text, shape):
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(shape, order="F")


def test_small_volumes_are_kept_as_they_are():
    case = a_case()
    found = case.packed()
    np.testing.assert_array_equal(unpacked(found["reference"], case.reference.shape), case.reference)
    np.testing.assert_array_equal(unpacked(found["prediction"], case.reference.shape), case.prediction)
    np.testing.assert_allclose(unpacked(found["image"], case.reference.shape) / 255, case.image, atol=0.003)
    assert found["spacing"] == 2.0


def test_large_volumes_are_made_coarser(monkeypatch):
    monkeypatch.setattr("abdoseg.report.shown.MOST_VOXELS", 1000)
    case = a_case((30, 40, 20))
    found = case.packed()
    assert np.prod(found["shape"]) < 1500
    assert found["spacing"] == pytest.approx(2 * 24 ** (1 / 3), abs=0.01)
    shown = unpacked(found["reference"], tuple(found["shape"]))
    step = 24 ** (1 / 3)
    at = tuple(np.floor(np.arange(n) * step + 0.5).astype(int) for n in found["shape"])
    np.testing.assert_array_equal(shown, case.reference[np.ix_(*at)])


EVIL = '<script>alert("x")</script>'


def test_names_cannot_become_code():
    section = Section("s", EVIL, [EVIL], tables={EVIL: ((EVIL,), [[EVIL]])}, heat=([EVIL], [EVIL], [[0.5]]), text=EVIL)
    chart = box_plots({EVIL: ("#123456", [(EVIL, 1.0)])}, label=EVIL, unit=EVIL)
    charted = Section("c", "c", charts={EVIL: chart})
    found = render(EVIL, {EVIL: EVIL}, [section, charted], [a_case(title=EVIL)], ABDOMEN)
    assert [t for t, _ in Elements(found).tags].count("script") == 2
    assert "alert(" not in re.sub(r"&lt;script&gt;alert\(", "", found).replace("\\u003cscript>alert(", "")


@pytest.mark.parametrize("width", [1280, 400])
def test_in_a_browser(page, page_of, tmp_path, width):  # noqa: F811
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    view = page_of(width)
    view.goto((tmp_path / "report.html").as_uri())
    view.wait_for_selector(".case[data-ready=yes]")
    assert view.evaluate("document.documentElement.scrollWidth") <= width

    def picture():
        return view.evaluate("document.querySelector('canvas').toDataURL()")

    whole = picture()
    view.click("[data-layer=reference]")
    view.click("[data-layer=prediction]")
    bare = picture()
    assert bare != whole
    assert view.get_attribute("[data-layer=prediction]", "aria-pressed") == "false"
    view.click("[data-layer=reference]")
    liver = next(i for i, s in enumerate(ABDOMEN.structures, start=1) if s.name == "liver")
    with_liver = picture()
    view.click(f"[data-structure='{liver}']")
    assert picture() != with_liver
    view.click("[data-all=hide]")
    assert picture() == bare
    view.focus("input[data-plane=axial]")
    view.keyboard.press("ArrowRight")
    assert picture() != bare
    first = "table.sortable tbody tr:first-child td:first-child"
    view.click("table.sortable th:first-child button")
    up = view.inner_text(first)
    view.click("table.sortable th:first-child button")
    assert view.inner_text(first) != up


def test_the_patients_right_is_on_the_left(page_of, tmp_path):  # noqa: F811
    label = np.zeros((20, 16, 12), dtype=np.uint8)
    label[14:18, 5:9, 4:8] = 1  # RAS+: large X is the patient's right
    case = ShownCase("c", "c", np.zeros(label.shape, np.float32), label, label, 2.0)
    (tmp_path / "r.html").write_text(render("r", {}, [], [case], ABDOMEN), encoding="utf-8")
    view = page_of(1280)
    view.goto((tmp_path / "r.html").as_uri())
    view.wait_for_selector(".case[data-ready=yes]")
    sums = view.evaluate(
        """() => { const c = document.querySelector('canvas[data-plane=axial]'), d = c.getContext('2d')
        .getImageData(0, 0, c.width, c.height).data, half = [0, 0];
        for (let i = 0; i < d.length; i += 4)
          half[(i / 4) % c.width < c.width / 2 ? 0 : 1] += d[i] + d[i + 1] + d[i + 2];
        return half; }"""
    )
    assert sums[0] > 0
    assert sums[1] == 0


def test_the_command(workspace, abdoseg, tmp_path):
    out = abdoseg("report", "-w", workspace.path, "-o", tmp_path / "r.html", "--cases", 1, "--device", "cpu")
    assert out.status == 0
    assert (tmp_path / "r.html").stat().st_size > 10_000
    assert "Worst" in (tmp_path / "r.html").read_text()
    assert max(map(len, out.err.splitlines()[:-2])) <= 80


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("-o", "r.txt"), "ends in .html"),
        (("--split", "tests"), "split 'tests' is not known"),
        (("nobody",), "nobody"),
        (("--metrics", "dcs"), "dcs"),
        (("--split", "val"), "its val split is empty"),
    ],
)
def test_what_cannot_be_reported_is_one_line(workspace, abdoseg, options, told):
    out = abdoseg("report", "-w", workspace.path, "--device", "cpu", *options)
    assert out.status == 2
    assert told in " ".join(out.err.split())
