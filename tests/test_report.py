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
from abdoseg.metrics import Outcome, Score, summarise
from abdoseg.report import Section, ShownCase, left_out, render
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


def a_score(metric, outcome):
    return Score("liver", metric, 1.0 if outcome is Outcome.SCORED else None, outcome, "d", "d/c")


def test_what_is_left_out_is_counted_by_reason():
    shared = [Outcome.SCORED, Outcome.NOT_ANNOTATED, Outcome.NOT_ANNOTATED, Outcome.ABSENT]
    scores = [a_score("dsc", outcome) for outcome in (*shared, Outcome.SCORED, Outcome.SCORED)]
    scores += [a_score("hd95", outcome) for outcome in (*shared, Outcome.KNOWN_IN_PART, Outcome.NOT_PREDICTED)]
    whole, known, predicted = left_out(scores)
    assert whole == "Left out: 2 not annotated, 1 absent from the reference (structures, summed over cases)."
    assert known.startswith("HD95: 1 structure (summed over cases) left out: their references are known in part")
    assert predicted.startswith("HD95: 1 structure (summed over cases) left out: they were not predicted")
    assert left_out([a_score("dsc", Outcome.SCORED)]) == []


def test_the_page_says_what_is_left_out(page, workspace):
    scores = evaluate_run(workspace, load_run(workspace), device="cpu").scores
    missing = sum(score.outcome is Outcome.NOT_ANNOTATED for score in scores)
    assert missing > 0  # WORD draws no aorta
    assert f"Left out: {missing} not annotated" in page


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


def test_long_titles_are_squeezed_into_their_place():
    svg = box_plots({"x" * 60: ("#123456", [("c", 1.0)])}, label="x", unit="y")
    (title,) = [e for e in ET.fromstring(svg).iter("text") if e.text.startswith("xxx")]
    assert float(title.get("textLength")) <= float(title.get("x"))
    short = box_plots({"liver": ("#123456", [("c", 1.0)])}, label="x", unit="y")
    assert "textLength" not in short


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


@pytest.fixture
def charted(page_of, tmp_path):  # noqa: F811
    """A function that opens a page with charts of some width: a curve of one point, one of many, box plots."""
    many = [(10 * i, 1 / (i + 1)) for i in range(100)]
    charts = {
        "one": line_chart({"validation": [(40, 2.35)]}, label="one", smooth=False),
        "many": line_chart({"loss": many, "every other": many[::2]}, label="many"),
        "boxes": box_plots(
            {
                "liver": ("#123456", [("d/a", 90.0), ("d/b", 70.0), ("d/c", 80.0)]),
                "spleen": ("#654321", [("d/a", 20.0), ("d/c", 79.0)]),
            },
            label="boxes",
            unit="DSC",
            most=100.0,
        ),
    }
    tables = {f"table {i}": (("case",), [[f"row {j}"] for j in range(30)]) for i in range(3)}
    sections = [Section("curves", "Curves", charts=charts), Section("end", "The end", tables=tables)]

    def opened(width):
        (tmp_path / "r.html").write_text(render("r", {}, sections, [], ABDOMEN), encoding="utf-8")
        view = page_of(width)
        view.goto((tmp_path / "r.html").as_uri())
        return view

    return opened


def readout(view, label):
    """Return what is read under a chart, and what a screen reader says of it."""
    chart = view.locator(f"svg[aria-label={label}]")
    text = chart.evaluate("chart => chart.nextElementSibling.textContent").strip()
    assert chart.get_attribute("aria-valuetext").strip() == text
    assert chart.get_attribute("role") == "slider"
    return text


def test_curves_are_read_by_pointer_at_real_points(charted):
    view = charted(1280)
    assert readout(view, "one") == "step 40 validation 2.35"
    box = view.locator("svg[aria-label=one]").bounding_box()
    view.mouse.move(box["x"] + box["width"] - 5, box["y"] + 20)
    assert readout(view, "one") == "step 40 validation 2.35"
    box = view.locator("svg[aria-label=many]").bounding_box()
    for share in (0.3, 0.52, 0.77):
        view.mouse.move(box["x"] + share * box["width"], box["y"] + 20)
        step = int(readout(view, "many").split()[1])
        assert step % 10 == 0
        assert 0 < step < 990
        assert f"loss {1 / (step / 10 + 1):.4g} " in readout(view, "many")


def test_curves_are_read_by_keyboard(charted):
    view = charted(1280)
    view.locator("svg[aria-label=one]").focus()
    view.keyboard.press("Tab")
    assert view.evaluate("document.activeElement.getAttribute('aria-label')") == "many"
    # A curve without a point at that step says which step its own is of.
    assert readout(view, "many") == "step 990 loss 0.01 every other 0.0101 (step 980)"
    view.keyboard.press("ArrowLeft")
    assert readout(view, "many") == "step 980 loss 0.0101 every other 0.0101"
    view.keyboard.press("Home")
    assert readout(view, "many").startswith("step 0 loss 1 ")
    view.keyboard.press("ArrowLeft")
    assert readout(view, "many").startswith("step 0 ")
    view.keyboard.press("PageUp")
    assert readout(view, "many").startswith("step 100 ")


def test_box_plots_say_their_cases_by_keyboard_and_pointer(charted):
    view = charted(1280)
    view.locator("svg[aria-label=boxes]").focus()
    assert readout(view, "boxes") == "liver, d/b: 70.0"  # the lowest of the first row
    found = []
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "End"):
        view.keyboard.press(key)
        found.append(readout(view, "boxes"))
    expected = ["liver, d/c: 80.0", "spleen, d/c: 79.0", "spleen, d/a: 20.0", "liver, d/b: 70.0", "spleen, d/c: 79.0"]
    assert found == expected
    ring = view.locator("svg[aria-label=boxes] .read")
    assert ring.is_visible()
    for point in view.locator("svg[aria-label=boxes] .point").all():
        box = point.bounding_box()
        view.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        assert readout(view, "boxes").endswith(point.text_content())
    view.mouse.move(1, 1)
    view.locator("svg[aria-label=one]").focus()
    assert not ring.is_visible()


@pytest.mark.parametrize("width", [1280, 400])
def test_the_sections_stay_in_view_and_text_can_be_read(charted, width):
    view = charted(width)
    smallest = view.evaluate(
        """() => Math.min(...[...document.querySelectorAll('svg text')].map(text => parseFloat(
        getComputedStyle(text).fontSize) * text.getScreenCTM().a))"""
    )
    assert smallest >= 10
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    view.evaluate("scrollTo(0, document.body.scrollHeight)")
    bar = view.locator("nav").bounding_box()
    assert bar["y"] == 0
    assert bar["height"] < 100
    view.click("nav a[href='#curves']")
    heading = view.locator("#curves-title").bounding_box()
    assert heading["y"] >= bar["height"]  # not under the bar


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
