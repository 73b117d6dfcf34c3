import ast
from pathlib import Path

import pytest
from compat import OF_THE_ADAPTER

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


def test_oracles_share_no_code_with_the_library():
    for file in (ROOT / "tests/oracles").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in getattr(node, "names", [])]
            names.append(getattr(node, "module", None) or "")
            assert not any(name.split(".")[0].startswith("fstat") for name in names)


def imported(file):
    """Return the packages that a module imports when it is imported itself."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def test_tests_of_the_core_need_no_torch():
    adapter = {"torch", "fstat_torch", "peft", "transformers", "lightning"}
    for file in (ROOT / "tests").rglob("*.py"):
        place = file.relative_to(ROOT / "tests").as_posix()
        skipped = 'importorskip("torch")' in file.read_text(encoding="utf-8")
        if not place.startswith(OF_THE_ADAPTER) and not skipped:
            assert not adapter & {*imported(file)}, place
