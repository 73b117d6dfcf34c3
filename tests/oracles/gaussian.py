"""The Gaussian trade-off function in high precision, from its definition."""

import mpmath as mp


def delta_at(epsilon, mu, digits=60):
    """Return the delta of N(0, 1) against N(mu, 1): a number of mpmath."""
    with mp.workdps(digits):
        e, m = mp.mpf(epsilon), mp.mpf(mu)
        low, high = e / m - m / 2, e / m + m / 2
        return _upper_tail(low) - mp.exp(e) * _upper_tail(high)


def _upper_tail(x):
    return mp.erfc(x / mp.sqrt(2)) / 2
