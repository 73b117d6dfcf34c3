"""KeyboardInterrupt at a chosen line of some code."""

import sys


class Interrupting:
    """Raises KeyboardInterrupt at one line of some code of the library, counted.

    Where `at` is None it only counts, and `seen` is how many lines there were.
    """

    def __init__(self, at, counts):
        self._at, self._counts, self.seen, self.done = at, counts, 0, False

    def __call__(self, frame, event, _):
        return self._line if self._counts(frame.f_code) else None

    def __enter__(self):
        sys.settrace(self)
        return self

    def __exit__(self, kind, error, where):
        sys.settrace(None)
        return kind is KeyboardInterrupt

    def _line(self, frame, event, _):
        if event == "line" and not self.done:
            if self.seen == self._at:
                self.done = True
                raise KeyboardInterrupt
            self.seen += 1
        return self._line
