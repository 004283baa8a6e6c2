import ast
from pathlib import Path

import pytest

import abdoseg

SOURCE = Path(abdoseg.__file__).parent


@pytest.mark.parametrize("name", abdoseg.__all__)
def test_public_names_resolve_and_are_documented(name):
    assert getattr(abdoseg, name).__doc__


def test_public_functions_stay_functions_once_their_modules_are_imported():
    import abdoseg.steps.ingest
    import abdoseg.steps.train

    assert callable(abdoseg.ingest)
    assert callable(abdoseg.train)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = abdoseg.nothing


def test_files_and_functions_stay_small():
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = [n for n in node.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
                assert (node.end_lineno or 0) - body[0].lineno < 60 if body else True, f"{path}:{node.name}"
