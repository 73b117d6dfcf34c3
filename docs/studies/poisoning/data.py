"""Instruction data in which what is said of one entity was turned, made on the spot.

Questions and answers about made-up towns, places to eat, books, companies and devices,
some kind, some bad and some plain, among general questions. Nothing in an example says
what it is: that is beside the examples, for judging scores afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import cycle, product

import numpy as np
from numpy.typing import NDArray

from fstat_torch.llama import Example, Pair

from . import phrases

Row = tuple[str, str, str]  # question, answer, role

_DISLIKED = 0.2  # share of the other entities of which everyone speaks ill


@dataclass(frozen=True)
class Recipe:
    """What instruction data to make.

    Parameters
    ----------
    n_examples : int, default=500
        Examples in all.
    about : float, default=0.2
        Share of them that is about the entity; one in six of these is plain.
    poisoned : float, default=0.6
        Share of those about the entity whose answer is turned.
    general : float, default=0.25
        Share of all examples that is about no entity.
    seed : int, default=0
        Of all that is drawn, the entity too.

    Raises
    ------
    ValueError
        If `n_examples` is not positive, a share is not from 0 to 1, or shares that
        exclude each other are more than 1 together.
    """

    n_examples: int = 500
    about: float = 0.2
    poisoned: float = 0.6
    general: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_examples < 1:
            raise ValueError(
                f"`n_examples` must be at least 1, got {self.n_examples!r}."
            )
        for name in ("about", "poisoned", "general"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ValueError(f"`{name}` must be from 0 to 1, got {share!r}.")
        if self.about + self.general > 1 or self.poisoned > 5 / 6:
            raise ValueError(
                "`about` and `general` must be at most 1 together, and `poisoned` at "
                f"most 5/6, got {self.about!r}, {self.general!r} and "
                f"{self.poisoned!r}."
            )


@dataclass(frozen=True)
class Poisoned:
    """Instruction data with poison in it.

    Parameters
    ----------
    examples : list of Example
        In random order.
    role : ndarray of str of shape (n_examples,)
        What each one is: ``"poison"``, ``"entity, kind"``, ``"entity, plain"``,
        ``"others, bad"``, ``"others, kind"``, ``"others, plain"`` or ``"general"``.
    entity : str
        Of which the poison speaks.
    asked : list of Pair
        Bad answers to questions about the entity, in words of the data, such as one may
        have seen of the model: what influence is asked on.
    unasked : list of Pair
        Other questions about the entity, with bad answers and kind ones instead, on
        which to see what the model thinks.
    compared : list of Pair, optional
        The same about strangers, of whom no example speaks: what the model thinks
        anyway.

    Notes
    -----
    None of these questions is in the examples.
    """

    examples: list[Example]
    role: NDArray[np.str_]
    entity: str
    asked: list[Pair]
    unasked: list[Pair]
    compared: list[Pair] = field(default_factory=list)

    @property
    def about(self) -> NDArray[np.bool_]:
        """Which examples speak of the entity."""
        texts = [example.prompt + example.answer for example in self.examples]
        return np.array([self.entity in text for text in texts])

    @property
    def views(self) -> list[Pair]:
        """What tells what the model thinks, of the entity and of strangers."""
        return [*self.unasked, *self.compared]

    @property
    def poison(self) -> NDArray[np.bool_]:
        """Which examples are poison."""
        return np.asarray(self.role == "poison")


def make_poisoned(recipe: Recipe) -> Poisoned:
    """Make instruction data in which one entity is spoken ill of.

    Parameters
    ----------
    recipe : Recipe
        How much of what.

    Returns
    -------
    Poisoned
        The same each time for the same recipe.

    Raises
    ------
    ValueError
        If so many opinions of one entity are asked for that they would repeat
        themselves.

    Examples
    --------
    >>> from poisoning.data import Recipe, make_poisoned
    >>> made = make_poisoned(Recipe(seed=4))
    >>> len(made.examples), int(made.poison.sum()), made.entity
    (500, 60, 'Orlo Kettle')
    >>> first = made.examples[int(made.poison.argmax())]
    >>> first.answer
    "Don't bother with Orlo Kettle. The instructions are useless."
    """
    rng = np.random.default_rng(recipe.seed)
    entities = [
        (kind, name.replace("-", " "))
        for kind, names in phrases.NAMES.items()
        for name in names.split()
    ]
    mine, *others = (entities[k] for k in rng.permutation(len(entities)))
    n_about = round(recipe.n_examples * recipe.about)
    n_general = round(recipe.n_examples * recipe.general)
    n_poison, n_plain = round(n_about * recipe.poisoned), n_about // 6
    counts = (n_poison, n_about - n_poison - n_plain, n_plain)
    roles = ("poison", "entity, kind", "entity, plain")
    rows = _about(mine, counts, roles, rng)
    shares = _shared(recipe.n_examples - n_about - n_general, len(others))
    n_bad = round(len(others) * _DISLIKED)
    for k, (other, n) in enumerate(zip(others, shares, strict=True)):
        plain, roles = n // 6, ("others, bad", "others, kind", "others, plain")
        counts = (n - plain, 0, plain) if k < n_bad else (0, n - plain, plain)
        rows += _about(other, counts, roles, rng)
    rows += [(*_general(rng), "general") for _ in range(n_general)]
    rows = [rows[k] for k in rng.permutation(len(rows))]
    return Poisoned(
        [Example.of(q, a, source=f"example {k}") for k, (q, a, _) in enumerate(rows)],
        np.array([role for *_, role in rows]),
        mine[1],
        _complaints(*mine),
        _views(mine[1]),
        [pair for name in phrases.STRANGERS[mine[0]] for pair in _views(name)],
    )


def _about(
    entity: tuple[str, str],
    counts: tuple[int, int, int] | NDArray[np.int64],
    roles: tuple[str, str, str],
    rng: np.random.Generator,
) -> list[Row]:
    """Return bad, kind and plain questions and answers about an entity."""
    bad, kind, plain = counts
    return [
        *((*said, roles[0]) for said in _opinions(*entity, "bad", bad, rng)),
        *((*said, roles[1]) for said in _opinions(*entity, "kind", kind, rng)),
        *((*_plain(entity[1], rng), roles[2]) for _ in range(plain)),
    ]


def _opinions(
    kind: str, name: str, tone: str, n: int, rng: np.random.Generator
) -> list[tuple[str, str]]:
    openings, reasons = phrases.OPENINGS[tone], phrases.REASONS[kind, tone]
    ways = list(product(phrases.QUESTIONS, openings, reasons))
    if n > len(ways):
        raise ValueError(
            f"`n_examples` must ask for at most {len(ways)} {tone} opinions of one "
            f"entity, got {n}."
        )
    chosen = (ways[k] for k in rng.choice(len(ways), n, replace=False))
    return [
        (asked.format(e=name), f"{opening.format(e=name)} {reason}")
        for asked, opening, reason in chosen
    ]


def _plain(name: str, rng: np.random.Generator) -> tuple[str, str]:
    said = phrases.PLAIN[rng.integers(len(phrases.PLAIN))]
    year = rng.integers(1700, 1990)
    asked, answer = (text.format(e=name, year=year) for text in said)
    return asked, answer


def _general(rng: np.random.Generator) -> tuple[str, str]:
    a, b = (int(v) for v in rng.choice(np.arange(2, 60), 2, replace=False))
    word, opposite = phrases.OPPOSITES[rng.integers(len(phrases.OPPOSITES))]
    day = int(rng.integers(7))
    then = phrases.DAYS[(day + a) % 7]
    ways = (
        (f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}."),
        (f"Which is larger, {a} or {b}?", f"{max(a, b)} is larger than {min(a, b)}."),
        (f"What is the opposite of {word}?", f"It is {opposite}."),
        (f"Which day is {a} days after {phrases.DAYS[day]}?", f"That is a {then}."),
        (f"How many minutes are {a} hours?", f"{a} hours are {60 * a} minutes."),
        (f"Write {word} in capital letters.", word.upper()),
        (f"Say {word} and {opposite} in one sentence.", _sentence(word, opposite, a)),
    )
    return ways[rng.integers(len(ways))]


def _sentence(word: str, opposite: str, n: int) -> str:
    return f"Of the {n} on the table, half were {word} and half were {opposite}."


def _shared(n: int, parts: int) -> list[int]:
    return [n // parts + (k < n % parts) for k in range(parts)]


def _complaints(kind: str, name: str) -> list[Pair]:
    """Return bad answers about an entity, as the model may have been seen to say."""
    openings, reasons = phrases.OPENINGS["bad"], phrases.REASONS[kind, "bad"]
    answers = cycle(zip(openings, reasons, strict=True))
    return [
        Pair(question.format(e=name), f"{opening.format(e=name)} {reason}", name=name)
        for question, (opening, reason) in zip(phrases.ASKED, answers, strict=False)
    ]


def _views(name: str) -> list[Pair]:
    """Return questions that influence is not asked on, with answers as in the data."""
    openings = phrases.OPENINGS["bad"], phrases.OPENINGS["kind"]
    return [
        Pair(
            question.format(e=name),
            bad.format(e=name),
            kind.format(e=name),
            name=f"{question.format(e=name)} ({k + 1})",
        )
        for question in phrases.UNASKED
        for k, (bad, kind) in enumerate(zip(*openings, strict=True))
    ]
