"""Right answers for estimates of mu: high precision and plain loops, without fstat."""

import math
from itertools import pairwise

import mpmath as mp


def log_noncentral_t(t, df, nc, upper=False, digits=30):
    """Return the log of a tail of the noncentral t distribution, by mpmath.

    The definition as one integral over the scale, in panels that are graded about its
    largest value and about the step of the normal distribution function.
    """
    with mp.workdps(digits):
        t, df, nc = mp.mpf(t), mp.mpf(df), mp.mpf(nc)
        sign = -1 if upper else 1
        constant = mp.log(2) + df / 2 * mp.log(df / 2) - mp.loggamma(df / 2)

        def height(s):
            tail = mp.erfc(-sign * (t * s - nc) / mp.sqrt(2)) / 2
            return constant + (df - 1) * mp.log(s) - df * s**2 / 2 + mp.log(tail)

        mode = _largest(height)
        top = height(mode)
        ends = [_fallen(height, mode, top, side) for side in (-1, 1)]
        points = _graded(mode, *ends, step=nc / t if t else mode, width=t)
        value = mp.quad(
            lambda s: mp.exp(height(s) - top) if s > 0 else mp.mpf(0),
            points,
            maxdegree=5,
        )
        return float(top + mp.log(value))


def _largest(height):
    """Return the largest value of a function with one maximum, by trisection."""
    ratio = mp.mpf(2) ** (mp.mpf(1) / 8)
    best = max((ratio**k for k in range(-160, 161)), key=height)
    low, high = best / ratio, best * ratio
    for _ in range(90):
        one, two = low + (high - low) / 3, high - (high - low) / 3
        if height(one) < height(two):
            low = one
        else:
            high = two
    return (low + high) / 2


def _fallen(height, mode, top, side):
    step = mode * mp.mpf("1e-9")
    while True:
        s = mode + side * step
        if s <= 0:
            return mp.mpf(0)
        if top - height(s) > 75:
            return s
        step *= 2


def _graded(mode, low, high, step, width):
    pieces = [mp.mpf(k) / 24 for k in range(25)]
    points = [low + (mode - low) * k for k in pieces]
    points += [mode + (high - mode) * k for k in pieces]
    if width:
        near = (1, 2, 3, 4, 6, 8, 16, 32)
        points += [step + k / abs(width) for k in (0, *near, *(-k for k in near))]
    return sorted({s for s in points if low <= s <= high})


def mean(x):
    return sum(x) / len(x)


def central(x, power):
    """Return the mean of a power about the mean."""
    m = mean(x)
    return sum((value - m) ** power for value in x) / len(x)


def variance(x):
    return central(x, 2) * len(x) / (len(x) - 1)


def binormal_index(P, Q):
    """Return the difference of means over the root of the average variance."""
    return (mean(Q) - mean(P)) / ((variance(P) + variance(Q)) / 2) ** 0.5


def binormal_index_variance(P, Q, mu, trust=20):
    """Return the delta-method variance of the index at mu, for independent samples.

    The third and fourth moments are averaged with a normal distribution's, as if
    `trust` further observations had been normal.
    """
    square = (variance(P) + variance(Q)) / 2
    of_difference = variance(P) / len(P) + variance(Q) / len(Q)
    together = of_squares = 0.0
    for x, sign in ((P, -1), (Q, 1)):
        weight = len(x) / (len(x) + trust)
        skewness = central(x, 3) / central(x, 2) ** 1.5
        kurtosis = central(x, 4) / central(x, 2) ** 2
        together += sign * weight * skewness * variance(x) ** 1.5 / len(x)
        spread = weight * (kurtosis - 1) + (1 - weight) * 2
        of_squares += variance(x) ** 2 * spread / (len(x) - 1)
    return (
        of_difference / square
        - mu * together / (2 * square**1.5)
        + mu**2 * of_squares / (16 * square**2)
    )


def paired_index_variance(P, Q, mu, trust=20):
    """Return the same for pairs of observations."""
    n, square = len(P), (variance(P) + variance(Q)) / 2
    p, q = mean(P), mean(Q)
    differences = [(b - q) - (a - p) for a, b in zip(P, Q, strict=True)]
    squares = [(a - p) ** 2 + (b - q) ** 2 for a, b in zip(P, Q, strict=True)]
    covariance = sum((a - p) * (b - q) for a, b in zip(P, Q, strict=True)) / (n - 1)
    weight = n / (n + trust)
    together = weight * mean(
        [d * (s - mean(squares)) for d, s in zip(differences, squares, strict=True)]
    )
    normal = 2 * variance(P) ** 2 + 2 * variance(Q) ** 2 + 4 * covariance**2
    of_squares = weight * central(squares, 2) + (1 - weight) * normal
    return (
        variance(differences) / n / square
        - mu * together / n / (2 * square**1.5)
        + mu**2 * of_squares / (n - 1) / (16 * square**2)
    )


