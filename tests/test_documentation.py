"""What the documentation shows can be run."""

import doctest
import re
import runpy
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
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
    "resnet": "wrong labels: mu -0",
    "trainer_lightning": "Selection(",
    "trainer_transformers": "Selection(",
}
TRAINERS = {"accelerate", "lightning", "transformers"}
CODE = [p for p in sorted((ROOT / "docs").glob("*.md")) if "```python" in p.read_text()]
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
    if "fstat_torch" in page.read_text():
        pytest.importorskip("torch")
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, tried = doctest.testfile(
        str(page), module_relative=False, optionflags=options
    )
    assert tried and not failed


def blocks_of(page):
    """Return the python blocks of a page, without those that say they are fragments."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.M | re.S)
    return [block for block in blocks if not block.startswith("# fragment")]


def kept_trace(folder):
    """Leave the trace that `docs/full-size.md` reads, of a smaller run."""
    import torch

    from fstat_torch import SingleRunSampler

    model, x = torch.nn.Linear(3, 2), torch.randn(120, 3)
    targets = {"self": "self", "a": (x[:1], torch.tensor([1]))}
    with SingleRunSampler(model, targets=targets, storage=folder) as sampler:
        for index in torch.arange(120).split(4) * 2:
            with sampler.step(index):
                loss = torch.nn.functional.cross_entropy(model(x[index]), index % 2)
                loss.backward()


@pytest.mark.parametrize("page", CODE, ids=lambda path: path.stem)
def test_the_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    if page.stem == "full-size":
        kept_trace("traces/all")
    namespace = {}
    for block in blocks_of(page):
        exec(compile(block, page.name, "exec"), namespace)


def test_few_blocks_of_code_are_fragments():
    fragments = [
        block
        for page in CODE
        for block in re.findall(
            r"^```python\n(# fragment.*?)^```", page.read_text(), re.M | re.S
        )
    ]
    assert len(fragments) <= 4
    for block in fragments:
        compile(block, "fragment", "exec")


def test_the_code_of_the_readme_runs_from_top_to_bottom():
    pytest.importorskip("torch")
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)
    assert len(blocks) == 2
    namespace = {}
    for block in blocks:
        exec(block, namespace)
    assert len(namespace["table"]) == 1500
    wrong = namespace["noisy"] != namespace["labels"]
    suspects = namespace["suspects"]
    assert suspects.n_tested == 1000
    found = np.flatnonzero(suspects.selected)
    assert len(found) > 60 and wrong[found].mean() > 0.85


LINKING = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]


def anchors(page):
    """What links to the headings of a page end in."""
    code = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.+)$", code, flags=re.M)
    kept = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {title.replace(" ", "-") for title in kept}


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        to = page.parent / name if name else page
        assert to.exists(), f"{page.name} links to {link}"
        if anchor and to.suffix == ".md":
            assert anchor in anchors(to), f"{page.name} links to {link}"
