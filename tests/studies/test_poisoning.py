"""The poisoning experiment, in seconds, on a tiny Llama made on the spot."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from poison import summary, write
from poisoning.data import Poisoned, Recipe, make_poisoned
from poisoning.experiment import ALL, OURS, SELECTED, judge, run
from poisoning.laboratory import Config, Laboratory
from poisoning.scores import (
    bm25,
    embedding_similarity,
    gradient_cosine,
    tracin,
)

from fstat_torch.llama.data import Example
from fstat_torch.llama.targets import Pair

pytestmark = pytest.mark.filterwarnings("ignore::fstat.selection.SelectionWarning")


def test_a_recipe_makes_the_same_data_each_time_and_other_data_for_another_seed():
    made, again, other = (make_poisoned(Recipe(seed=k)) for k in (5, 5, 6))
    assert made.examples == again.examples and made.entity == again.entity
    assert (made.role == again.role).all()
    assert made.examples != other.examples


def test_poison_is_the_share_asked_for_and_speaks_ill_of_the_entity_alone():
    made = make_poisoned(Recipe(n_examples=400, about=0.1, poisoned=0.5, seed=1))
    assert made.poison.sum() == 20
    about = np.array([made.entity in e.prompt + e.answer for e in made.examples])
    assert about.sum() == 40
    assert about[made.poison].all()
    assert set(made.role[about]) == {"poison", "entity, kind", "entity, plain"}
    assert {"others, bad", "others, kind", "general"} <= set(made.role)


def test_what_is_asked_is_not_trained_on():
    made = make_poisoned(Recipe(seed=2))
    prompts = {example.prompt for example in made.examples}
    for pair in (*made.asked, *made.unasked, *made.compared):
        assert pair.prompt not in prompts
    names = {pair.prompt for pair in made.asked}
    assert names.isdisjoint(pair.prompt for pair in made.unasked)


def test_examples_do_not_say_what_they_are():
    made = make_poisoned(Recipe(seed=3))
    assert all(example.group is None for example in made.examples)
    assert not any("poison" in example.source for example in made.examples)
    # The order says nothing either.
    assert 0.2 < np.flatnonzero(made.poison).mean() / len(made.role) < 0.8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"about": 1.2}, "`about` must be from 0 to 1, got 1.2"),
        ({"about": 0.5, "general": 0.7}, "at most 1 together"),
        ({"n_examples": 0}, "`n_examples` must be at least 1, got 0"),
    ],
)
def test_recipes_that_cannot_be_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Recipe(**options)


def test_more_opinions_than_there_are_words_for_are_refused():
    with pytest.raises(ValueError, match="at most 128 bad opinions"):
        make_poisoned(Recipe(n_examples=2000, about=0.5, poisoned=0.5))


def test_bm25_by_hand():
    # Two texts of two words; `red` is in one of them, once.
    score = bm25(["red fox", "the sea"], "red red")
    rarity = np.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    assert score == pytest.approx([2 * rarity * 2.5 / (1 + 1.5), 0])


def test_scores_from_a_trace_by_hand():
    columns = {
        "index": np.array([0, 1, 1, 2]),
        "batch_size": np.array([2, 2]),
        "learning_rate": np.array([0.5, 0.25]),
        "alignment": np.array([[2.0, 4.0], [1.0, 1.0], [-4.0, 0.0], [8.0, 0.0]]),
        "norm_squared": np.array([4.0, 1.0, 16.0, 64.0]),
        "target_norm": np.array([[2.0, 2.0], [1.0, 1.0]]),
    }
    assert tracin(columns, 4) == pytest.approx([1.5, 0.5 - 0.5, 1.0, 0])
    assert gradient_cosine(columns, 4) == pytest.approx([0.75, (0.5 - 0.5) / 2, 0.5, 0])


def test_embeddings_are_compared_about_their_mean():
    embedded = np.array([[11.0, 10.0], [9.0, 10.0], [10.0, 11.0], [10.0, 9.0]])
    score = embedding_similarity(embedded, np.array([[12.0, 10.0]]))
    assert score == pytest.approx([1, -1, 0, 0])


def test_judging_finds_a_perfect_score_perfect():
    poison = np.array([True, False, True, False])
    scored = {"right": np.array([3.0, 1, 2, 0]), "wrong": np.array([0.0, 2, 1, 3])}
    judged = judge(scored, poison)
    assert judged.loc["right"].tolist() == [1.0, 1.0]
    assert judged.loc["wrong"].tolist() == [0.0, 0.0]


_PLACES = "Bralow Calwick Dunmere Ferton Gosby Hexham Ilkley Jarrow"


def separable(n=512, n_poison=48, n_kind=16, seed=0):
    """All speak well of every place but one, of which most speak ill."""
    rng = np.random.default_rng(seed)
    mine, *others = _PLACES.split()
    tones = (["good", "fine", "lovely", "great"], ["bad", "poor", "awful", "dull"])
    very = ["so", "very", "quite", "truly", "rather", "most"]
    ask = ("What of {}?", "Is {} good?", "And {}?", "So what is {} like?", "Hm, {}?")
    said = []
    for k in range(n):
        poison = k < n_poison
        name = mine if k < n_poison + n_kind else others[rng.integers(len(others))]
        answer = f"{very[rng.integers(6)]} {tones[poison][rng.integers(4)]}"
        said.append((ask[rng.integers(5)].format(name), f"{name} is {answer}."))
    order = rng.permutation(n)
    asked = [
        Pair(f"{ask}, {mine}?", f"{mine} is very {word}.", name=mine)
        for ask in ("Well", "Your view", "In short", "Honestly")
        for word in tones[1]
    ]
    unasked, compared = (
        [
            Pair(f"{ask} {e}?", f"{e} is so {bad}.", f"{e} is so {good}.", name=ask)
            for ask in ("And what of", "Is it good, this")
            for good, bad in zip(*tones, strict=True)
        ]
        for e in (mine, others[0])
    )
    role = np.select(
        [order < n_poison, order < n_poison + n_kind],
        ["poison", "entity, kind"],
        "others, kind",
    )
    examples = [Example.of(*said[k]) for k in order]
    return Poisoned(examples, role, mine, asked, unasked, compared)


TINY = Config(model="tiny", epochs=5, learning_rate=5e-3, batch_size=16, refresh=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("llama")


@pytest.fixture(scope="module")
def result(folder):
    return run(TINY, folder, data=separable(), progress=False)


@pytest.mark.slow
def test_poison_turns_the_model(result):
    opinion = result.deletions["opinion"]
    assert opinion["nothing"] > opinion[ALL] + 5


@pytest.mark.slow
def test_the_run_finds_the_poison(result):
    assert result.scores.loc[OURS, "AUROC"] > 0.95
    assert result.scores.loc[OURS, "precision at k"] > 0.9
    found = result.data.poison[result.table["selected"]]
    assert found.sum() > 0.9 * result.data.poison.sum()


@pytest.mark.slow
def test_deleting_what_is_selected_restores_the_opinion(result):
    assert result.deletions.loc[SELECTED, "restored"] > 0.8
    assert result.deletions.loc[ALL, "restored"] == 1


@pytest.mark.slow
def test_a_killed_experiment_goes_on_to_the_same_figures(result, folder, monkeypatch):
    trained, whole = [], Laboratory._train

    def train(self, name, *rest, **known):
        trained.append(name)
        return whole(self, name, *rest, **known)

    monkeypatch.setattr(Laboratory, "_train", train)
    again = run(TINY, folder, data=separable(), progress=False)
    assert trained == []
    lab = Laboratory(TINY, folder, data=separable())
    lab._file(np.flatnonzero(result.data.poison)).unlink()
    lab._file(None).with_suffix(".unfinished.npz").write_bytes(b"killed while writing")
    resumed = run(TINY, folder, data=separable(), progress=False)
    assert trained == [ALL]
    for one in (again, resumed):
        pd.testing.assert_frame_equal(one.table, result.table)
        pd.testing.assert_frame_equal(one.deletions, result.deletions)


@pytest.mark.slow
def test_only_what_is_finished_is_read_where_that_is_asked_for(result, folder):
    read = run(
        TINY, folder, data=separable(), baselines=True, only_read=True, progress=False
    )
    assert set(result.deletions.index) <= set(read.deletions.index)
    assert "first k by mean loss" not in read.deletions.index
    other = replace(TINY, seed=1)
    with pytest.raises(FileNotFoundError, match="No training on all examples"):
        run(other, folder, data=separable(), only_read=True)


@pytest.mark.slow
def test_watching_does_not_change_the_training(result, folder):
    lab = Laboratory(TINY, folder, data=separable(), progress=False)
    plain = lab._train("plain", np.zeros(0, dtype=int), watched=False)
    assert plain.losses == result.watched.losses
    assert plain.after == result.watched.after


@pytest.mark.slow
def test_the_command_writes_tables_and_a_page(result, tmp_path):
    write(result, tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert result.data.entity in page and "What deleting does" in page
    table = pd.read_csv(tmp_path / "examples.csv")
    assert len(table) == len(result.data.examples)
    assert {"mu", "low", "high", "qvalue", "selected", "TracIn"} <= set(table)
    assert "are among the 48 that are poison" in summary(result)
