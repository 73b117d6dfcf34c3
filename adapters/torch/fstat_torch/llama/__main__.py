"""Command line of the Llama path."""

from __future__ import annotations

import sys

from .command import main as score


def main(arguments: list[str] | None = None) -> None:
    """Run the command ``score``, which may be left out.

    Parameters
    ----------
    arguments : list of str, optional
        Command line; that of the process by default.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    score(words[1:] if words[:1] == ["score"] else words)


if __name__ == "__main__":
    main()
