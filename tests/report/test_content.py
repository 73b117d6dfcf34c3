"""What a page can hold: texts that are seen, pictures of arrays, tables of numbers."""

import re
from base64 import b64decode
from io import BytesIO

import numpy as np
import pandas as pd
from html_pages import Page
from PIL import Image

from fstat.report import excerpt, visible
from fstat.report.content import content


def test_spelled_out_and_shortened_texts():
    assert visible("a\u202eb\x00\ud800") == "a[U+202E]b[U+0000][U+D800]"
    assert visible("one\r\ntwo\tthree") == "one\ntwo\tthree"
    assert visible("a" + "\u0301" * 9) == "a" + "\u0301" * 4
    assert visible("\N{WOMAN}\u200d\N{ROCKET}") == "\N{WOMAN}\u200d\N{ROCKET}"
    assert excerpt("word " * 9, 11) == "word word…"
    assert excerpt("short\n text", 20) == "short text"
    assert excerpt("x" * 10**6, 10) == "x" * 10 + "…"


def decoded(element):
    data = b64decode(re.search(r"base64,([^\"]*)", element)[1])
    return np.asarray(Image.open(BytesIO(data)))


def test_pictures_are_those_of_the_arrays():
    grey = np.linspace(0, 1, 12).reshape(3, 4)
    assert (decoded(content(grey, "a")) == np.rint(255 * grey)).all()
    colour = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    assert (decoded(content(colour, "a")) == colour).all()
    assert (
        decoded(content(np.moveaxis(colour[:, :, :1], -1, 0))) == colour[..., 0]
    ).all()
    high = np.zeros((4, 5, 3))  # channels last, unless they cannot be
    assert decoded(content(high)).shape == (4, 5, 3)
    assert decoded(content(np.zeros((3, 8, 9)))).shape == (8, 9, 3)
    assert max(decoded(content(np.zeros((1000, 10)))).shape) == 224
    assert 'width="56" height="56"' in content(np.zeros((28, 28)))
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    assert content(svg, "a").startswith('<img class="" alt="a" src="data:image/svg+xml')
    page = Page(content([grey, "text", None, ("more",)], 'a "b" <c>'))
    assert page.all("img")[0]["alt"] == 'a "b" <c>'
    assert page.text == "textmore"


def test_numbers_of_a_column_share_a_format():
    table = pd.DataFrame({"name": ["a", "b"], "x": [0.5, np.nan], "n": [1200, 3]})
    cells = re.findall(r"<td[^>]*>([^<]*)", content(table))
    assert cells == ["0.500", "1,200", "nan", "3"]
