"""A few of the faults that ``python -m torture`` brings about by the thousand."""

import errno
import signal

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torture import damage, faults  # noqa: E402


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return faults.truth(tmp_path_factory.mktemp("torture"))


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_refused_or_change_nothing(tmp_path):
    for kind, _ in damage.kinds(tmp_path):
        seen = damage.damage(kind, 25, seed=1)
        if kind.sealed and kind.name != "cached trainings":
            seen += damage.flip(kind, 2, seed=1)
        assert set(seen) <= {"refused", "unchanged", "other"}, seen


FAULTS = {
    "kills": lambda judge, at, rng: [
        faults.kills(judge, at, 3),
        faults.random_kills(judge, at, 3, signal.SIGTERM, rng),
    ],
    "interrupts": lambda judge, at, rng: faults.interrupts(judge, at, 15, rng),
    "disk": lambda judge, at, rng: faults.disk_errors(judge, at, 4, errno.ENOSPC),
    "limit": lambda judge, at, rng: faults.file_size_limit(judge, at),
    "removed": lambda judge, at, rng: faults.folders_removed(judge, at, 3),
    "writers": lambda judge, at, rng: faults.two_writers(judge, at, 3),
    "losses": lambda judge, at, rng: faults.losses(judge, at, 9),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_faults_change_no_training_and_lose_nothing(name, known, tmp_path):
    judge = faults.Judge(known)
    FAULTS[name](judge, tmp_path, np.random.default_rng(0))
    assert sum(judge.seen[what] for what in faults.WRONG) == 0, judge.seen
