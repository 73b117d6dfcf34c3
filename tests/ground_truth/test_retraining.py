import functools
import importlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csc_array
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import (
    LogisticRegression,
    Ridge,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from fstat import FInfluence, InfluenceDisplay, Observations, select
from fstat.ground_truth import MultiRunInfluence, retrain, sklearn_trainer
from fstat.ground_truth._cache import read, write
from fstat.ground_truth._fingerprint import fingerprint
from fstat.methods import Moments

X, y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
N = 50
SHIFT = np.linspace(-1.0, 1.0, N)


class Calls(list):
    """Seeds of the runs so far, which are no part of what `train` is."""

    def __reduce__(self):
        return Calls, ()


CALLS = Calls()


def noisy_mean(indices, seed):
    """Two targets with unit noise; leaving S out moves them by known amounts."""
    CALLS.append(seed)
    kept = np.full(N, False)
    kept[indices] = True
    moved = SHIFT[~kept].sum()
    return np.random.default_rng(seed).normal(size=2) - [moved, 0.5 * moved]


SUBSETS = {"harms": [0], "helps": [N - 1], "both": [0, N - 1]}
TRUE_MU = np.array([-1.0, -0.5, 1.0, 0.5, 0.0, 0.0])


def same(one, other):
    return all(
        np.array_equal(getattr(one, c), getattr(other, c), equal_nan=True)
        for c in ("pair", "p", "q", "run")
    )


def iris_trainer(**options):
    model = SGDClassifier(loss="log_loss", max_iter=3, tol=None)
    return sklearn_trainer(model, X, y, X[::40], y[::40], **options)


def test_every_run_stands_where_it_belongs():
    seen = retrain(noisy_mean, N, SUBSETS, 5, n_runs_without=3, random_state=0)
    assert not seen.paired
    assert seen.n_pairs == 6
    assert seen.names["subset"].tolist() == np.repeat(list(SUBSETS), 2).tolist()
    assert seen.names["target"].tolist() == [0, 1] * 3
    of_P = ~np.isnan(seen.p)
    assert_array_equal(of_P, np.isnan(seen.q))
    assert_array_equal(np.unique(seen.run[~of_P]), np.arange(5))
    # The runs without a subset belong to it alone, and are shared by its targets.
    for pair in range(6):
        rows = of_P & (seen.pair == pair)
        assert_array_equal(seen.run[rows], 5 + 3 * (pair // 2) + np.arange(3))


def test_statistics_are_those_of_train():
    CALLS.clear()
    seen = retrain(noisy_mean, N, SUBSETS, 4, n_runs_without=2, random_state=3)
    seeds = list(CALLS)
    assert len(set(seeds)) == 4 + 3 * 2
    assert all(0 <= seed < 2**32 for seed in seeds)
    everything = [noisy_mean(np.arange(N), seed) for seed in seeds[:4]]
    assert_array_equal(seen.q[seen.pair == 1][2:], np.array(everything)[:, 1])
    without = [noisy_mean(np.arange(1, N), seed) for seed in seeds[4:6]]
    assert_array_equal(seen.p[seen.pair == 0][:2], np.array(without)[:, 0])


def test_more_runs_and_subsets_change_nothing_that_was_there():
    small = retrain(noisy_mean, N, [[1, 2], [7]], 4, random_state=0)
    large = retrain(noisy_mean, N, [[9], [7], [2, 1]], 6, random_state=0)
    for mine, theirs in ((0, 4), (1, 5), (2, 2), (3, 3)):
        p, q = small.samples(mine)
        P, Q = large.samples(theirs)
        assert_array_equal(p[~np.isnan(p)], P[~np.isnan(P)][:4])
        assert_array_equal(q[~np.isnan(q)], Q[~np.isnan(Q)][:4])
    other = retrain(noisy_mean, N, [[1, 2], [7]], 4, random_state=1)
    assert not np.isin(other.q, small.q[~np.isnan(small.q)]).any()


def test_masks_names_and_indices_are_one():
    mask = np.arange(N) == 3
    one = retrain(noisy_mean, N, [mask], 2, random_state=0, targets=["a", "b"])
    other = retrain(noisy_mean, N, {"x": np.array([3, 3])}, 2, random_state=0)
    assert same(one, other)
    assert one.names["target"].tolist() == ["a", "b"]


@pytest.mark.parametrize("options", [{"n_jobs": 2}, {"n_jobs": 2, "backend": "loky"}])
def test_results_do_not_depend_on_workers(options):
    subsets = [np.arange(10), np.arange(60, 90)]
    alone = retrain(iris_trainer(), 150, subsets, 3, random_state=0)
    assert same(
        alone, retrain(iris_trainer(), 150, subsets, 3, random_state=0, **options)
    )


@pytest.mark.slow
def test_dask_gives_the_same():
    distributed = pytest.importorskip("distributed")
    subsets = [np.arange(10), np.arange(60, 90)]
    alone = retrain(iris_trainer(), 150, subsets, 3, random_state=0)
    with distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=None):
        there = retrain(
            iris_trainer(), 150, subsets, 3, random_state=0, n_jobs=2, backend="dask"
        )
    assert same(alone, there)


@pytest.mark.slow
def test_ray_gives_the_same():
    ray = pytest.importorskip("ray")
    subsets = [np.arange(10), np.arange(60, 90)]
    alone = retrain(iris_trainer(), 150, subsets, 3, random_state=0)
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        there = retrain(
            iris_trainer(), 150, subsets, 3, random_state=0, n_jobs=2, backend="ray"
        )
    finally:
        ray.shutdown()
    assert same(alone, there)


def test_a_larger_study_reuses_finished_runs(tmp_path):
    retrain(noisy_mean, N, [[0], [1]], 3, random_state=0, cache=tmp_path)
    CALLS.clear()
    again = retrain(noisy_mean, N, [[0], [1]], 3, random_state=0, cache=tmp_path)
    assert not CALLS
    assert same(again, retrain(noisy_mean, N, [[0], [1]], 3, random_state=0))
    CALLS.clear()
    retrain(noisy_mean, N, [[1], [0], [2]], 4, random_state=0, cache=tmp_path)
    assert len(CALLS) == 1 + 1 + 1 + 4


@pytest.mark.parametrize(
    "change",
    [{"key": "b"}, {"random_state": 1}, {"n_examples": N - 1}, {"keep": "steps"}],
)
def test_other_studies_share_no_runs(change, tmp_path):
    options = {"n_examples": N, "random_state": 0, "cache": tmp_path}
    retrain(noisy_mean, subsets=[[0]], n_runs=2, **options)
    CALLS.clear()
    retrain(noisy_mean, subsets=[[0]], n_runs=2, **{**options, **change})
    assert len(CALLS) == 4


def test_runs_that_were_cut_short_are_run_again(tmp_path):
    whole = retrain(noisy_mean, N, [[0]], 3, random_state=0, cache=tmp_path)
    files = sorted(tmp_path.rglob("*.npz"))
    assert len(files) == 6
    files[0].write_bytes(b"")
    files[1].write_bytes(files[1].read_bytes()[:-5])
    (files[2].parent / "left.tmp").write_bytes(b"half")
    CALLS.clear()
    assert same(whole, retrain(noisy_mean, N, [[0]], 3, random_state=0, cache=tmp_path))
    assert len(CALLS) == 2


KILLED = """
import os, signal, sys
import numpy as np
from fstat.ground_truth import retrain

def train(indices, seed):
    with open("calls", "a") as file:
        file.write(f"{len(indices)} {seed}\\n")
    if os.environ.get("STOP") and sum(1 for _ in open("calls")) == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.random.default_rng(seed).normal(size=3) + len(indices)

retrain(train, 20, [[0], [1, 2]], 5, random_state=0, cache="runs").save("found")
"""


def test_a_killed_study_goes_on(tmp_path):
    script = tmp_path / "study.py"
    script.write_text(KILLED)
    command = [sys.executable, str(script)]

    def run(**env):
        return subprocess.run(
            command, cwd=tmp_path, env={**os.environ, **env}, check=False
        )

    assert run(STOP="1").returncode < 0
    assert not (tmp_path / "found.npz").exists()
    assert run().returncode == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    # 15 runs in all; the one that was killed is the only one that ran twice.
    assert len(calls) == 16
    assert len(set(calls)) == 15
    resumed = Observations.load(tmp_path / "found.npz")
    for file in (tmp_path / "runs").rglob("*.npz"):
        file.unlink()
    assert run().returncode == 0
    assert same(resumed, Observations.load(tmp_path / "found.npz"))


def test_the_cache_holds_no_pickles(tmp_path):
    retrain(noisy_mean, N, [[0]], 2, random_state=0, cache=tmp_path)
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} == {".npz", ".json"}
    for file in tmp_path.rglob("*.npz"):
        with np.load(file, allow_pickle=False) as kept:
            assert kept["statistics"].shape == (2,)


def scaled(factor, offset=0.0):
    def train(indices, seed):
        return [factor * len(indices) + offset]

    return train


class Trainer:
    def __init__(self, weight):
        self.weight = weight

    def __call__(self, indices, seed):
        return [self.weight]

    def other(self, indices, seed):
        return [2 * self.weight]


def test_train_is_known_by_source_and_data():
    same_each = [
        lambda: noisy_mean,
        lambda: scaled(2.0),
        lambda: scaled(np.arange(3)),
        lambda: functools.partial(noisy_mean, seed=1),
        lambda: Trainer(np.ones(2)),
        lambda: Trainer(1.0).other,
        lambda: iris_trainer(),
    ]
    different = [
        *same_each,
        lambda: scaled(3.0),
        lambda: scaled(np.arange(4)),
        lambda: functools.partial(noisy_mean, seed=2),
        lambda: Trainer(np.zeros(2)),
        lambda: Trainer(2.0).other,
        lambda: Trainer(1.0),
        lambda: iris_trainer(statistic="loss"),
    ]
    for make in same_each:
        assert fingerprint(make()) == fingerprint(make())
    assert len({fingerprint(make()) for make in different}) == len(different)


SOURCE = """
import functools, numpy as np
RATE = {rate}
CONFIG = {{"lr": [{rate}, 0.2]}}
def helper(x, scale={scale}):
    return scale * len(x)
def deeper(x):
    return helper(x) + {offset}
def doubled(train):
    @functools.wraps(train)
    def wrapper(indices, seed):
        return [{factor} * v for v in train(indices, seed)]
    return wrapper
class Base:
    power = {power}
    def score(self, x):
        return len(x) ** {power}
class Model(Base):
    def __init__(self, hidden=4):
        self.hidden = hidden
    def __call__(self, indices, seed):
        return [self.score(indices)]
    def other(self, indices, seed):
        return [self.hidden]
class Slotted:
    __slots__ = ("hidden",)
    def __init__(self, hidden):
        self.hidden = hidden
    def __call__(self, indices, seed):
        return [self.hidden]
def made(value):
    class Made:
        def __call__(self, indices, seed):
            return [value]
    return Made()
def closed(value):
    def train(indices, seed):
        return [value]
    return train
def reads_rate(indices, seed): return [RATE]
def reads_config(indices, seed): return [CONFIG["lr"][0]]
def in_comprehension(indices, seed): return [RATE for _ in range(2)]
def by_default(indices, seed, rate={rate}): return [rate]
def by_keyword(indices, seed, *, rate={rate}): return [rate]
def calls(indices, seed): return [deeper(indices)]
@doubled
def decorated(indices, seed): return [1.0]
"""
BEFORE = {"rate": 0.1, "scale": 1.0, "offset": 0, "factor": 2, "power": 1}


@pytest.fixture
def prints(tmp_path, monkeypatch):
    """Fingerprint of something of the module that the source makes."""
    monkeypatch.syspath_prepend(tmp_path)
    count = iter(range(100))

    def of(take, **changes):
        name = f"trainings_{tmp_path.name.replace('-', '_')}_{next(count)}"
        text = SOURCE.format(**{**BEFORE, **changes})
        (tmp_path / f"{name}.py").write_text(text)
        return fingerprint(take(importlib.import_module(name)))

    return of


@pytest.mark.parametrize(
    ("take", "changes"),
    [
        (lambda m: m.reads_rate, {"rate": 0.3}),
        (lambda m: m.reads_config, {"rate": 0.3}),
        (lambda m: m.in_comprehension, {"rate": 0.3}),
        (lambda m: m.by_default, {"rate": 0.3}),
        (lambda m: m.by_keyword, {"rate": 0.3}),
        (lambda m: m.calls, {"scale": 2.0}),
        (lambda m: m.calls, {"offset": 1}),
        (lambda m: m.decorated, {"factor": 3}),
        (lambda m: m.Model(), {"power": 2}),
        (lambda m: m.Model().other, {"power": 2}),
        (lambda m: functools.partial(m.by_keyword, rate=1), {"rate": 0.3}),
        (lambda m: functools.lru_cache(m.reads_rate), {"rate": 0.3}),
        (lambda m: [m.Model()][0], {"power": 2}),
    ],
)
def test_a_change_of_what_train_uses_is_another_train(prints, take, changes):
    assert prints(take) == prints(take)
    assert prints(take) != prints(take, **changes)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda m: m.Model(4), lambda m: m.Model(5)),
        (lambda m: m.Model(4).other, lambda m: m.Model(5).other),
        (lambda m: m.Model(4).other, lambda m: m.Model(4)),
        (lambda m: m.Slotted(4), lambda m: m.Slotted(5)),
        (lambda m: m.made(1), lambda m: m.made(2)),
        (lambda m: m.closed([1]), lambda m: m.closed([2])),
        (lambda m: m.closed((1,)), lambda m: m.closed([1])),
        (lambda m: m.closed({1: 2}), lambda m: m.closed({2: 1})),
        (lambda m: m.closed({"a", "b"}), lambda m: m.closed({"a", "c"})),
        (lambda m: m.closed(m.Model(4)), lambda m: m.closed(m.Model(5))),
        (lambda m: m.closed(np.arange(3)), lambda m: m.closed(np.arange(3.0))),
        (
            lambda m: functools.partial(m.closed, 1),
            lambda m: functools.partial(m.closed, 2),
        ),
        (lambda m: m.closed(lambda: 1), lambda m: m.closed(lambda: 2)),
        (
            lambda m: m.closed(SGDClassifier(alpha=1)),
            lambda m: m.closed(SGDClassifier()),
        ),
        (lambda m: m.closed(True), lambda m: m.closed(1)),
    ],
)
def test_what_train_holds_tells_it_from_others(prints, one, other):
    assert prints(one) == prints(one)
    assert prints(one) != prints(other)


