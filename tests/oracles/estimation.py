"""Right answers for estimates of mu: high precision and plain loops, without fstat."""

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
