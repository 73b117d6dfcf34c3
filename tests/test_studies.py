"""Tables of the documentation name the code that made them, and results are keyed."""

import ast
import importlib.util
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def module(file):
    spec = importlib.util.spec_from_file_location("studies_cache", file)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


CACHE = module(ROOT / "docs" / "studies" / "_cache.py")


def measured(table):
    """Whether most of a table are numbers, which somebody must have measured."""
    cells = [c for row in table.splitlines()[2:] for c in row.strip("|").split("|")]
    numbers = [bool(re.search(r"\d\.\d|\d ?%|^\s*[\d,]+\s*$", c)) for c in cells]
    return sum(numbers) > 0.35 * len(numbers)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_tables_of_numbers_name_the_script_that_made_them(page):
    text = page.read_text(encoding="utf-8")
    for table in re.finditer(r"^\|.*\n\|[-: |]+\n(?:\|.*\n)*", text, flags=re.M):
        if not measured(table.group()):
            continue
        if text[table.end() :].lstrip().startswith("```pycon"):  # shown to be right
            continue
        stamp = CACHE.STAMP.search(text, table.end())
        line = text.count("\n", 0, table.start()) + 1
        assert stamp, f"{page.name}:{line}: no script made this table"
        assert (ROOT / stamp.group(1)).exists()


def test_stamps_name_sources_that_exist():
    for script, parts in {(one.script, one.parts) for one in CACHE.stamps()}:
        assert len(CACHE.key_of(ROOT / script, *parts)) == 12


SCRIPTS = sorted((ROOT / "docs" / "studies").glob("[a-z]*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_studies_do_something_where_they_are_run(script):
    last = ast.parse(script.read_text(encoding="utf-8")).body[-1]
    assert ast.unparse(last).startswith("if __name__ == '__main__':")


def test_make_runs_studies_that_exist():
    named = re.findall(r"docs/studies/\w+\.py", (ROOT / "Makefile").read_text())
    assert named and all((ROOT / name).exists() for name in named)


@pytest.fixture
def house(tmp_path):
    """A library of two modules, and a study that imports a module beside it."""
    studies = tmp_path / "docs" / "studies"
    studies.mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "studies" / "_cache.py", studies)
    files = {
        "fstat/ranks.py": "def rank(x):\n    return sorted(x)\n",
        "fstat/selection/fdr.py": "RATE = 0.1\n",
        "docs/studies/study.py": "import _helper\nfrom lab.bench import N\n",
        "docs/studies/_helper.py": "from _deeper import N\n",
        "docs/studies/_deeper.py": "N = 1\n",
        "docs/studies/lab/bench.py": "from .shelf import N\nimport _beside\n",
        "docs/studies/lab/shelf.py": "N = 1\n",
        "docs/studies/_beside.py": "N = 1\n",
        "docs/studies/other.py": "M = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path, module(studies / "_cache.py")


@pytest.mark.parametrize(
    ("file", "text", "changes"),
    [
        ("fstat/ranks.py", "def rank(x):\n    return sorted(x)[::-1]\n", True),
        (
            "fstat/ranks.py",
            'def rank(x):\n    """Sort."""\n    return sorted(x)\n',
            False,
        ),
        ("fstat/ranks.py", "# Why.\ndef rank(x):\n    return sorted(\n    x)\n", False),
        ("fstat/selection/fdr.py", "RATE = 0.2\n", False),
        ("docs/studies/study.py", "import _helper\nN = 2\n", True),
        ("docs/studies/_helper.py", "from _deeper import N\nK = 2\n", True),
        ("docs/studies/_deeper.py", "N = 2\n", True),
        ("docs/studies/lab/bench.py", "N = 2\n", True),
        ("docs/studies/lab/shelf.py", "N = 2\n", True),
        ("docs/studies/_beside.py", "N = 2\n", True),
        ("docs/studies/other.py", "M = 2\n", False),
    ],
)
def test_a_key_follows_what_the_result_depends_on(house, file, text, changes):
    root, cache = house
    study = root / "docs" / "studies" / "study.py"
    before = cache.key_of(study, "fstat/ranks.py"), cache.key_of(study, "fstat")
    (root / file).write_text(text)
    after = cache.key_of(study, "fstat/ranks.py"), cache.key_of(study, "fstat")
    assert (before[0] != after[0]) == changes
    assert (before[1] != after[1]) == (changes or "selection" in file)


def test_a_key_follows_versions(house, monkeypatch):
    root, cache = house
    study = root / "docs" / "studies" / "study.py"
    before = cache.key_of(study, "fstat")
    monkeypatch.setattr(cache, "_version", lambda package: "0")
    assert cache.key_of(study, "fstat") != before


def test_parts_that_are_not_there_are_refused(house):
    with pytest.raises(ValueError, match="`parts` must name sources"):
        house[1].key_of(None, "fstat/nowhere")


def test_a_table_is_stale_once_its_sources_change(house):
    root, cache = house
    study = root / "docs" / "studies" / "study.py"
    (root / "README.md").write_text("")
    (root / "docs" / "page.md").write_text("<!-- a -->\nold\n<!-- end of a -->\n")
    cache.fill("page.md", "a", "| 1.0 |", study, "fstat/ranks.py")
    cache.fill("page.md", "a", "| 2.0 |", study, "fstat/ranks.py")
    cache.write("whole.md", "| 3.0 |\n", study, "fstat")
    assert [one.is_current for one in cache.stamps()] == [True, True]
    text = (root / "docs" / "page.md").read_text()
    assert "old" not in text and "1.0" not in text and "| 2.0 |" in text
    (root / "fstat" / "selection" / "fdr.py").write_text("RATE = 0.2\n")
    assert [one.is_current for one in cache.stamps()] == [True, False]
    with pytest.raises(ValueError, match=r"`page.md` must have marks for 'b'"):
        cache.fill("page.md", "b", "", study, "fstat")
