"""The sets of images on which studies choose, report and look last are disjoint."""

import importlib.util
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("mlxtend")
FILE = Path(__file__).parents[1] / "docs" / "studies" / "_splits.py"


@pytest.fixture(scope="module")
def splits():
    spec = importlib.util.spec_from_file_location("_splits", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_digit_is_in_two_sets_or_on_both_sides_of_one(splits):
    numbers = [np.concatenate(splits.numbers_of(name)) for name in splits.DIGITS]
    everything = np.concatenate(numbers)
    assert len(numbers) == 3 and len(everything) == len(np.unique(everything))
    assert everything.min() >= 0 and everything.max() < 5000


def test_no_picture_is_in_two_sets(splits):
    # A digit may be in the source twice, under two numbers.
    pictures = []
    for name in splits.DIGITS:
        images = splits.images_of(name)
        both = np.concatenate([images.x.numpy(), images.x_test.numpy()])
        pictures.append({picture.tobytes() for picture in both})
    assert not any(a & b for a, b in combinations(pictures, 2))


@pytest.mark.parametrize("name", ["tuning", "report", "last", "small"])
def test_a_tenth_of_the_training_labels_is_wrong(splits, name):
    images = splits.images_of(name)
    assert images.x.shape == (1600, 1, 28, 28) and images.x_test.shape[0] == 30
    assert images.flipped.sum() == 160
    assert images.x.min() >= 0 and images.x.max() == 1
    assert set(images.y.tolist()) == set(range(10))