def area(P, Q):
    """Return the area under the ROC curve by counting, ties half."""
    wins = sum((q > p) + 0.5 * (q == p) for p in P for q in Q)
    return wins / (len(P) * len(Q))


def rank_index_variance(P, Q, trust=20):
    """Return DeLong's variance of sqrt(2) probit(AUC), shrunk to a normal one's."""
    auc = area(P, Q)
    z = mp.sqrt(2) * mp.erfinv(2 * mp.mpf(auc) - 1)
    # The chance that two of Q exceed the same normal P, less AUC squared.
    both = mp.quad(
        lambda x: mp.npdf(x) * mp.ncdf(x + mp.sqrt(2) * z) ** 2, [-12, -4, 0, 4, 12]
    )
    normal = float(both - mp.mpf(auc) ** 2)
    of_P = [area([p], Q) for p in P]
    of_Q = [area(P, [q]) for q in Q]
    total = 0.0
    for placed in (of_P, of_Q):
        weight = len(placed) / (len(placed) + trust)
        each = weight * variance(placed) + (1 - weight) * normal
        total += each / len(placed)
    return total * float(2 / mp.npdf(z) ** 2)


def grouped_variance(values, labels):
    """Return the variance of a sum whose terms cluster: G / (G - 1) sums squared."""
    sums = {}
    for value, label in zip(values, labels, strict=True):
        sums[label] = sums.get(label, 0.0) + value
    return len(sums) / (len(sums) - 1) * sum(s**2 for s in sums.values())


def corrected_autocorrelation(x):
    """Return Kendall's r + (1 + 3 r) / n of a series, two effective values left."""
    n, m = len(x), mean(x)
    x = [value - m for value in x]
    square = sum(v**2 for v in x) - (x[0] ** 2 + x[-1] ** 2) / 2
    r = sum(a * b for a, b in zip(x[1:], x[:-1], strict=True)) / square
    bound = (n - 2) / (n + 2)
    return min(max(r + (1 + 3 * r) / n, -bound), bound)


def sum_inflation(r, n):
    """Return the variance of a sum of n of an autoregression, over n times one's."""
    total = sum((n - abs(k)) * r ** abs(k) for k in range(-int(n) + 1, int(n)))
    return total / n


def batch_means_variance(x, floor=1 / 3):
    """Return the variance of the sum of a series from sums of its batches.

    What an autoregression of order one leaves of correlation between batches is made
    good, and the variance is no less than a share of that of independent values.
    """
    n, m = len(x), mean(x)
    batches = max(int(n // math.ceil(n**0.6)), 2)
    sums = [0.0] * batches
    for i, value in enumerate(x):
        sums[i * batches // n] += value - m
    r = max(corrected_autocorrelation(x), 0.0)
    smooth = (1 + r) / (1 - r)

    def inflation(size):
        return smooth - 2 * r * (1 - r**size) / (size * (1 - r) ** 2)

    length = n / batches
    whole = batches**2 * length * inflation(length) - n * inflation(n)
    factor = n * inflation(n) * batches / whole
    independent = n / (n - 1) * sum((v - m) ** 2 for v in x)
    return max(factor * sum(s**2 for s in sums), floor * independent)


def autoregression_variance(x, floor=1 / 3):
    """Return the variance of the sum of an autoregression of order one."""
    n, m = len(x), mean(x)
    r = corrected_autocorrelation(x)
    x = [value - m for value in x]
    residual = sum((b - r * a) ** 2 for a, b in pairwise(x))
    convexity = 1 + 3 * (1 + r) / (1 - r) / n
    value = n / (n - 2) * residual * sum_inflation(r, n) / (1 - r**2) / convexity
    return max(value, floor * n / (n - 1) * sum(v**2 for v in x))


def kernel_variance(x, floor=1 / 3):
    """Return the variance of the sum by the quadratic spectral kernel, by lags."""
    n, m = len(x), mean(x)
    r = corrected_autocorrelation(x)
    x = [value - m for value in x]
    bandwidth = max(1.0, 1.3221 * (4 * r**2 / (1 - r) ** 4 * n) ** 0.2)
    b = min(bandwidth / n, 0.5)
    total = sum(v**2 for v in x)
    for lag in range(1, n):
        z = mp.mpf(6) / 5 * mp.pi * lag / (b * n)
        weight = 3 / z**2 * (mp.sin(z) / z - mp.cos(z))
        total += 2 * weight * sum(p * q for p, q in zip(x[lag:], x[:-lag], strict=True))
    value = float(total / (1 - 1.25 * b))
    return max(value, floor * n / (n - 1) * sum(v**2 for v in x))
