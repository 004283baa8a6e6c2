"""Views of a workspace: what they leave is counted as somebody with the voxels would count it."""

import json

import numpy as np
import pytest

from abdoseg.annotation import AXES, Annotation
from abdoseg.cards import load_card
from abdoseg.errors import ConfigError, UnknownNameError
from abdoseg.steps.ingest import ingest
from abdoseg.steps.sparsify import default_name, sparsify
from abdoseg.steps.status import status
from abdoseg.store import Workspace, lacks_occupied, occupied_slices, shown_annotation
from abdoseg.views import View
from tests.conftest import LPS, body, write_nifti

TRAINING = [f"word/word_{number:04d}" for number in (1, 2, 3)]  # word_0004 is a test case


@pytest.fixture
def workspace(tmp_path, word_source):
    made = Workspace.create(tmp_path / "w")
    ingest(made, load_card("word"), word_source)
    return made


@pytest.fixture
def older(workspace):
    """The same, stored by a version that did not note which slices hold a structure."""
    for file in (workspace.path / "sources").glob("*.zarr/*/zarr.json"):
        group = json.loads(file.read_text())
        texts = json.dumps(group).count("occupied")
        assert texts == 1, "the test must take out what ingest wrote"
        _drop(group, "occupied")
        file.write_text(json.dumps(group))
    return workspace


def _replace(tree, key, new):
    """Put ``new`` under ``key`` wherever it is in a tree of dicts."""
    for name, value in tree.items():
        if name == key:
            tree[name] = new
        elif isinstance(value, dict):
            _replace(value, key, new)


def _drop(tree, key):
    """Remove ``key`` wherever it is in a tree of dicts."""
    tree.pop(key, None)
    for value in tree.values():
        if isinstance(value, dict):
            _drop(value, key)


def count_by_voxels(workspace, view, keys=TRAINING):
    """Return contours and (voxel, structure) pairs that a view leaves, and before, from whole volumes."""
    contours = {axis: [0, 0] for axis in view.axes}
    pairs = [0, 0]
    for key in keys:
        case = workspace.read_case(key)
        annotations = shown_annotation(workspace, case.facts, view), case.facts.groups
        for when, annotation in enumerate(annotations):
            known = np.zeros((*case.label.shape, annotation.n_structures), dtype=bool)
            for name in view.axes:
                axis = AXES[name] if annotation.slices else None
                known |= annotation.rows[annotation.group_volume(case.label.shape, axis)]
                seen = annotation.known_label(case.label, axis)
                for i in range(seen.shape[AXES[name]]):
                    contours[name][when] += len(set(np.unique(np.take(seen, i, AXES[name]))) - {0})
            pairs[when] += int(known.sum())
    return contours, pairs


@pytest.mark.parametrize(
    "options",
    [
        {"fraction": 0.2},
        {"view": ["coronal", "sagittal"], "fraction": 0.3},
        {"every": 4},
        {"fraction": 0.5, "seed": 3},
        {"fraction": 0.1, "structures": ["liver", "spleen"]},
        {"view": ["sagittal"], "fraction": 0.1, "per_structure": True},
        {"view": ["axial", "sagittal", "coronal"], "every": 3, "native": True},
    ],
    ids=str,
)
def test_a_view_says_what_it_leaves(workspace, options):
    report = sparsify(workspace, **options)
    contours, pairs = count_by_voxels(workspace, report.view)
    assert report.cases == (3, 3)
    assert report.contours == {axis: tuple(counts) for axis, counts in contours.items()}
    assert report.annotated == pytest.approx(pairs)
    assert report.annotated_part == pytest.approx(pairs[0] / pairs[1])
    assert report.effort == pytest.approx(sum(now / before for now, before in contours.values()))
    assert report.effort_saved == pytest.approx(1 - report.effort)
    assert report.other_axes == 0
    assert report.unindexed == 0


def test_slices_are_counted_over_training_cases(workspace):
    report = sparsify(workspace, ["axial"], 0.2)
    n = workspace.read_facts(TRAINING[0]).shape[2]
    assert report.slices == {"axial": (3 * max(1, int(0.2 * n + 0.5)), 3 * n)}
    assert workspace.active_view_name() == "axial-20"


