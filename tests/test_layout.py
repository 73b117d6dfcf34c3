import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("folder", ["adapters", "tests/adapters"])
def test_folders_named_like_packages_are_no_packages(folder):
    # An __init__.py there would shadow torch, or another distribution's `adapters`.
    outside = [
        file
        for file in (ROOT / folder).rglob("__init__.py")
        if "fstat_torch" not in file.relative_to(ROOT).parts
    ]
    assert (ROOT / folder).is_dir()
    assert not outside


def test_the_core_is_light_and_needs_no_torch():
    code = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "peft"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoTorch())
import fstat, fstat.datasets
print(fstat.FInfluence().fit([0.0, 1.0, 2.0], [2.0, 3.5, 4.0]).mu_ > 0)
print({"torch", "statsmodels", "matplotlib.pyplot"} & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "set()"]


def test_oracles_share_no_code_with_the_library():
    for file in (ROOT / "tests/oracles").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in getattr(node, "names", [])]
            names.append(getattr(node, "module", None) or "")
            assert not any(name.split(".")[0].startswith("fstat") for name in names)