def test_what_training_does_not_use_is_no_part_of_it(prints):
    assert prints(lambda m: m.reads_rate) == prints(lambda m: m.reads_rate, power=3)
    assert prints(lambda m: m.calls) == prints(lambda m: m.calls, factor=3, rate=2)


def test_two_lambdas_of_one_line_are_two():
    one, other = (lambda i, s: [1.0]), (lambda i, s: [2.0])
    assert fingerprint(one) != fingerprint(other)


def test_an_attribute_of_a_function_counts():
    def train(indices, seed):
        return [train.rate]

    train.rate = 0.1
    before = fingerprint(train)
    train.rate = 0.2
    assert fingerprint(train) != before


def test_fingerprints_are_the_same_in_every_process(tmp_path):
    script = tmp_path / "told.py"
    script.write_text(
        SOURCE.format(**BEFORE) + "from fstat.ground_truth._fingerprint import "
        "fingerprint\nprint(fingerprint(closed({'a', 'b', 'c', (1, 2)})))\n"
    )
    found = {
        subprocess.run(
            [sys.executable, str(script)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


@pytest.mark.parametrize("place", range(0, 520, 8))
def test_a_flipped_bit_is_found_or_harmless(tmp_path, place):
    path = tmp_path / "all-00000001.npz"
    write(path, np.array([1.5, -2.5]))
    whole = bytearray(path.read_bytes())
    whole[place % len(whole)] ^= 1 << place % 7
    path.write_bytes(bytes(whole))
    found = read(path)
    assert found is None or found.tolist() == [1.5, -2.5]


def test_what_is_no_run_is_run_again(tmp_path):
    whole = retrain(noisy_mean, N, [[0]], 4, random_state=0, cache=tmp_path)
    files = sorted(tmp_path.rglob("*.npz"))
    name = np.array(files[0].stem)
    np.savez(files[0], statistics=np.array([np.nan, 1.0]), run=name)
    files[1].write_bytes(files[2].read_bytes())  # of another run
    files[3].unlink()
    os.mkfifo(files[3])  # would never end
    np.savez(files[4], statistics=np.array([["a"]], dtype=object), run=name)
    files[5].write_bytes(b"PK\x03\x04" + bytes(100))
    CALLS.clear()
    again = retrain(noisy_mean, N, [[0]], 4, random_state=0, cache=tmp_path)
    assert same(whole, again) and len(CALLS) == 5


def test_writers_at_once_leave_whole_files(tmp_path):
    def work(_):
        return retrain(noisy_mean, N, [[0]], 6, random_state=0, cache=tmp_path)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(4)))
    assert all(same(found[0], one) for one in found)
    assert not list(tmp_path.rglob("*.tmp"))
    CALLS.clear()
    work(0)
    assert not CALLS


def test_a_folder_that_cannot_be_written_to_is_refused_before_training(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    CALLS.clear()
    with pytest.raises(
        ValueError, match="`cache` must be a folder that can be written"
    ):
        retrain(noisy_mean, N, [[0]], 2, random_state=0, cache=file)
    assert not CALLS


def test_kept_runs_are_read_from_a_folder_that_cannot_be_written_to(
    tmp_path, monkeypatch
):
    whole = retrain(noisy_mean, N, [[0]], 2, random_state=0, cache=tmp_path)

    def refused(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fstat._files.os.open", refused)
    assert same(whole, retrain(noisy_mean, N, [[0]], 2, random_state=0, cache=tmp_path))
    with pytest.raises(ValueError, match="Permission denied"):
        retrain(noisy_mean, N, [[0]], 3, random_state=0, cache=tmp_path)


DYING = """
import os, time
import numpy as np
from fstat.ground_truth import retrain

def train(indices, seed):
    if len(indices) == 18 and not os.path.exists("healed"):
        time.sleep(1.0)
        os._exit(1)
    return np.random.default_rng(seed).normal(size=2)

if __name__ == "__main__":
    n_jobs = 1 if os.path.exists("healed") else 2
    retrain(train, 20, [[0], [1, 2]], 4, random_state=0, n_jobs=n_jobs, cache="runs")
"""


def test_a_dead_worker_is_a_sentence(tmp_path):
    (tmp_path / "study.py").write_text(DYING)

    def run():
        command = [sys.executable, "study.py"]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    told = run().stderr.splitlines()[-1]
    kept = len(list((tmp_path / "runs").rglob("*.npz")))
    assert told == (
        "RuntimeError: A worker of the pool was killed, perhaps for want of memory: "
        f"{kept} of 12 runs are kept in `cache`; call again to go on, with smaller "
        "`n_jobs` if memory is short."
    )
    assert 6 <= kept <= 8
    (tmp_path / "healed").touch()
    assert run().returncode == 0


def test_without_a_cache_a_dead_worker_leaves_nothing(monkeypatch):
    def broken(*args, **options):
        raise BrokenProcessPool

    monkeypatch.setattr("joblib.Parallel.__call__", broken)
    with pytest.raises(RuntimeError, match="no runs are kept, since no `cache`"):
        retrain(noisy_mean, N, [[0]], 2, random_state=0)


def test_an_interrupted_study_keeps_its_runs(tmp_path):
    stop = [5]

    def train(indices, seed):
        if len(list(tmp_path.rglob("*.npz"))) == stop[0]:
            raise KeyboardInterrupt
        return np.random.default_rng(seed).normal(size=2)

    with pytest.raises(KeyboardInterrupt):
        retrain(train, N, [[0]], 6, random_state=0, cache=tmp_path)
    assert len(list(tmp_path.rglob("*.npz"))) == 5


def test_words_and_layout_do_not_count_in_a_fingerprint(tmp_path, monkeypatch):
    texts = {
        "bare": "def train(indices, seed):\n    return indices[:2]\n",
        "told": (
            "def train(indices, seed):\n"
            '    """Return two."""\n\n'
            "    return indices[  # the first\n        :2\n    ]\n"
        ),
        "other": "def train(indices, seed):\n    return indices[:3]\n",
    }
    prints = {}
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in texts.items():
        (tmp_path / f"{name}_train.py").write_text(text)
        prints[name] = fingerprint(importlib.import_module(f"{name}_train").train)
    assert prints["bare"] == prints["told"] != prints["other"]


def test_train_that_refers_to_itself_has_a_fingerprint():
    def train(indices, seed):
        return train(indices[:-1], seed) if len(indices) > 1 else [0.0]

    assert fingerprint(train) == fingerprint(train)


def test_data_that_cannot_be_told_apart_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`cache` needs a `train` whose data"):
        fingerprint(Trainer(i for i in range(3)))


def test_what_is_fixed_is_passed_and_told():
    kept = []

    def train(indices, seed, keep):
        kept.append(keep)
        return [np.random.default_rng(seed).normal()]

    seen = retrain(train, 9, [[0]], 3, n_runs_without=2, keep="steps", random_state=0)
    assert set(kept) == {"steps"}
    assert "3 runs with all data, 2 without the subset, as many steps" in seen.quantity
    default = retrain(iris_trainer(), 150, [[0]], 2, random_state=0)
    assert "as many epochs" in default.quantity
    told = retrain(noisy_mean, N, [[0]], 2, keep="epochs", random_state=0)
    assert "as many epochs" in told.quantity
    untold = retrain(noisy_mean, N, [[0]], 2, random_state=0)
    assert "what `train` keeps fixed" in untold.quantity


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subsets": []}, "`subsets` must hold at least one"),
        ({"subsets": [[]]}, "`subsets` must hold some, not all"),
        ({"subsets": [range(N)]}, "`subsets` must hold some, not all"),
        ({"subsets": [[N]]}, "indices from 0 to 49"),
        ({"subsets": [[-1]]}, "indices from 0 to 49"),
        ({"subsets": [[0.5]]}, "`subsets` must hold integers"),
        ({"subsets": [[1, 2], [2, 1]]}, "differ from each other"),
        ({"n_runs": 1}, "`n_runs` must be"),
        ({"n_runs_without": 1}, "`n_runs_without` must be"),
        ({"keep": "data"}, "`keep` must be one of"),
        ({"random_state": -1}, "`random_state` must be None"),
        ({"random_state": None, "cache": "x"}, "`cache` needs an int"),
        ({"targets": ["a"]}, "`targets` must name the 2"),
        ({"train": lambda i, s: [np.nan]}, "`train` must return finite"),
        ({"train": lambda i, s: 1.0}, "`train` must return finite"),
        ({"train": lambda i, s: np.zeros(len(i))}, "as many statistics in every run"),
    ],
)
def test_bad_input_is_named(change, message):
    given = {"train": noisy_mean, "n_examples": N, "subsets": [[0]], "n_runs": 2}
    with pytest.raises(ValueError, match=message):
        retrain(**{**given, "random_state": 0, **change})


def test_mu_of_retraining_is_that_of_each_pair():
    estimator = MultiRunInfluence(
        train=noisy_mean, n_runs=30, n_runs_without=20, random_state=0
    )
    assert estimator.fit(SUBSETS, N) is estimator
    low, high = estimator.confidence_interval(0.9)
    for pair in range(6):
        P, Q = (v[~np.isnan(v)] for v in estimator.observations_.samples(pair))
        alone = FInfluence().fit(P, Q)
        assert_allclose(estimator.mu_[pair], alone.mu_, rtol=1e-12)
        assert_allclose(estimator.stderr_[pair], alone.stderr_, rtol=1e-12)
        assert_allclose((low[pair], high[pair]), alone.confidence_interval(0.9))
    again = MultiRunInfluence().fit(estimator.observations_)
    assert_array_equal(again.mu_, estimator.mu_)
    assert again.quantity_ == estimator.quantity_


def test_mu_of_retraining_is_the_truth():
    estimator = MultiRunInfluence(train=noisy_mean, n_runs=1500, random_state=0)
    estimator.fit(SUBSETS, N)
    # Six estimates within 4 standard errors: chance of a miss 4e-4.
    assert (np.abs(estimator.mu_ - TRUE_MU) < 4 * estimator.stderr_).all()
    assert_allclose(estimator.stderr_, np.sqrt(2 / 1500), rtol=0.15)


def test_mu_of_retraining_serves_what_asks_for_it():
    estimator = MultiRunInfluence(
        train=noisy_mean,
        n_runs=20,
        random_state=0,
        influence=FInfluence(method=Moments(scale="pooled"), paired=True),
    ).fit(SUBSETS, N, targets=["a", "b"])
    assert estimator.influence is not estimator.influence_
    assert list(estimator.to_frame()["target"]) == ["a", "b"] * 3
    assert "retraining" in estimator.to_frame()["quantity"][0]
    assert select(estimator.influence_).n_tested == 6
    InfluenceDisplay.from_estimator(estimator.influence_)


def test_the_estimator_keeps_the_contract():
    given = {"train": noisy_mean, "n_runs": 7, "keep": "steps", "cache": "x"}
    estimator = MultiRunInfluence(**given)
    assert vars(estimator) == {**MultiRunInfluence().get_params(), **given}
    assert clone(estimator).get_params() == estimator.get_params()
    assert not [n for n in dir(estimator) if n.startswith("set_") and "request" in n]
    for ask in (estimator.confidence_interval, estimator.to_frame):
        with pytest.raises(NotFittedError):
            ask()
    with pytest.raises(ValueError, match="`train` and `n_examples`"):
        MultiRunInfluence().fit(SUBSETS, N)
    with pytest.raises(ValueError, match="`train` and `n_examples`"):
        estimator.fit(SUBSETS)
    steps = Observations(pair=[0, 0], p=[0.0, 0.1], q=[1.0, 2.0], n_steps=2)
    with pytest.raises(ValueError, match="observations of retrained models"):
        estimator.fit(steps)


def test_sklearn_statistics_are_what_they_say():
    rows, seed = np.arange(0, 150, 2), 5
    model = SGDClassifier(loss="log_loss", max_iter=3, tol=None, random_state=seed)
    model.fit(X[rows], y[rows])
    Z, labels = X[::40], y[::40]
    values, p = model.decision_function(Z), model.predict_proba(Z)
    logs = model.predict_log_proba(Z)
    for k, label in enumerate(labels):
        others = np.arange(3) != label
        margin = values[k, label] - values[k, others].max()
        odds = logs[k, label] - logsumexp(logs[k, others])
        for statistic, value in (
            ("margin", margin),
            ("log_odds", odds),
            ("loss", np.log(p[k, label])),
        ):
            found = iris_trainer(statistic=statistic)(rows, seed)
            assert_allclose(found[k], value, rtol=1e-9)


def test_two_classes_have_a_signed_margin():
    two = y < 2
    train = sklearn_trainer(SGDClassifier(), X[two], y[two], X[[0, 60]], y[[0, 60]])
    assert (train(np.arange(100), 0) > 0).all()
    turned = sklearn_trainer(SGDClassifier(), X[two], y[two], X[[0, 60]], [1, 0])
    assert_array_equal(turned(np.arange(100), 0), -train(np.arange(100), 0))


def test_seeds_reach_nested_estimators_and_resampling():
    model = make_pipeline(StandardScaler(), SGDClassifier(max_iter=3, tol=None))
    train = sklearn_trainer(model, X, y, X[:3], y[:3])
    rows = np.arange(150)
    assert_array_equal(train(rows, 1), train(rows, 1))
    assert not np.array_equal(train(rows, 1), train(rows, 2))
    drawn = sklearn_trainer(
        make_pipeline(StandardScaler(), LogisticRegression()),
        X, y, X[:3], y[:3],
        resample=True,
    )  # fmt: skip
    assert_array_equal(drawn(rows, 1), drawn(rows, 1))
    assert not np.array_equal(drawn(rows, 1), drawn(rows, 2))


def test_sklearn_trainers_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match="`keep` must be 'epochs'"):
        retrain(iris_trainer(), 150, [[0]], 2, keep="steps", random_state=0)
    with pytest.raises(ValueError, match="`estimator` must have a parameter"):
        sklearn_trainer(GaussianNB(), X, y, X, y, statistic="loss")
    with pytest.raises(ValueError, match="`y_test` must hold classes"):
        sklearn_trainer(SGDClassifier(), X, y, X[:1], [7])
    with pytest.raises(ValueError, match="`statistic` must be one of"):
        iris_trainer(statistic="accuracy")
    with pytest.raises(ValueError, match="examples of the targets' classes"):
        retrain(iris_trainer(), 150, [np.arange(50)], 2, random_state=0)