def test_slices_of_chosen_structures_are_those_that_know_them(workspace):
    thinned = sparsify(workspace, ["axial"], 0.2, structures=["liver"])
    assert thinned.slices == sparsify(workspace, ["axial"], 0.2).slices


def test_default_is_a_fifth_evenly_spaced(workspace):
    assert sparsify(workspace).view == View(name="axial-20", axes=("axial",), fraction=0.2)
    assert sparsify(workspace, every=5).view.fraction is None


def test_status_tells_the_same_as_numbers(workspace):
    report = sparsify(workspace, ["axial"], 0.25, structures=["spleen", "liver"], seed=2)
    sparsify(workspace, ["coronal"], every=7)
    told = {view["view"]: view for view in status(workspace)["views"]}
    mine = json.loads(json.dumps(told[report.view.name]))
    assert mine == {
        "view": "axial-25-random2-of-spleen-liver",
        "how": "random",
        "axes": ["axial"],
        "fraction": 0.25,
        "every": None,
        "seed": 2,
        "structures": ["spleen", "liver"],
        "per_structure": False,
        "native": False,
        "sources": [],
        "cases": 3,
        "annotated_cases": 3,
        "slices": {"axial": list(report.slices["axial"])},
        "contours": {"axial": list(report.contours["axial"])},
        "annotated_part": report.annotated_part,
        "effort": report.effort,
        "effort_saved": report.effort_saved,
        "hidden": [],
        "emptied": 0,
        "other_axes": 0,
        "unindexed": 0,
    }
    assert told["coronal-every7"]["every"] == 7


def test_a_structure_that_no_case_shows_is_named(workspace):
    """One slice in the middle of the axis meets the liver and misses what lies below."""
    report = sparsify(workspace, ["axial"], 0.001)
    drawn = {c for key in TRAINING for c in np.unique(workspace.read_case(key).label)} - {0, 255}
    seen = set()
    for key in TRAINING:
        case = workspace.read_case(key)
        seen |= set(np.unique(shown_annotation(workspace, case.facts, report.view).known_label(case.label)))
    hidden = tuple(workspace.anatomy.names[c - 1] for c in sorted(drawn - seen))
    assert report.hidden == hidden
    assert hidden
    assert "liver" not in hidden
    assert sparsify(workspace, ["axial"], 0.001, per_structure=True).hidden == ()


def test_cases_hidden_whole_or_drawn_along_other_axes_are_counted(workspace):
    """One case drawn in its first axial slice, one in a sagittal one, one whole."""
    n = workspace.read_facts(TRAINING[0]).shape
    whole = Annotation.partial((1, 6), 16)
    lists = {2: np.arange(n[2]) == 0}, {0: np.arange(n[0]) == 3}
    for key, kept in zip(TRAINING, lists, strict=False):
        file = workspace.case_folder(key) / "zarr.json"
        _replace(tree := json.loads(file.read_text()), "annotation", whole.thinned(kept).to_json())
        file.write_text(json.dumps(tree))
    report = sparsify(workspace, ["axial"], 0.2)
    assert report.cases == (2, 3)
    assert report.emptied == 1
    assert report.other_axes == 1
    assert report.slices["axial"][1] == 1 + n[2]


def test_a_structure_that_another_source_shows_is_not_hidden(workspace, total_source):
    """What a view hides of WORD's livers, TotalSegmentator's still show."""
    ingest(workspace, load_card("totalsegmentator"), total_source)
    alone = sparsify(workspace, ["sagittal"], 0.001, sources=["word", "totalsegmentator"]).hidden
    hybrid = sparsify(workspace, ["sagittal"], 0.001, sources=["word"])
    assert "liver" in alone
    assert "liver" not in hybrid.hidden
    assert hybrid.cases == (3, 4)


