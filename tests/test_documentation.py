"""What the documentation shows can be run."""

import doctest
import re
import runpy
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
# What each example comes to.
SHOWN = {
    "audit": "epsilon is at least",
    "accelerate_loop": "Selection(",
    "fresh_snapshots": "wrong labels: mu -",
    "from_samples": "Selection(",
    "ground_truth": "Agreement(",
    "llama_score": "8 of the first 8 are from the forum",
    "own_loop": "Selection(",
    "trainer_lightning": "Selection(",
    "trainer_transformers": "Selection(",
}
TRAINERS = {"accelerate", "lightning", "transformers"}
PAGES = [p for p in sorted((ROOT / "docs").glob("*.md")) if ">>> " in p.read_text()]


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(script, tmp_path, monkeypatch, capsys):
    imported = re.findall(r"^(?:from|import) (\w+)", script.read_text(), flags=re.M)
    for package in {*imported, "torch"} if "fstat_torch" in imported else imported:
        if find_spec(package) is None:
            pytest.skip(f"needs {package}")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        if TRAINERS & set(imported):  # their advice is about workers and folders
            warnings.simplefilter("ignore")
        runpy.run_path(str(script), run_name="__main__")
    assert SHOWN[script.stem] in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_pages_show_what_happens(page):
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, tried = doctest.testfile(
        str(page), module_relative=False, optionflags=options
    )
    assert tried and not failed


def test_the_code_of_the_readme_runs_from_top_to_bottom():
    pytest.importorskip("torch")
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)
    assert len(blocks) == 2
    namespace = {}
    for block in blocks:
        exec(block, namespace)
    assert len(namespace["table"]) == 5000
    assert namespace["suspects"].n_tested == 900


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/auditing.md",
        "docs/reading-mu.md",
        "docs/training-loops.md",
    ],
)
def test_links_lead_somewhere(page):
    file = ROOT / page
    for link in re.findall(r"\]\(([^)#]+)", file.read_text()):
        if not link.startswith("http"):
            assert (file.parent / link).exists(), f"{page} links to {link}"
