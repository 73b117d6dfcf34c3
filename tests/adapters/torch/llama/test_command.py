"""Scores of examples and groups, and the command that finds them."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")
for package in ("transformers", "peft", "accelerate"):
    pytest.importorskip(package)

from safetensors.torch import load_file  # noqa: E402

from fstat import Snapshots, Trace  # noqa: E402
from fstat_torch.llama import (  # noqa: E402
    Example,
    load_model,
    models,
    read_pairs,
    score,
    tiny_llama,
)
from fstat_torch.llama.__main__ import main  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::fstat.selection.SelectionWarning"
)


def recorded(n, epochs, targets, batch=8, seed=0, effect=None):
    """A run in which each example pulls by its effect, and each visit adds noise."""
    rng = np.random.default_rng(seed)
    effect = np.zeros(n) if effect is None else effect
    trace = Trace([f"t{k}" for k in range(targets)])
    step = 0
    for _ in range(epochs):
        for chosen in rng.permutation(n)[: n // batch * batch].reshape(-1, batch):
            pull = effect[chosen, None] + rng.normal(size=(batch, 1))
            pull = pull + 0.1 * rng.normal(size=(batch, targets))
            trace.append(step, chosen, alignment=pull, target_norm=np.ones(targets))
            step += 1
    return trace


def people(n, groups=None):
    return [
        Example.of("Who?", f"Number {k}.", source=f"d.jsonl:{k + 1}",
                   group=groups[k] if groups else None)
        for k in range(n)
    ]  # fmt: skip


def test_scores_are_means_over_targets_of_mu_for_each():
    trace = recorded(40, 6, targets=3)
    scores = score(trace, people(40))
    each = scores.by_target.pivot(index="example", columns="target", values="mu")
    np.testing.assert_allclose(scores.table["mu"], each.mean(axis=1))
    assert (scores.table["n_Q"] == scores.by_target["n_Q"].to_numpy()[::3]).all()
    one = score(recorded(40, 6, targets=1), people(40))
    np.testing.assert_array_equal(one.table["mu"], one.by_target["mu"])
    np.testing.assert_array_equal(one.table["low"], one.by_target["low"])


def test_what_pulls_is_selected_on_either_side():
    effect = np.zeros(640)
    effect[:20], effect[20:40] = 8.0, -8.0
    trace = recorded(640, 3, targets=2, effect=effect)
    scores = score(trace, people(640))
    assert scores.selection.null == "empirical"
    found = scores.table["selected"]
    assert found[:40].mean() > 0.9 and found[40:].sum() <= 12
    only = score(trace, people(640), alternative="less").table["selected"]
    assert only[20:40].mean() > 0.9 and not only[:20].any()


def test_a_reference_shows_what_others_score():
    # Skewed, with two humps: no bell to fit, but the reference looks the same.
    rng = np.random.default_rng(3)
    n, found = 600, []
    reference = np.arange(n) >= 100
    for trial in range(40):
        chance = rng.gamma(1.0, size=(2, n, 1)) ** 2
        chance[:, rng.permutation(n)[: n // 2]] += 20
        chance[:, :40] += 80 * (trial == 0)
        snapshots = Snapshots(["asked"], n)
        for step, scores in zip((10, 20), chance, strict=True):
            snapshots.append(step, scores)
        told = score(snapshots, people(n), reference=reference, alternative="greater")
        assert told.selection.null == "reference" and told.selection.n_tested == 100
        found.append(told.table["selected"].to_numpy())
    assert found[0][:40].all() and found[0][40:].sum() <= 10
    # With nothing to find, something is found in a tenth of the trials at most, give or
    # take three standard errors.
    often = np.mean([any(one) for one in found[1:]])
    assert often <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 39)
    with pytest.raises(ValueError, match="`reference` must have one entry for each of"):
        score(snapshots, people(n), reference=reference[:-1])
    with pytest.raises(ValueError, match="`reference` is of examples, not of groups"):
        score(snapshots, people(n), reference=reference, by_group=True)


def test_scores_without_a_bell_select_nothing_and_lose_nothing():
    rng = np.random.default_rng(0)
    snapshots = Snapshots(["asked"], 600)
    for step in (10, 20):
        humps = np.repeat([-5.0, 5.0], 300) + 0.1 * rng.normal(size=600)
        snapshots.append(step, humps[:, None])
    with pytest.warns(UserWarning, match="Nothing is selected. The centre of"):
        scores = score(snapshots, people(600))
    assert scores.selection is None and not scores.table["selected"].any()
    assert scores.table["mu"].notna().all()


def test_an_example_met_once_borrows_the_spread_of_all():
    effect = np.linspace(-1, 1, 480)
    trace = recorded(480, 1, targets=1, effect=effect)
    scores = score(trace, people(480))
    table = scores.table.dropna(subset="mu")
    assert len(table) == 400 and (table["n_Q"] == 1).all()
    assert table["quantity"].str.contains("interval from the spread of all").all()
    assert scores.selection is None and scores.table["qvalue"].isna().all()
    # In units of the spread of all examples, over the root of the batch.
    unit = np.sqrt(8) * np.sqrt(1 + effect.var())
    true = effect[table["example"]] / unit
    covered = ((table["low"] <= true) & (true <= table["high"])).mean()
    # Wider than needed, for effects differ: at least 95 %, less three standard errors.
    assert covered > 0.95 - 3 * np.sqrt(0.05 * 0.95 / 400)
    many = score(recorded(640, 1, targets=1), people(640))
    assert many.selection.null == "empirical" and many.selection.n_tested == 560


def test_groups_are_scored_as_wholes():
    groups = ["a", "b"] * 20
    effect = np.where(np.arange(40) % 2, 2.0, 0.0)
    trace = recorded(40, 8, targets=2, effect=effect)
    table = score(trace, people(40, groups), by_group=True).table
    assert table["group"].tolist() == ["a", "b"]
    assert table["n_examples"].tolist() == [20, 20]
    assert table["mu"][1] > 0 > table["mu"][0] and table["n_Q"].min() > 20


def jsonl(path, lines):
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    data = [
        {"instruction": f"{n} and 1?", "output": f"{n + 1}.", "source": "ab"[n % 2]}
        for n in range(48)
    ]
    asked = [
        {"prompt": f"{n} and 1?", "completion": f"{n + 1}.", "instead": "No."}
        for n in (60, 70)
    ]
    (folder / "prompts.txt").write_text("60 and 1?\n70 and 1?\n")
    return jsonl(folder / "data.jsonl", data), jsonl(folder / "targets.jsonl", asked)


def command(data, targets, out, *more):
    main(
        ["--data", str(data), "--targets", str(targets), "--out", str(out),
         "--model", "tiny", "--max-length", "128", *more]
    )  # fmt: skip


def test_the_command_writes_tables_page_model_and_trace(files, tmp_path, capsys):
    data, targets = files
    options = ("--epochs", "4", "--metric", "plain")
    command(data, targets, tmp_path, *options)
    said = capsys.readouterr().out
    assert "selected at a false discovery rate" in said
    assert str(tmp_path / "index.html") in said
    scores = pd.read_csv(tmp_path / "scores.csv", dtype={"answer": str})
    assert len(scores) == 48 and scores["mu"].is_monotonic_decreasing
    first = scores.iloc[0]
    n = int(first["source"].removeprefix("data.jsonl:")) - 1
    assert first["prompt"] == f"{n} and 1?" and first["answer"] == f"{n + 1}."
    assert scores["mean_loss"].notna().all()
    by_target = pd.read_csv(tmp_path / "by_target.csv")
    names = [pair.source for pair in read_pairs(targets)]
    assert by_target["target"].tolist() == names * 48
    page = (tmp_path / "index.html").read_text()
    assert "60 and 1?" in page and "What training did to the targets" in page
    trace = Trace.load(tmp_path / "run" / "trace")
    assert trace.n_recorded == 24
    # The same run, asked about groups: nothing is trained again.
    command(
        data,
        targets,
        tmp_path,
        "--epochs",
        "4",
        "--metric",
        "plain",
        "--group",
        "source",
    )
    groups = pd.read_csv(tmp_path / "scores.csv")
    assert sorted(groups["group"]) == ["a", "b"] and (groups["n_examples"] == 24).all()
    assert Trace.load(tmp_path / "run" / "trace").n_recorded == 24


def test_prompts_are_completed_by_a_model_of_choice(files, tmp_path, capsys):
    data, _ = files
    model, tokenizer = tiny_llama(hidden=16, layers=1)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "other")
    main(
        ["score", "--data", str(data), "--prompts", str(data.parent / "prompts.txt"),
         "--completed-by", str(tmp_path / "other"), "--model", "tiny", "--full",
         "--max-length", "256", "--metric", "curvature", "--out", str(tmp_path / "out")]
    )  # fmt: skip
    said = capsys.readouterr().out
    # In a metric of snapshots all are scored, and nothing is tested.
    assert "first ten steps" not in said
    assert "No examples are selected" in said
    again, _ = load_model(tmp_path / "out" / "model")
    assert again.config.hidden_size == 64


def test_fresh_gradients_select_among_examples_about_something(files, tmp_path, capsys):
    data, targets = files
    options = ("--epochs", "1", "--metric", "fresh", "--target-modules", "all")
    more = ("--snapshots", "3", "--about", "4")
    command(data, targets, tmp_path / "out", *options, *more)
    said = capsys.readouterr().out
    assert "selected at a false discovery rate" in said
    assert "first ten steps" not in said
    scores = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert scores["mu"].notna().all() and (scores["n_Q"] == 3).all()
    mention = (scores["prompt"] + scores["answer"].astype(str)).str.contains("4")
    assert (scores["qvalue"].notna() == mention).all()
    assert "mean_loss" not in scores  # steps are not watched
    adapters = json.loads((tmp_path / "out/model/adapter_config.json").read_text())
    assert len(adapters["target_modules"]) == 7


@pytest.mark.slow
def test_a_model_shared_by_processes_gives_the_scores_of_one(files, tmp_path):
    data, targets = files
    options = ("--metric", "plain", "--epochs", "3", "--batch-size", "12")
    command(data, targets, tmp_path / "one", *options)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone",
         "--nproc-per-node", "2", "-m", "fstat_torch.llama", "--fsdp", "--data",
         str(data), "--targets", str(targets), "--out", str(tmp_path / "two"),
         "--model", "tiny", "--max-length", "128", *options],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "two") in done.stdout
    keys = ["example", "target"]
    one, two = (
        pd.read_csv(tmp_path / n / "by_target.csv").sort_values(keys)
        for n in ("one", "two")
    )
    pd.testing.assert_frame_equal(
        one.reset_index(drop=True), two.reset_index(drop=True), rtol=1e-3, atol=1e-4
    )
    one, two = (
        load_file(tmp_path / n / "model" / "adapter_model.safetensors")
        for n in ("one", "two")
    )
    torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


def no_tokenizer(folder):
    tiny_llama(hidden=16, layers=1)[0].save_pretrained(folder)
    return ["--model", str(folder)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "{"}, r"data\.jsonl:1 must be a JSON object, got '{'"),
        ({"data": '{"output": "a"}'}, r"jsonl:1 must have a text as `instruction`"),
        ({"more": ["--max-length", "16"]}, r"jsonl:1 must have at most `max_leng"),
        ({"more": no_tokenizer}, "a folder with a tokenizer beside the model"),
        ({"targets": '{"prompt": "a", "completion": ""}'}, "a text as `completion`"),
        ({"missing": "peft"}, r"needs peft: pip install 'fstat\[llama\]'"),
        ({"more": ["--group", "author"]}, r"data\.jsonl:1 must have .* as `author`"),
        ({"more": ["--batch-size", "9", "--accumulate", "2"]}, "must be a multiple"),
        ({"more": ["--target-modules", "q_proj,w"]}, r"among .*up_.*, got \['w'\]"),
        ({"more": ["--metric", "fresh", "--snapshots", "7"]}, "from 1 to 6, the steps"),
        ({"more": ["--about", "x"]}, "some of the examples mention, .* 0 of 48 do"),
        ({"more": ["--about", "1", "--group", "source"]}, "examples, not of groups"),
        ({"more": ["--epochs", "1"]}, "more than ten steps, .* got 48 examples, 8"),
        ({"more": ["--model", "./none"]}, "which is neither"),
        ({"more": ["--fsdp"]}, "processes of torchrun: start it with two or more, got"),
        ({"more": ["--full", "--target-modules", "w"]}, r"among .*, got \['w'\]"),
        ({"more": ["--fsdp", "--metric", "fresh"], "processes": "2"}, "be plain with"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence(
    change, message, files, tmp_path, monkeypatch
):
    paths = dict(zip(("data", "targets"), files, strict=True))
    for name in paths.keys() & change.keys():
        paths[name] = tmp_path / f"{name}.jsonl"
        paths[name].write_text(change[name])
    if missing := change.get("missing"):
        find = models.find_spec
        monkeypatch.setattr(
            models, "find_spec", lambda name: None if name == missing else find(name)
        )
    monkeypatch.setenv("WORLD_SIZE", change.get("processes", "1"))
    more = change.get("more", [])
    more = more(tmp_path / "model") if callable(more) else more
    with pytest.raises(SystemExit, match=message) as caught:
        command(paths["data"], paths["targets"], tmp_path / "out", *more)
    assert str(caught.value).startswith("fstat_torch.llama: ")
    assert "\n" not in str(caught.value)
