"""Random pairs of distributions, and their compositions on a plain fine lattice.

Nothing is tilted and nothing solved: the line is cut into cells, the loss of each cell
is split between the two nearest points of a lattice, and steps are convolved.
"""

import warnings

import numpy as np
from scipy import stats
from scipy.signal import fftconvolve

WIDTH, FARTHEST = 1e-4, 80.0
_NEAR = 10.0  # a loss
_TAIL = np.geomspace(1e-14, 1e-3, 300)
_LEVELS = np.append(_TAIL, np.linspace(1e-3, 0.5, 500)[1:])
_WITHIN = np.arange(300) / 300

# Ranges of the shape parameters of each.
SHAPES = {
    "norm": (),
    "laplace": (),
    "logistic": (),
    "gumbel_r": (),
    "gumbel_l": (),
    "cauchy": (),
    "hypsecant": (),
    "moyal": (),
    "expon": (),
    "uniform": (),
    "rayleigh": (),
    "semicircular": (),
    "halfnorm": (),
    "t": ((1.5, 20),),
    "gennorm": ((0.7, 4),),
    "laplace_asymmetric": ((0.4, 2.5),),
    "johnsonsu": ((-1, 1), (0.7, 3)),
    "genlogistic": ((0.3, 4),),
    "gamma": ((1, 6),),
    "weibull_min": ((1, 4),),
    "lognorm": ((0.2, 1.5),),
    "beta": ((1, 5), (1, 5)),
    "triang": ((0.1, 0.9),),
    "invgauss": ((0.3, 2),),
}


def random_pair(rng):
    """Return two distributions that overlap, of families drawn at random."""
    one, other = rng.choice(list(SHAPES), 2)
    place = {"loc": rng.uniform(-1.2, 1.2), "scale": 10 ** rng.uniform(-0.25, 0.25)}

    def frozen(name, **place):
        return getattr(stats, name)(*(rng.uniform(*r) for r in SHAPES[name]), **place)

    return frozen(one), frozen(other, **place)


def random_composition(rng):
    """Return pairs of distributions, and how often each is taken, 2 to 6 in all."""
    steps = [random_pair(rng) for _ in range(rng.choice([1, 1, 2]))]
    counts = [int(rng.integers(1, 4)) for _ in steps]
    return steps, counts if sum(counts) > 1 else [2]


def lattice_masses(P, Q):
    """Return the probabilities of finite losses under P and under Q on the lattice."""
    ends = [[Q.kwds["loc"], 0.0], *(D.support() for D in (P, Q))]
    quantiles = [v for D in (P, Q) for v in (D.ppf(_LEVELS), D.isf(_LEVELS))]
    x = np.unique(np.concatenate([*ends, *quantiles]))
    x = x[np.isfinite(x)]
    x = np.append((x[:-1, None] + np.diff(x)[:, None] * _WITHIN).ravel(), x[-1])
    middle = (x[1:] + x[:-1]) / 2
    loss = Q.logpdf(middle) - P.logpdf(middle)
    finite = np.abs(loss) < FARTHEST
    place = (loss[finite] + FARTHEST) / WIDTH
    first = place.astype(int)
    share = place - first
    size = round(2 * FARTHEST / WIDTH) + 2
    both = []
    for D in (P, Q):
        below, above = D.cdf(x), D.sf(x)
        mass = np.where(middle < D.median(), np.diff(below), -np.diff(above))
        mass = np.maximum(np.nan_to_num(mass), 0.0)[finite]
        both.append(
            np.bincount(first, mass * (1 - share), size)
            + np.bincount(first + 1, mass * share, size)
        )
    return both


def composed_masses(steps, counts):
    """Return the probabilities of finite sums under P and Q, and the largest sum."""
    p = q = np.ones(1)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for pair, count in zip(steps, counts, strict=True):
            one = lattice_masses(*pair)
            for _ in range(count):
                p, q = fftconvolve(p, one[0]), fftconvolve(q, one[1])
    number = sum(counts)
    largest = number * ((one[0].size - 1) * WIDTH - FARTHEST)
    return p, q, largest


def powers(masses, alpha):
    """Return powers of a composition at levels."""
    p, q, _ = masses
    # What is missing is where Q alone, or P alone, can be.
    levels = np.append(np.cumsum(p[::-1]), 1.0)
    power = np.append(max(0.0, 1.0 - q.sum()) + np.cumsum(q[::-1]), 1.0)
    return np.where(alpha >= levels[-2], 1.0, np.interp(alpha, levels, power))


def deltas(masses, epsilon):
    """Return deltas of a composition at numbers epsilon."""
    p, q, largest = masses
    loss = largest - WIDTH * np.arange(q.size)[::-1]
    excess = []
    for e in epsilon:
        up = loss > e
        # Within cells the loss may be steep; beyond, rounding of P would count.
        near = q[up].sum() - np.exp(e) * p[up].sum()
        far = q[up] @ -np.expm1(e - loss[up])
        excess.append(near if e < _NEAR else far)
    return max(0.0, 1.0 - q.sum()) + np.array(excess)
