"""The script for a GPU, rehearsed on the CPU; its checks can fail, and say so."""

import importlib
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
for package in ("transformers", "peft"):
    pytest.importorskip(package)

STUDIES = Path(__file__).parents[3] / "docs" / "studies"
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(STUDIES))
    # So that nothing of a GPU is asked for where there is one.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    yield importlib.import_module("gpu")
    for name in ("gpu", "_gpu_checks", "_gpu_costs", "_gpu_subjects"):
        sys.modules.pop(name, None)


def test_the_rehearsal_runs_every_part_and_all_checks_hold(gpu, tmp_path, capsys):
    assert gpu.main(["--rehearse", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "table.md").read_text()
    assert text in capsys.readouterr().out
    assert "a rehearsal, not measured" in text and "34 of 34 checks hold" in text
    assert "not run" not in text and "FAILED" not in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    metrics = [row[1] for row in rows if row[1] in ("plain", "curvature", "fresh")]
    assert len(metrics) == 5 * 3  # MLP, CNN, 135M twice, 8B
    for promise in (
        "unharmed",
        "exact",
        "bfloat16",
        "float16 with",
        "overflows",
        "gloo",
    ):
        assert promise in text
    assert not torch.are_deterministic_algorithms_enabled()
    # The tables can be put into the page, again and again.
    page = tmp_path / "page.md"
    page.write_text(f"before\n{gpu._BEGIN}\nnothing yet\n{gpu._END}\nafter\n")
    for _ in range(2):
        gpu.put_into_page(text, page)
        assert page.read_text().startswith(f"before\n{gpu._BEGIN}\n{text}")
        assert page.read_text().endswith(f"{gpu._END}\nafter\n")


def test_without_a_gpu_nothing_is_run_but_a_sentence_is_said(gpu, tmp_path, capsys):
    assert gpu.main(["--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("make gpu needs a GPU, and torch sees none: nothing was run")
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        gpu.main(["--rehearse", "--write", "--out", str(tmp_path / "out")])


def make(gpu):
    return lambda device, **more: gpu.vision("mlp", device, n=32, batch=8, **more)


def test_a_sampler_that_harms_or_errs_is_found_out(gpu, monkeypatch):
    checks, subjects = gpu.unharmed.__globals__, gpu.vision.__globals__
    step, sampler = subjects["Subject"].step, subjects["Subject"].sampler

    def harming(self, index, sampler=None, **more):
        loss = step(self, index, sampler, **more)
        if sampler is not None:
            with torch.no_grad():
                next(self.model.parameters())[0, 0] += 1e-6
        return loss

    monkeypatch.setattr(subjects["Subject"], "step", harming)
    found = list(gpu.unharmed("MLP", make(gpu), "cpu"))
    assert [check.right for check in found] == [True, False, False, False]
    assert "differs: " in found[1].found
    monkeypatch.setattr(subjects["Subject"], "step", step)

    class Erring:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        @property
        def trace(self):
            columns = self.inner.trace.columns()
            columns = {k: v * (1 + 1e-4) for k, v in columns.items()}
            return type("Trace", (), {"columns": lambda _: columns})()

    erring = lambda self, *a, **more: Erring(sampler(self, *a, **more))  # noqa: E731
    monkeypatch.setattr(subjects["Subject"], "sampler", erring)
    found = list(gpu.exact("MLP", make(gpu), "cpu"))
    assert [check.right for check in found] == [False, False]
    assert checks is not subjects


def test_a_part_that_fails_or_comes_too_late_loses_no_other(gpu, capsys):
    def fails():
        yield gpu.Check("one", "MLP", "well", True)
        raise RuntimeError("a kernel\nis missing")

    def too_large():
        raise torch.OutOfMemoryError("CUDA")
        yield

    skipped = []
    rows = gpu.found([("a", fails), ("b", too_large)], float("inf"), skipped)
    rows += gpu.found([("c", fails)], 0.0, skipped)
    assert [row.what for row in rows] == ["one"]
    assert skipped == [
        "a: FAILED, RuntimeError: a kernel is missing",
        "b: does not fit into the memory of this GPU",
        "c: not run, the time was over",
    ]
    text = gpu.report(rows, [], skipped, "a GPU")
    assert "1 of 1 checks hold" in text and "a kernel is missing" in text
