"""Command line of the Llama path."""

from __future__ import annotations

import sys
from importlib import import_module

# Each has a `main` that takes the rest of the command line.
_COMMANDS = {"cost": "cost", "score": "command"}


def main(arguments: list[str] | None = None) -> None:
    """Run the command that the first word names; ``score`` where it names none.

    Parameters
    ----------
    arguments : list of str, optional
        Command line; that of the process by default.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words.pop(0) if words and words[0] in _COMMANDS else "score"
    import_module(f"{__package__}.{_COMMANDS[name]}").main(words)


if __name__ == "__main__":
    main()
