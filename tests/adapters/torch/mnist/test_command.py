"""The MNIST command with digits and labels of one's own, of which nobody knows all."""

import re
import shlex
import struct

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")

import fstat_torch.mnist.__main__ as module
from fstat_torch.mnist import Config, run
from fstat_torch.mnist.data import read_trusted

pytestmark = pytest.mark.filterwarnings("ignore::fstat.selection.SelectionWarning")
SHORT = ["--epochs", "6", "--n-targets", "5"]


def idx(array):
    head = bytes([0, 0, 8, array.ndim])
    return head + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder of noisy patterns, and which of its 700 labels are wrong."""
    folder = tmp_path_factory.mktemp("own digits")
    rng = np.random.default_rng(0)
    pattern = rng.uniform(0, 160, (10, 28, 28))
    wrong = np.arange(700) % 12 == 0
    for name, n in (("train", 700), ("t10k", 90)):
        labels = np.arange(n) % 10
        images = pattern[labels] + rng.uniform(0, 95, (n, 28, 28))
        if name == "train":
            labels = np.where(wrong, (labels + 1 + np.arange(n) % 9) % 10, labels)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = idx(array.astype("u1"))
            (folder / f"{name}-{kind}-ubyte").write_bytes(content)
    return folder, wrong


def numbers(path):
    return [int(line) for line in path.read_text().split()]


def test_own_labels_are_judged_by_what_was_checked_and_by_nothing_else(
    own, tmp_path, capsys
):
    folder, wrong = own
    words = ["--data", str(folder), *SHORT, "--n-trusted", "150"]
    words += ["--out", str(tmp_path / "my out")]
    # As the command says: look, delete, and give the file.
    with pytest.raises(SystemExit, match="Some were drawn at random: look at") as e:
        module.main(words)
    advised = shlex.split(str(e.value).rpartition(" with ")[2])
    drawn = numbers(tmp_path / "my out" / "to_check.txt")
    page = (tmp_path / "my out" / "to_check.html").read_text()
    assert len(drawn) == 150 and all(f"no. {number}<" in page for number in drawn)
    right = [number for number in drawn if not wrong[number]]
    (tmp_path / "my out" / "to_check.txt").write_text("\n".join(map(str, right)))
    with pytest.raises(SystemExit):
        module.main(words)
    assert numbers(tmp_path / "my out" / "to_check.txt") == right  # not drawn anew
    module.main([*words, *advised])
    said = capsys.readouterr().out
    assert "selected as mislabelled" in said and "truth" not in said
    table = pd.read_csv(tmp_path / "my out" / "examples.csv")
    assert not {"true_label", "flipped"} & set(table)
    assert table.index[table["trusted"]].tolist() == right
    given = (folder / "train-labels-idx1-ubyte").read_bytes()[8:]
    assert table["label"].tolist() == list(given)  # none was flipped
    assert (wrong[table["selected"]]).mean() > 0.8 and table["selected"].sum() > 20
    influential = pd.read_csv(tmp_path / "my out" / "influential.csv")
    assert not {"true_label", "flipped"} & set(influential)
    page = (tmp_path / "my out" / "index.html").read_text()
    shown = re.sub("<style>.*?</style>", "", page, flags=re.S)
    assert not re.search("in truth|truly a|flipped|AUROC|rightly labelled: a", shown)
    assert "$" not in shown and shlex.join(
        ["--trusted", *advised[1:]]
    ) in shown.replace("&#x27;", "'")


def test_own_labels_are_flipped_where_that_is_asked_for(own, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(module, "write", lambda result, *rest: told.append(result))
    words = ["--data", str(own[0]), *SHORT, "--noise", "0.2", "--out", str(tmp_path)]
    module.main(words)
    assert told[0].data.truth and told[0].data.flipped.sum() == 140


REFUSED = {
    "--epochs 0": "`--epochs` must be from 1",
    "--epochs 1 --n-train 640 --noise 0": "ten steps, .* 640 digits.* use --epochs 2",
    "--n-targets 0": "`--n-targets` must be from 1",
    "--n-train 0 --noise 0.1": "`--n-train` must be from 1",
    "--n-trusted 0 --noise 0.1": "`--n-trusted` must be from 1",
    "--n-trusted 700 --noise 0.1": "`--n-trusted` must be from 1 to 699",
    "--noise 1": "`--noise` must be from 0 to less than 1, got 1",
    "--noise -0.1": "`--noise` must be from 0 to less than 1",
    "--noise nan": "`--noise` must be from 0 to less than 1",
    "--fdr 0": "`--fdr` must be between 0 and 1",
    "--fdr 1": "`--fdr` must be between 0 and 1",
    "--seed -1": "`--seed` must be from 0",
    "--threads 0": "`--threads` must be from 1",
    "--device gpu": "`--device` must be auto, cpu or a GPU",
    "--data {folder}/none": "must hold one of train-images",
    "--out {folder}/t10k-labels-idx1-ubyte": "`--out` must be a folder that can be",
    "--trusted {folder}/none": "There is no file",
    "--trusted {folder}": "is a folder, and one file is read",
    "--trusted {folder}/ok.txt --noise 0.1": "`--trusted` is for a folder of",
    "--trusted {folder}/ok.txt --data embedded": "`--trusted` is for a folder of",
    "--trusted {folder}/ok.txt --n-train 600": "`--n-train` must be left out",
    "--trusted {folder}/all.txt": "`--trusted` must leave digits to be judged",
}


@pytest.mark.parametrize("change", REFUSED)
def test_arguments_are_refused_before_training(change, own, tmp_path, monkeypatch):
    folder, _ = own
    (folder / "ok.txt").write_text("1\n2\n")
    (folder / "all.txt").write_text("\n".join(map(str, range(700))))
    monkeypatch.setattr(module, "run", None)
    words = ["--data", str(folder), *SHORT, "--out", str(tmp_path / "out")]
    changed = [word.format(folder=folder) for word in change.split()]
    with pytest.raises(SystemExit, match=REFUSED[change]) as caught:
        module.main([*words, *changed])
    assert str(caught.value).startswith("fstat_torch.mnist: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n\n2.5\n", r"^t\.txt:3 must be a number of a training digit, got '2\.5'"),
        ("1\n-2\n", r"^t\.txt:2 must be a number"),
        ("²\n", r"^t\.txt:1 must be a number of a training digit, got '\\xb2'"),
        ("1\n2\n1\n", r"^t\.txt:3 repeats line 1, 1"),
        ("700\n", r"^t\.txt:1 must be from 0 to 699, got 700"),
        ("9" * 10000, r"^t\.txt:1 must be a number"),
        ("\n", "must hold at least one number, got none"),
    ],
)
def test_a_bad_number_is_named_with_its_line(text, message, tmp_path):
    (tmp_path / "t.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_trusted(tmp_path / "t.txt", 700)


def test_numbers_are_read_in_any_order_and_line_end(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbf5\r\n\r\n 3 \r\n")
    assert read_trusted(tmp_path / "t.txt", 9).tolist() == [5, 3]


@pytest.mark.parametrize(
    ("config", "trusted", "message"),
    [
        ({"noise": 0.1}, [1], "`noise` must be 0"),
        ({"n_train": 600}, [1], "`n_train` 700"),
        ({}, [], "must hold each number once, got 0"),
        ({}, [1, 1], "must hold each number once"),
        ({}, [700], "from 0 to 699, got 700 to 700"),
    ],
)
def test_numbers_that_cannot_be_are_refused(config, trusted, message, own):
    from fstat.datasets import load_digits

    config = Config(**{"noise": 0.0, "n_train": 700, "n_test": 90} | config)
    train, test = (load_digits(own[0], name) for name in ("train", "test"))
    with pytest.raises(ValueError, match=message):
        run(config, train, test_digits=test, trusted=np.array(trusted, dtype=int))
