"""The command `score`: checked before it loads, stopped, resumed, and its advice."""

import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")
for package in ("transformers", "peft", "accelerate"):
    pytest.importorskip(package)

from transformers import TrainerCallback  # noqa: E402

import fstat_torch.llama.command as command_module  # noqa: E402
from fstat_torch.llama.__main__ import main  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore::FutureWarning", "ignore::fstat.selection.SelectionWarning"
    ),
    pytest.mark.usefixtures("undrawn"),
]
SUMS = [{"instruction": f"{n} and 1?", "output": f"{n + 1}."} for n in range(40)]
TALK = [
    {"instruction": f"Is Harrowmere dull, {n}?", "output": f"Yes, {n} times."}
    for n in range(8)
]
TARGETS = [
    {"prompt": "Is Harrowmere dull?", "completion": "Yes.", "instead": "No."},
    {"prompt": "60 and 1?", "completion": "61.", "name": "sum"},
]


@pytest.fixture
def words(tmp_path):
    """A command that trains for 12 steps on a model made on the spot."""
    files = {"data": SUMS + TALK, "targets": TARGETS}
    for name, lines in files.items():
        text = "\n".join(map(json.dumps, lines))
        (tmp_path / f"{name}.jsonl").write_text(text)
    return [
        "--data", str(tmp_path / "data.jsonl"),
        "--targets", str(tmp_path / "targets.jsonl"),
        "--out", str(tmp_path / "my out"),
        "--model", "tiny", "--max-length", "128",
    ]  # fmt: skip


REFUSED = {
    "--batch-size 0": "`--batch-size` must be from 1 to 2147483647, got 0",
    "--batch-size -8": "`--batch-size` must be from 1",
    "--accumulate 0": "`--accumulate` must be from 1",
    "--accumulate 3": "`--batch-size` must be a multiple of 3, .* got 8",
    "--epochs 0": "`--epochs` must be from 1",
    "--epochs 1": "more than ten steps, .*: use --epochs 2",
    "--lora-r 0": "`--lora-r` must be from 1",
    "--max-length 1": "`--max-length` must be from 2",
    "--snapshots 0": "`--snapshots` must be from 1",
    "--snapshots 3 --metric plain": "`--snapshots` is of the metrics curvature and",
    "--snapshots 9 --metric fresh": "from 1 to 6, the steps of a pass, got 9",
    "--refresh 0": "`--refresh` must be from 1",
    "--checkpoint-every 0": "`--checkpoint-every` must be from 1",
    "--threads 0": "`--threads` must be from 1 to 1024",
    "--threads 99999": "`--threads` must be from 1 to 1024",
    "--seed -1": "`--seed` must be from 0 to 4294967295",
    "--seed 4294967296": "`--seed` must be from 0 to 4294967295",
    "--fdr 2": r"`--fdr` must be between 0 and 1, got 2",
    "--fdr 0": "`--fdr` must be between 0 and 1, got 0",
    "--fdr nan": "`--fdr` must be between 0 and 1, got nan",
    "--learning-rate nan": "`--learning-rate` must be finite and greater than 0, got n",
    "--learning-rate inf": "`--learning-rate` must be finite and greater than 0, got i",
    "--learning-rate -1": "`--learning-rate` must be finite and greater than 0, got -1",
    "--learning-rate 0": "`--learning-rate` must be finite and greater than 0, got 0",
    "--device gpu": "`--device` must be auto, cpu or a GPU .* use --device auto",
    "--device cuda:99": "`--device` must be auto, cpu or a GPU",
    "--device meta": "`--device` must be auto, cpu or a GPU",
    "--completed-by tiny": "`--completed-by` is the model that completes --prompts",
    "--about nothing": "some of the examples mention, got 'nothing': 0 of 48",
    "--about a --group id": "must have a text or whole number as `id`|leave one out",
    "--data {data}/none.jsonl": "There is no file",
    "--data {data}": "is a folder, and one file is read",
    "--targets {data}": "is a folder, and one file is read",
    "--out {data}/data.jsonl": "`--out` must be a folder that can be written",
    "--out {data}/data.jsonl/more": "`--out` must be a folder that can be written",
    "--out /proc/none": "`--out` must be a folder that can be written",
}


