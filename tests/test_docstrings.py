"""Public docstrings follow numpydoc: parameters, returns, types, order of sections."""

import importlib
import inspect

import pytest
from numpydoc.validate import validate

from fstat._choices import Choice

# Extended summaries, links and examples are not owed by each method; and
# scikit-learn's `self` of `fit` needs no name.
OPTIONAL = {"ES01", "SA01", "EX01", "RT02", "GL01", "YD01"}
# A property needs no Returns section, nor does it have a verb.
OF_PROPERTIES = {"RT01", "SS05"}


# Packages whose `__all__` also lists bricks of the estimators: what users meet.
PARTS = {
    "fstat.intervals": [
        "Bootstrap",
        "BootstrapDistribution",
        "Clustered",
        "ConfidenceInterval",
        "Dependence",
        "Independent",
        "Interval",
        "InvertedTest",
        "Sequence",
        "Serial",
        "bootstrap_distribution",
        "threshold_lower_bound",
    ],
    "fstat.methods": [
        "Binormal",
        "GoodnessOfFit",
        "Method",
        "Moments",
        "Quantile",
        "Rank",
        "Supremum",
    ],
}


def asked_of_all_kinds(value, member):
    """Whether a member of a choice is documented by what every kind of it answers."""
    kinds = [k for k in value.__mro__[1:] if k.__module__.startswith("fstat.")]
    return issubclass(value, Choice) and any(member in vars(k) for k in kinds)


def is_named(kind):
    """Whether users name a class: where its room says so."""
    place = kind.__module__.rpartition(".")[0]
    return kind.__name__ in getattr(importlib.import_module(place), "__all__", ())


def members_of(value):
    """Return what a class has of its own, and of bases that users never name."""
    found = {}
    for base in reversed(value.__mro__):
        ours = base.__module__.startswith(("fstat.", "fstat_torch."))
        if base is value or (ours and not is_named(base)):
            found |= vars(base)
    return found


def public_objects():
    for package in (
        "fstat",
        "fstat_torch",
        "fstat.composition",
        "fstat.datasets",
        "fstat.display",
        "fstat.empirical",
        "fstat.ground_truth",
        "fstat.influence",
        "fstat.intervals",
        "fstat.methods",
        "fstat.monitoring",
        "fstat.records",
        "fstat.report",
        "fstat.selection",
        "fstat.tradeoff",
        "fstat_torch.targets",
        "fstat_torch.llama",
        "fstat_torch.mnist",
        "fstat_torch.retraining",
    ):
        try:
            module = importlib.import_module(package)
        except ModuleNotFoundError:
            continue
        names = (
            PARTS.get(package)
            or getattr(module, "__all__", None)
            or [
                name
                for name, value in vars(module).items()
                if getattr(value, "__module__", None) == package and name[0] != "_"
            ]
        )
        for name in names:
            value = getattr(module, name)
            if not callable(value):  # a constant
                continue
            yield f"{package}.{name}", value
            if inspect.isclass(value) and not issubclass(value, Warning):
                for member, method in members_of(value).items():
                    if (
                        member[0] != "_"
                        and (inspect.isroutine(method) or isinstance(method, property))
                        and not asked_of_all_kinds(value, member)
                    ):
                        yield f"{package}.{name}.{member}", method


PUBLIC = dict(public_objects())


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_is_valid(name):
    optional = OPTIONAL
    if isinstance(PUBLIC[name], property):
        optional = OPTIONAL | OF_PROPERTIES
    errors = [e for e in validate(name)["errors"] if e[0] not in optional]
    assert not errors, "\n".join(f"{name}: {code} {text}" for code, text in errors)
