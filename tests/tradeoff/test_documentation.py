"""What the page on trade-off functions shows is true."""

import doctest
import inspect
from pathlib import Path

import pytest
from numpydoc.validate import validate

from fstat import tradeoff

PAGE = Path(__file__).parents[2] / "docs" / "tradeoff-functions.md"
# As for the other docstrings: not owed by each method.
OPTIONAL = {"ES01", "SA01", "EX01", "RT02", "GL01", "YD01"}


def test_the_page_runs():
    failed, attempted = doctest.testfile(str(PAGE), module_relative=False)
    assert failed == 0 and attempted > 15


@pytest.mark.parametrize("name", tradeoff.__all__)
def test_docstrings_are_valid(name):
    value = getattr(tradeoff, name)
    members = [f"fstat.tradeoff.{name}"]
    if inspect.isclass(value):
        members += [
            f"fstat.tradeoff.{name}.{member}"
            for member, method in vars(value).items()
            if member[0] != "_" and inspect.isroutine(method)
        ]
    for member in members:
        errors = [e for e in validate(member)["errors"] if e[0] not in OPTIONAL]
        assert not errors, (member, errors)
