"""What is imported when, and in which direction."""

import ast
import pickle
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import fstat

ROOT = Path(__file__).parents[1]
HEAVY = {
    "joblib",
    "matplotlib",
    "pandas",
    "pyarrow",
    "scipy.stats",
    "sklearn",
    "statsmodels",
    "torch",
}


def printed_by(code):
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


# Lazy names


def test_every_name_of_the_stub_is_there_and_complete():
    assert 25 < len(fstat.__all__) < 35
    for name in dir(fstat):
        assert getattr(fstat, name) is not None
    assert set(fstat.__all__) < set(dir(fstat))
    assert fstat.selection.select is fstat.select


def test_what_is_not_public_is_not_completed():
    fstat.FInfluence  # noqa: B018, which imports modules of fstat
    assert not {"inference", "fitting", "watch", "np"} & set(dir(fstat))
    assert not [name for name in dir(fstat) if name[0] == "_" and name[:2] != "__"]


ROOMS = [name for name in dir(fstat) if hasattr(getattr(fstat, name), "__path__")]


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_complete_their_names_alone(room):
    module = getattr(fstat, room)
    assert dir(module) == sorted(module.__all__)


def test_a_star_import_brings_the_names_and_no_rooms():
    namespace = {}
    exec("from fstat import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(fstat.__all__)
    assert "display" not in namespace  # IPython has one of that name


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'fstat' has no attribute 'mu'"):
        fstat.mu  # noqa: B018


@pytest.mark.parametrize("name", fstat.__all__)
def test_names_pickle_as_what_they_are(name):
    value = getattr(fstat, name)
    assert pickle.loads(pickle.dumps(value)) is value
    assert getattr(fstat, name) is value


# What is loaded


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import fstat; dir(fstat)", set()),
        ("import fstat; fstat.GaussianTradeOff(1.0)(0.1)", set()),
        ("import fstat; fstat.compose(*[fstat.LaplaceTradeOff(1)] * 2)(0.1)", set()),
        (
            "from fstat import Trace; t = Trace(['x'])\n"
            "for i in range(30): "
            "t.append(i, [0, 1], alignment=[[i % 3], [1.0]], target_norm=[1.0])\n"
            "t.observations([0], window=10)",
            set(),
        ),
        ("from fstat import Snapshots, datasets", set()),
        (
            "from fstat import FInfluence; FInfluence().fit([0, 1, 2], [2, 3.5, 4])",
            {"sklearn", "pandas", "pyarrow", "joblib", "scipy.stats"},
        ),
    ],
)
def test_what_is_not_needed_is_not_loaded(code, allowed):
    (loaded,) = printed_by(f"{code}\nimport sys; print(*{HEAVY} & set(sys.modules))")
    assert set(loaded.split()) <= allowed


def test_the_core_needs_no_torch():
    code = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "peft"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoTorch())
import fstat
for name in dir(fstat):
    getattr(fstat, name)
print(fstat.FInfluence().fit([0.0, 1.0, 2.0], [2.0, 3.5, 4.0]).mu_ > 0)
"""
    assert printed_by(code) == ["True"]


@pytest.mark.parametrize(
    "first",
    [
        "fstat.tradeoff.gaussian",
        "fstat.composition",
        "fstat.report.figures",
    ],
)
def test_operations_work_whatever_is_imported_first(first):
    code = f"""
import {first}
from fstat.tradeoff import EpsilonDeltaTradeOff, LaplaceTradeOff
f, g = LaplaceTradeOff(1.0), EpsilonDeltaTradeOff(1.0)
for made in (f @ g, f**2, f.inverse(), f.subsample(0.5), f.symmetrized(), f.group(2)):
    assert 0 < made(0.1) < 1
assert f.compare(g).relation and f.tightest_mu() > f.regret() > 0
print("done")
"""
    assert printed_by(code) == ["done"]


@pytest.mark.parametrize("base", ["GaussianTradeOff", "LaplaceTradeOff"])
def test_json_of_any_class_is_read_whatever_is_imported_first(base):
    f = fstat.compose(getattr(fstat, base)(1.0).subsample(0.5), counts=[3])
    code = f"""
from fstat.tradeoff import TradeOff
print(TradeOff.from_json({f.to_json()!r}))
"""
    assert printed_by(code) == repr(f).splitlines()


# Direction


def imports_of(package, folder):
    """Return the modules of a package, each with those of them that it imports.

    Imports for types and within functions count; importing a name of a package
    counts for the package.
    """
    files = {}
    for file in folder.rglob("*.py"):
        parts = (package, *file.relative_to(folder).with_suffix("").parts)
        files[".".join(parts).removesuffix(".__init__")] = file
    return {
        module: set(imported_by(module, file, files)) - {module}
        for module, file in files.items()
    }


def imported_by(module, file, known):
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(filter(None, [above, node.module]))
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                if inner in known or source in known:
                    yield inner if inner in known else source


@pytest.mark.parametrize(
    ("folder", "module"),
    [
        ("fstat", "fstat.composition.composed"),
        ("adapters/torch/fstat_torch", "fstat_torch.gradients.recording"),
    ],
)
def test_no_module_or_room_imports_in_a_circle(folder, module):
    graph = imports_of(module.partition(".")[0], ROOT / folder)
    assert len(graph) > 100 and len(graph[module]) > 5
    TopologicalSorter(graph).prepare()  # raises a CycleError that names the circle
    rooms = {}
    for name, known in graph.items():
        room = rooms.setdefault(room_of(name), set())
        room |= set(map(room_of, known)) - {room_of(name)}
    assert len(rooms) > 10
    TopologicalSorter(rooms).prepare()


def room_of(module):
    """Return the package or module right below the top."""
    return ".".join(module.split(".")[:2])


def test_circles_are_seen_wherever_their_imports_stand(tmp_path):
    files = {
        "__init__.py": "from .one import a\n",
        "one.py": "def f():\n    from .inner import two\n",
        "inner/__init__.py": "",
        "inner/two.py": "if TYPE_CHECKING:\n    from ..three import c\n",
        "three.py": "import box.one\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert imports_of("box", tmp_path) == {
        "box": {"box.one"},
        "box.one": {"box.inner.two"},
        "box.inner": set(),
        "box.inner.two": {"box.three"},
        "box.three": {"box.one"},
    }
    with pytest.raises(ValueError, match="cycle"):
        TopologicalSorter(imports_of("box", tmp_path)).prepare()


def test_every_module_can_be_imported():
    for module in imports_of("fstat", ROOT / "fstat"):
        if not module.endswith("__main__"):
            import_module(module)
