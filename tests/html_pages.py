"""A page as tests read it: elements, text by section, and what every page owes."""

import re
from html.parser import HTMLParser
from itertools import pairwise

VOID = {"meta", "img", "input", "br", "path", "use", "rect", "image"}
# Texts that would be obeyed where they are not escaped.
HOSTILE = [
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "</style></details></table></section></li></ol><h1>mine</h1>",
    "\u202egnp.exe \x00\x1b[31m\x85 \ud800 end",
    "&lt;b&gt; &amp; \"quoted\" 'single' `back`",
    "$title ${scores} $$ %s {0} \\N{X} $\\frac$",
    "שלום עולם (with English) 123",
    "one\r\ntwo\rthree\u2028four",
    "x" * 50_000,
    "a" + "\u0301" * 400 + "b",
    '"><svg onload=alert(1)>fstat-figure-',
    "",
]
LOADING = {"script", "link", "iframe", "object", "embed", "base", "form"}


class Page(HTMLParser):
    """Elements with their attributes; text of the whole, of sections and of cards."""

    def __init__(self, text):
        super().__init__()
        self.source, self.elements, self.open = text, [], []
        self.text, self.cards, self.sections, self._heading = "", [], {}, ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self.open.append((tag, attributes))
        if tag == "h2":
            self._heading = ""
        if self._in_card() and tag == "li":
            self.cards.append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop()[0] == tag
        if tag == "h2":
            self.sections[self._heading] = ""
        if tag == "section":
            self._heading = ""

    def handle_data(self, data):
        tags = [tag for tag, _ in self.open]
        if {"style", "title"} & set(tags):
            return
        self.text += data
        if "h2" in tags:
            self._heading += data
        elif self._heading:
            self.sections[self._heading] += " " + data
        if self._in_card():
            self.cards[-1] += " " + data

    def _in_card(self):
        lists = [attributes for tag, attributes in self.open if tag == "ol"]
        return bool(lists) and "li" in [tag for tag, _ in self.open]

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def said(self, heading=None):
        """Return the words of a section, or of the whole."""
        return plain(self.text if heading is None else self.sections[heading])


def plain(text):
    return re.sub(r"\s+", " ", text).replace("\N{MINUS SIGN}", "-")


def check_page(page):
    """Check what every page owes: it is whole, loads nothing and can be read aloud."""
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert page.all("html")[0]["lang"] == "en"
    assert not LOADING & {tag for tag, _ in page.elements}
    assert not re.search("@import|javascript:", page.source)
    assert set(re.findall(r"url\(([^)]?)", page.source)) <= {"#"}
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("src", "data:image/").startswith("data:image/")
        href = attributes.get("href", attributes.get("xlink:href", "#"))
        if href.startswith("#"):
            assert href == "#" or href[1:] in ids
        else:
            assert tag == "a" or href.startswith("data:")
            assert not href.startswith(("http", "//"))
    assert all(picture["alt"].strip() for picture in page.all("img"))
    for drawing in page.all("svg"):
        assert drawing["role"] == "img" and drawing["aria-label"].strip()
    assert all("scope" in cell for cell in page.all("th"))
    # Black would be unreadable on dark paper; each ink is there for light and dark.
    assert "#000000" not in page.source
    for name in set(re.findall(r"var\(--(\w+)\)", page.source)):
        assert page.source.count(f"--{name}: #") == 2