def test_a_case_without_labels_has_no_effort(tmp_path):
    for number in (1, 2):
        write_nifti(tmp_path / f"raw/imagesTr/word_{number:04d}.nii.gz", body((12, 12, 12)), LPS)
        write_nifti(tmp_path / f"raw/labelsTr/word_{number:04d}.nii.gz", np.zeros((12, 12, 12), np.uint8), LPS)
    workspace = Workspace.create(tmp_path / "w")
    ingest(workspace, load_card("word"), tmp_path / "raw")
    report = sparsify(workspace)
    assert report.effort is None
    assert report.effort_saved is None
    assert report.annotated_part == pytest.approx(report.slices["axial"][0] / report.slices["axial"][1])


def test_several_axes_may_cost_more_than_they_save(workspace):
    report = sparsify(workspace, ["axial", "coronal", "sagittal"], 0.5)
    assert report.effort > 1
    assert report.effort_saved == pytest.approx(1 - report.effort)


def test_older_cases_are_read_and_said(older):
    view = View(name="v", axes=("axial",), fraction=0.2, per_structure=True)
    facts = older.read_facts(TRAINING[0])
    assert lacks_occupied(facts)
    assert shown_annotation(older, facts, view).has_annotation
    report = sparsify(older, ["axial"], 0.2, per_structure=True)
    assert report.unindexed == 3
    assert report.contours == {axis: tuple(counts) for axis, counts in count_by_voxels(older, report.view)[0].items()}


def test_index_and_facts_show_the_same(workspace):
    facts, briefs = workspace.facts(), workspace.briefs()
    view = View(name="v", axes=("axial", "coronal"), every=3, per_structure=True, native=True)
    for whole, brief in zip(facts, briefs, strict=True):
        assert not lacks_occupied(whole)
        told = [occupied_slices(workspace, case) for case in (whole, brief)]
        assert json.loads(json.dumps(told[0])) == json.loads(json.dumps(told[1]))
        a, b = (shown_annotation(workspace, case, view) for case in (whole, brief))
        assert a.to_json() == b.to_json()
        assert shown_annotation(workspace, brief, None).to_json() == whole.groups.to_json()


def test_names_tell_views_apart(workspace):
    made = [
        sparsify(workspace, *args, **options).view.name
        for args, options in [
            ((["axial"], 0.2), {}),
            ((["axial", "axial"], 0.2), {"name": None}),
            ((["axial", "coronal"], 0.1), {"sources": ["word", "word"]}),
            ((["axial"],), {"every": 5}),
            ((["axial"], 0.2), {"seed": 0}),
            ((["axial"], 0.2), {"seed": 4}),
            ((["axial"], 0.2), {"structures": ["spleen", "liver"]}),
            ((["axial"], 0.2), {"structures": ["liver", "spleen"]}),
            ((["axial"], 0.2), {"structures": ["liver"], "sources": ["word"]}),
            ((["axial"], 0.2), {"per_structure": True}),
            ((["axial"], 0.2), {"native": True}),
        ]
    ]
    assert made == [
        "axial-20",
        "axial-20",
        "axial-coronal-10-word",
        "axial-every5",
        "axial-20-random",
        "axial-20-random4",
        "axial-20-of-spleen-liver",
        "axial-20-of-spleen-liver",
        "axial-20-of-liver-word",
        "axial-20-each",
        "axial-20-native",
    ]


def test_a_name_stands_for_one_view(workspace):
    sparsify(workspace, ["axial"], 0.2, name="mine")
    sparsify(workspace, ["axial"], 0.2, name="mine")  # the same again is no conflict
    with pytest.raises(ConfigError) as caught:
        sparsify(workspace, ["axial"], 0.3, structures=["spleen", "liver"], sources=["word"], seed=1, name="mine")
    assert str(caught.value) == (
        "view mine: exists with other settings (frac: found 0.3, the view has 0.2; random seed: found 1, the view has "
        "none; structures: found spleen, liver, the view has all; and 1 more); choose another --name"
    )