def small(name):
    """Estimators of many kinds, quick ones."""
    forest = RandomForestClassifier(5)
    sgd = SGDClassifier(max_iter=3, tol=None)
    return {
        "forest": forest,
        "svc": SVC(),
        "ovo": SVC(decision_function_shape="ovo"),
        "logistic": LogisticRegression(),
        "hinge": sgd,
        "boosting": HistGradientBoostingClassifier(max_iter=2),
        "pipeline": make_pipeline(StandardScaler(), forest),
        "ovo in a pipeline": make_pipeline(
            StandardScaler(), SVC(decision_function_shape="ovo")
        ),
        "search": GridSearchCV(sgd, {"alpha": [1e-4, 1e-3]}, cv=2),
        "search of forests": GridSearchCV(forest, {"max_depth": [2, 3]}, cv=2),
        "ridge": Ridge(),
        "regressors": make_pipeline(StandardScaler(), SGDRegressor()),
        "random regressors": RandomForestRegressor(5),
        "outliers": IsolationForest(),
        "scaler": StandardScaler(),
        "clusters": KMeans(2),
    }[name]


@pytest.mark.parametrize(
    ("name", "able"),
    [
        ("forest", "log_odds probability loss"),
        ("svc", "margin"),
        ("ovo", ""),
        ("logistic", "margin log_odds probability loss"),
        ("hinge", "margin"),
        ("boosting", "margin log_odds probability loss"),
        ("pipeline", "log_odds probability loss"),
        ("ovo in a pipeline", ""),
        ("search", "margin"),
        ("search of forests", "log_odds probability loss"),
        ("ridge", "loss"),
        ("regressors", "loss"),
        ("random regressors", "loss"),
        ("outliers", ""),
        ("scaler", ""),
        ("clusters", ""),
    ],
)
@pytest.mark.parametrize("statistic", ["margin", "log_odds", "probability", "loss"])
def test_what_an_estimator_cannot_give_is_refused_at_once(name, able, statistic):
    model = small(name)
    given = {"statistic": statistic, "resample": True}
    if statistic not in able.split():
        with pytest.raises(ValueError, match=r"`(statistic|estimator)` ") as told:
            sklearn_trainer(model, X, y, X[::40], y[::40], **given)
        ways = [one for one in able.split() if repr(one) in str(told.value)]
        assert ways == able.split() or name == "outliers"
        return
    train = sklearn_trainer(model, X, y, X[::40], y[::40], **given)
    try:
        found = train(np.arange(150), 0)
    except ValueError as error:
        assert "use 'probability'" in str(error) and statistic in ("log_odds", "loss")
        return
    assert found.shape == (4,) and np.isfinite(found).all()
    assert_array_equal(found, train(np.arange(150), 0))


