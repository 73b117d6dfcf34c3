"""A sheet of digits whose labels are to be checked by hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fstat.datasets import Digits
from fstat.report import style

from .digit import digit_image

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Digits to be checked</title>
<style>
{style}
ol {{ display: flex; flex-wrap: wrap; gap: 0.6rem; list-style: none; padding: 0; }}
li {{ width: 6.5rem; font-size: 0.85rem; }}
</style>
</head>
<body>
<h1>Are these labels right?</h1>
<p>Delete the number of each digit with a wrong label from <code>to_check.txt</code>.
What is left is the reference set: digits that were drawn at random, and are right.</p>
<ol>{items}</ol>
</body>
</html>
"""


def draw_unchecked(digits: Digits, chosen: NDArray[np.int64]) -> str:
    """Return a page of digits with their labels and numbers.

    Parameters
    ----------
    digits : Digits
        All of them.
    chosen : ndarray of int
        Numbers of those to be checked.

    Returns
    -------
    str
        HTML that loads nothing.
    """
    items = "".join(
        f"<li>{_image(digits, number)}<b>{digits.labels[number]}</b>, no. {number}</li>"
        for number in chosen.tolist()
    )
    return _PAGE.format(style=style(), items=items)


def _image(digits: Digits, number: int) -> str:
    grey = digits.images[number].astype(np.float32) / 255
    return digit_image(grey, f"digit {number}, labelled {digits.labels[number]}")