@pytest.mark.parametrize(
    ("fraction", "name"),
    [(0.2, "axial-20"), (0.125, "axial-12.5"), (0.001, "axial-0.1"), (1e-9, "axial-0.0000001"), (1.0, "axial-100")],
)
def test_names_of_fractions(fraction, name):
    view = View(name="v", axes=("axial",), fraction=fraction)
    assert default_name(view, ()) == name
    assert View(**{**view.model_dump(), "name": name}).fraction == fraction


def test_a_view_by_name_becomes_active_again(line):
    made = line("sparsify", "--view", "axial", "--frac", 0.3, "--name", "mine", "-w", "workspace")
    line("sparsify", "--view", "coronal")
    told = line("sparsify", "--view", "mine", "-w", "workspace")
    assert (told.status, told.out) == (0, made.out)
    assert told.err == "next: abdoseg train --workspace workspace\n"
    assert json.loads(line("status", "--json").out)["active_view"] == "mine"
    told = line("sparsify", "--view", "full")
    assert (told.out, told.err) == ("active view: full, all labels\n", "next: abdoseg train\n")


def test_a_view_by_name_takes_no_options(line):
    line("sparsify", "--view", "axial", "--name", "mine")
    line("sparsify", "--view", "full")
    for options in (("--frac", 0.2), ("--sources", "word"), ("--view", "axial"), ("--name", "other"), ("--native",)):
        told = line("sparsify", "--view", "mine", *options)
        assert told.status == 2
        assert "--view mine: is there already, and becomes the active one; it goes with no other" in told.err
    assert "Did you mean mine" in line("sparsify", "--view", "mien").err
    assert json.loads(line("status", "--json").out)["active_view"] == "full"


def test_no_voxel_is_copied(workspace):
    workspace.briefs()
    before = sorted(path for path in (workspace.path / "sources").rglob("*"))
    sparsify(workspace, ["axial"], 0.2)
    assert sorted(path for path in (workspace.path / "sources").rglob("*")) == before


def test_unknown_names(workspace):
    with pytest.raises(UnknownNameError, match="amos"):
        sparsify(workspace, ["axial"], 0.2, sources=["amos"])
    with pytest.raises(UnknownNameError, match="view 'axail'"):
        sparsify(workspace, ["axail"], 0.2)
    with pytest.raises(UnknownNameError, match=r"structure 'livr'.*liver"):
        sparsify(workspace, ["axial"], 0.2, structures=["livr"])
    assert workspace.active_view_name() == "full"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"fraction": 0.0}, r"^--frac: found 0.0, expected a fraction of the slices, 0 < frac <= 1$"),
        ({"fraction": 1.5}, r"^--frac: found 1.5, expected a fraction of the slices, 0 < frac <= 1$"),
        ({"fraction": float("nan")}, "^--frac: found nan, expected"),
        ({"every": 0}, "^--every: found 0, expected a whole number of at least 1$"),
        ({"fraction": 0.2, "every": 5}, "give one of them"),
        ({"every": 5, "seed": 0}, "contradict"),
        ({"view": []}, "^--view: found none, expected some of sagittal, coronal, axial"),
        ({"name": "full"}, "^--name: found full, 'full' stands for all labels"),
        ({"name": "coronal"}, "^--name: found coronal, which is a direction; choose another name$"),
        ({"name": "a/b"}, "^--name: found a/b, expected letters, digits"),
    ],
)
def test_bad_values_are_refused_and_nothing_is_made(workspace, options, reason):
    with pytest.raises(ConfigError, match=reason):
        sparsify(workspace, **options)
    assert workspace.views() == []
    assert workspace.active_view_name() == "full"


def test_an_empty_workspace_has_nothing_to_thin(tmp_path):
    with pytest.raises(ConfigError, match="no cases; `abdoseg ingest"):
        sparsify(Workspace.create(tmp_path / "w"))


def test_a_hybrid_leaves_the_other_sources_alone(workspace):
    facts = workspace.read_facts(TRAINING[0])
    view = View(name="h", axes=("axial",), fraction=0.2, sources=("btcv",))
    assert shown_annotation(workspace, facts, view).slices == {}