def test_statistics_of_forests_and_regressors_are_what_they_say():
    rows, seed = np.arange(0, 150, 2), 3
    forest = RandomForestClassifier(5)
    train = sklearn_trainer(forest, X, y, X[::40], y[::40], statistic="probability")
    fitted = RandomForestClassifier(5, random_state=seed).fit(X[rows], y[rows])
    p = fitted.predict_proba(X[::40])[np.arange(4), y[::40]]
    assert_array_equal(train(rows, seed), p)
    model = SGDRegressor(max_iter=3, tol=None)
    train = sklearn_trainer(model, X, y, X[::40], y[::40], statistic="loss")
    fitted = clone(model).set_params(random_state=seed).fit(X[rows], y[rows])
    assert_allclose(train(rows, seed), -((fitted.predict(X[::40]) - y[::40]) ** 2))


def test_frames_and_sparse_matrices_are_trained_on_as_arrays_are():
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = SGDClassifier(max_iter=3, tol=None)
    rows = np.arange(0, 150, 2)
    plain = sklearn_trainer(model, X, y, X[:3], y[:3])(rows, 0)
    of_frame = sklearn_trainer(model, frame, pd.Series(y), frame[:3], y[:3])(rows, 0)
    assert_array_equal(of_frame, plain)
    sparse = csc_array(X)
    of_sparse = sklearn_trainer(model, sparse, y, sparse[:3], y[:3])(rows, 0)
    fitted = clone(model).set_params(random_state=0).fit(sparse.tocsr()[rows], y[rows])
    values = fitted.decision_function(X[:3])
    assert_allclose(of_sparse, values[:, 0] - values[:, 1:].max(axis=1), rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": y[:5]}, "`y` must have shape"),
        ({"y": np.eye(150)}, "`y` must have shape"),
        ({"X": X[:, 0]}, "`X` must have one row for each example"),
        ({"X_test": X[:2]}, "`y_test` must have shape"),
        ({"X_test": X[:3, :2]}, "`X` and `X_test` must have the same features"),
        ({"resample": 2}, "`resample` must be True or False"),
    ],
)
def test_examples_that_do_not_fit_are_named(change, message):
    given = {"X": X, "y": y, "X_test": X[:3], "y_test": y[:3], **change}
    with pytest.raises(ValueError, match=message):
        sklearn_trainer(SGDClassifier(), **given)


def test_classes_that_a_subset_takes_away_are_named():
    train = sklearn_trainer(LogisticRegression(), X, y, X[:2], y[:2], resample=True)
    # Another class than the targets' may be missing, but not all others.
    assert np.isfinite(train(np.arange(100), 0)).all()
    with pytest.raises(ValueError, match=r"two classes or more, got .*0.* only"):
        train(np.arange(50), 0)
    with pytest.raises(ValueError, match=r"got none of \[0\]: leave out less"):
        train(np.arange(50, 150), 0)


def test_training_that_is_not_random_is_refused():
    train = sklearn_trainer(LogisticRegression(), X, y, X[::40], y[::40])
    with pytest.raises(ValueError, match=r"`train` must be random.*`resample=True`"):
        retrain(train, 150, [[0]], 3, random_state=0)