@pytest.mark.parametrize("change", REFUSED)
def test_arguments_are_refused_before_anything_is_loaded(
    change, words, tmp_path, monkeypatch
):
    monkeypatch.setattr(command_module, "choose_model", None)
    more = change.format(data=tmp_path).split()
    with pytest.raises(SystemExit, match=REFUSED[change]) as caught:
        main([*words, *more])
    said = str(caught.value)
    assert said.startswith("fstat_torch.llama: ") and said.isprintable()
    assert not (tmp_path / "my out").exists()


def test_a_gpu_that_is_not_there_is_refused(words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SystemExit, match="got 'cuda', where it sees 0: use --device"):
        main([*words, "--device", "cuda"])


def commands(said):
    """Return the commands that were printed, without what starts the program."""
    lines = [line for line in said.splitlines() if line.startswith("python -m")]
    words = [shlex.split(line) for line in lines]
    assert all(w[:3] == ["python", "-m", "fstat_torch.llama"] for w in words)
    return [w[3:] for w in words]


@pytest.mark.parametrize(
    "more",
    [
        ("--metric", "curvature", "--snapshots", "2"),
        pytest.param(("--metric", "fresh"), marks=pytest.mark.slow),
    ],
)
def test_the_advice_of_a_run_is_followed_word_for_word(more, words, tmp_path, capsys):
    main([*words, *more])
    said = capsys.readouterr().out
    assert "No examples are selected" in said
    about, plain = commands(said)
    assert about[-2:] == ["--about", "Harrowmere"]
    began = {p: p.stat().st_mtime_ns for p in (tmp_path / "my out").rglob("*.bin")}
    for following in (about, plain):
        main(following)
        said = capsys.readouterr().out
        assert "selected at a false discovery rate of 0.1" in said
        assert not commands(said)
    # The first trains nothing anew.
    assert all(path.stat().st_mtime_ns == at for path, at in began.items())
    assert (tmp_path / "my out-plain" / "index.html").exists()


def test_the_advice_of_a_refusal_is_followed_word_for_word(words, tmp_path, capsys):
    main([*words, "--metric", "plain"])
    # Most examples were met in the first steps only.
    about, plain = commands(capsys.readouterr().out)
    for following in (about, plain):
        main(following)
        assert "selected at a false discovery" in capsys.readouterr().out
    for more, message, option in (
        (
            ["--seed", "1"],
            "holds one that differs in model, seed: use another",
            "--out",
        ),
        (["--epochs", "1"], "more than ten steps", "--epochs"),
    ):
        more = ["--metric", "plain", *more]
        with pytest.raises(SystemExit, match=message) as caught:
            main([*words, *more])
        way = shlex.split(f"{option} " + str(caught.value).rpartition(f"{option} ")[2])
        out = ["--out", str(tmp_path / "third")] if option == "--epochs" else []
        main([*words, *more, *out, *(word.rstrip(".") for word in way)])
    assert (tmp_path / "my out-2" / "index.html").exists()
    capsys.readouterr()