@pytest.fixture
def line(abdoseg, word_source):
    assert abdoseg("ingest", "word", word_source).status == 0
    return abdoseg


def test_the_command_says_what_a_view_leaves(line):
    told = line("sparsify", "--view", "axial", "--every", 5, "--structures", "liver,spleen")
    assert told.status == 0
    facts = json.loads(line("status", "--json").out)["views"][0]
    lines = told.out.splitlines()
    assert lines[:3] == [
        "active view: axial-every5-of-spleen-liver",
        "  every 5th of the axial slices, of spleen, liver only",
        "  thins 3 of 3 annotated training cases (all sources)",
    ]
    now, before = facts["slices"]["axial"]
    drawn, all_drawn = facts["contours"]["axial"]
    assert lines[3] == (
        f"  axial: {now} of {before} slices ({100 * now / before:.1f} %), "
        f"{drawn} of {all_drawn} contours ({100 * drawn / all_drawn:.1f} %)"
    )
    assert f"annotation effort: about {100 * facts['effort_saved']:.1f} % saved" in lines[4]
    assert max(map(len, lines)) <= 80
    shown = line("status").out
    assert "active view: axial-every5-of-spleen-liver" in shown
    assert lines[3] in shown.splitlines()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--view", "axial", "--frac", 0.1, "--random"), "10 % of the axial slices, at random (seed 0)"),
        (("--view", "axial", "--random", "--seed", 5), "20 % of the axial slices, at random (seed 5)"),
        (("--view", "axial,coronal,sagittal"), "20 % of the axial, coronal and sagittal slices, evenly spaced"),
        (("--view", "axial", "--every", 3, "--native"), "every 3rd of the axial native slices"),
        (("--view", "axial", "--every", 12), "every 12th of the axial slices"),
        (("--view", "sagittal", "--per-structure"), "evenly spaced, for each structure by itself"),
        (("--view", "axial,coronal,sagittal", "--frac", 0.6), "% of one whole axis"),
    ],
)
def test_every_option_is_told_in_words(line, options, words):
    told = line("sparsify", *options)
    assert told.status == 0
    assert words in " ".join(told.out.split())
    assert max(map(len, told.out.splitlines())) <= 80


def test_hidden_structures_are_told_before_training(line):
    told = line("sparsify", "--view", "axial", "--frac", 0.001)
    assert told.status == 0
    assert "cannot be learnt" in " ".join(told.err.split())
    assert "cannot be learnt" in " ".join(line("status").err.split())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--view", "axial", "--frac", "nan"), "--frac: found nan"),
        (("--view", "axial", "--frac", 0), "--frac: found 0.0"),
        (("--view", "axial", "--every", 0), "--every: found 0"),
        (("--view", "axial", "--every", 5, "--frac", 0.2), "give one of them"),
        (("--view", "axial", "--every", 5, "--random"), "contradict"),
        (("--view", "axial", "--seed", 5), "--seed 5: slices are evenly spaced without --random"),
        (("--view", "axial", "--structures", "livr"), "Did you mean liver"),
        (("--view", "full", "--every", 0), "--view full: shows all labels"),
        (("--view", "full,axial"), "--view full: shows all labels"),
        (("--view", "full", "--native"), "--view full: shows all labels"),
        (("--view", ","), "--view: found none"),
        (("--view", "axial", "--structures", ""), "--structures: found none, expected names as a,b; leave it out"),
        (("--view", "axial", "--sources", ","), "--sources: found none, expected names as a,b; leave it out"),
        (("--view", "axial", "--name", "axial"), "--name: found axial, which is a direction"),
        (("--view", "axial", "--name", "n" * 300), "File name too long"),
    ],
)
def test_bad_options_are_one_line(line, options, reason):
    told = line("sparsify", *options)
    assert told.status == 2
    assert reason in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_an_empty_workspace_is_one_line(abdoseg, tmp_path):
    Workspace.create(tmp_path / "workspace")
    told = abdoseg("sparsify", "--view", "axial")
    assert told.status == 2
    assert "no cases; `abdoseg ingest" in told.err
