"""Which format an output is written in, and the codes of structures."""

from pathlib import Path

import pytest
from pydicom.sr._concepts_dict import concepts

from abdoseg.anatomy import ABDOMEN, Structure
from abdoseg.errors import ConfigError, UnknownNameError
from abdoseg.exporters import EXPORTERS, FORMATS, exporter_for
from abdoseg.exporters.codes import CODES, LEFT, PRIVATE_SCHEME, RIGHT, coded


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.nii.gz", "nifti"),
        ("a.nii", "nifti"),
        ("a.nrrd", "nrrd"),
        ("a.SEG.nrrd", "nrrd"),
        ("a.mha", "metaimage"),
        ("a.seg.dcm", "dicom-seg"),
        ("a.labelmap.dcm", "dicom-labelmap"),
        ("a.rtstruct.dcm", "dicom-rtstruct"),
    ],
)
def test_by_suffix_or_by_name(file, name):
    assert exporter_for(Path(file)) is FORMATS[name]
    assert exporter_for(Path(file), name) is FORMATS[name]
    assert FORMATS[name].suffix in EXPORTERS


def test_a_folder_by_name_only():
    assert exporter_for(Path("organs"), "nifti-per-structure").suffix == ""
    with pytest.raises(ConfigError, match=r"\.seg\.dcm or"):
        exporter_for(Path("organs"))


@pytest.mark.parametrize("file", ["a.dcm", ".seg.dcm", "a.dcm.txt"])
def test_a_dicom_file_says_which_object_it_is(file):
    with pytest.raises(ConfigError, match=r"expected a file name ending in .*\.rtstruct\.dcm"):
        exporter_for(Path(file))


def test_wrong_names():
    with pytest.raises(ConfigError, match=r"a\.nii: .* dicom-seg; expected a file name ending in \.seg\.dcm"):
        exporter_for(Path("a.nii"), "dicom-seg")
    with pytest.raises(UnknownNameError, match="Did you mean nrrd"):
        exporter_for(Path("a.nrrd"), "nrd")


def test_every_default_structure_has_a_code_and_snomed_has_the_term():
    assert set(CODES) == set(ABDOMEN.names)
    known = {(value, entry[0].lower()) for terms in concepts["SCT"].values() for value, entry in terms.items()}
    for name, code in CODES.items():
        assert code.is_private or (code.value, code.meaning.lower()) in known, name
    private = {name for name, code in CODES.items() if code.is_private}
    assert private == {"prostate_uterus", "portal_splenic_vein"}


def test_sides():
    for structure in ABDOMEN.structures:
        side = {"right": RIGHT, "left": LEFT}.get(structure.name.split("_")[0])
        assert coded(structure).side is side
    pairs = {(c.scheme, c.value, c.side) for c in CODES.values()}
    assert len(pairs) == len(CODES)


@pytest.mark.parametrize("name", ["colon", "vertebra", "a_name_of_more_than_sixteen_letters"])
def test_ones_own_structures_get_a_private_code_that_fits(name):
    code = coded(Structure(name, "ü\\" * 60, "x", "#000000"))
    assert code.scheme == PRIVATE_SCHEME
    assert len(code.value) <= 16
    assert len(code.meaning.encode()) <= 64
    assert "\\" not in code.meaning
    assert coded(Structure(name + "_2", "x", "x", "#000000")).value != code.value


def test_long_names_that_begin_alike_stay_two():
    codes = {coded(Structure(f"structure_of_the_abdomen_{i}", "x", "x", "#000000")).value for i in range(200)}
    assert len(codes) == 200