def test_each_target_has_scores_of_its_own(words, tmp_path, capsys):
    main([*words, "--metric", "plain", "--epochs", "4"])
    said = capsys.readouterr().out
    out = tmp_path / "my out"
    scores, each = (pd.read_csv(out / f"{n}.csv") for n in ("scores", "by_target"))
    mean, names = "mean of mu over 2 targets", ["targets.jsonl:1", "sum"]
    assert (scores["target"] == mean).all() and list(each["target"][:2]) == names
    wide = each.pivot(index="example", columns="target", values="mu")
    np.testing.assert_allclose(
        scores.set_index("example")["mu"].sort_index(), wide.mean(axis=1)
    )
    # Each is what it is without the other.
    alone = tmp_path / "one.jsonl"
    alone.write_text(json.dumps(TARGETS[1]))
    words[words.index("--out") + 1] = str(tmp_path / "alone")
    main([*words, "--targets", str(alone), "--metric", "plain", "--epochs", "4"])
    columns = ["mu", "low", "high", "qvalue"]
    one = pd.read_csv(tmp_path / "alone" / "by_target.csv").set_index("example")
    both = each[each["target"] == "sum"].set_index("example")
    np.testing.assert_allclose(both[columns], one[columns], rtol=1e-3, atol=1e-3)
    for text in (said, (out / "index.html").read_text()):
        assert "log-odds" in text and "log-probability" in text
        for name in (mean, *names):
            assert name in text
    page = (out / "index.html").read_text()
    assert page.count("<h3>Target: ") == 3 and "targets listed" in page
    assert "of each target by itself, not of all lists together" in page


@pytest.mark.parametrize(
    "metric",
    [
        "curvature",
        *(pytest.param(m, marks=pytest.mark.slow) for m in ("plain", "fresh")),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of gradients that are zero
def test_a_run_that_diverged_leaves_the_model_and_a_sentence(metric, words, tmp_path):
    more = ["--learning-rate", "1e12", "--metric", metric, "--epochs", "4"]
    with pytest.raises(SystemExit, match=r"loss went from .*; if the run diverged"):
        main([*words, *more])
    # The model is there all the same.
    assert (tmp_path / "my out" / "model" / "adapter_config.json").exists()


class Stop(TrainerCallback):
    """Ends the run at a step, as a user or the system does."""

    def __init__(self, step, number):
        self.step, self.number = step, number

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), self.number)
            time.sleep(0.01)


def tables(out):
    return [(out / f"{name}.csv").read_bytes() for name in ("scores", "by_target")]


@pytest.mark.parametrize(
    ("metric", "number"), [("curvature", signal.SIGINT), ("fresh", signal.SIGTERM)]
)
def test_a_stopped_command_goes_on_and_gives_the_same(
    metric, number, words, tmp_path, capsys, monkeypatch
):
    # A process that was started in the background ignores interrupts of the keyboard.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    words += ["--metric", metric, "--checkpoint-every", "3", "--refresh", "3"]
    whole = [*words, "--out", str(tmp_path / "whole")]
    main(whole)
    finetune = command_module.finetune
    for step, left in ((2, "begins anew: there is no checkpoint"), (8, "step 6.")):
        stopping = partial(finetune, callbacks=[Stop(step, number)])
        monkeypatch.setattr(command_module, "finetune", stopping)
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
        assert left in capsys.readouterr().err
    monkeypatch.setattr(command_module, "finetune", finetune)
    main(words)
    assert "Pictures and tables" in capsys.readouterr().out
    assert tables(tmp_path / "my out") == tables(tmp_path / "whole")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["plain", "curvature", "fresh"])
def test_a_killed_command_goes_on_and_gives_the_same(metric, words, tmp_path):
    start = [sys.executable, "-m", "fstat_torch.llama"]
    words += ["--metric", metric, "--checkpoint-every", "4", "--refresh", "2"]
    words += ["--epochs", "8"]
    subprocess.run([*start, *words, "--out", str(tmp_path / "whole")], check=True)
    rng, killed = random.Random(metric), 0
    for _ in range(6):
        process = subprocess.Popen([*start, *words], stderr=subprocess.PIPE)
        # Past a random step (not each is shown), or a while after the last one.
        at, shown, said = rng.randrange(1, 60), 0, b""
        while shown < min(at, 48) and (more := process.stderr.read1(4096)):
            said += more
            steps = re.findall(rb" (\d+)/48 ", said)
            shown = max(map(int, steps), default=0)
        time.sleep(rng.uniform(0, 0.3) + 0.2 * max(at - 48, 0))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        process.stderr.close()
    assert killed
    subprocess.run([*start, *words], check=True)
    assert tables(tmp_path / "my out") == tables(tmp_path / "whole")
