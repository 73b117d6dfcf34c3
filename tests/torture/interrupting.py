"""KeyboardInterrupt at a chosen line of some code."""

import sys


class Interrupting:
    """Raises KeyboardInterrupt at one line of some code of the library, counted."""

    def __init__(self, at, counts):
        self._left, self._counts, self.done = at, counts, False

    def __call__(self, frame, event, _):
        return self._line if self._counts(frame.f_code) else None

    def __enter__(self):
        sys.settrace(self)

    def __exit__(self, kind, error, where):
        sys.settrace(None)
        return kind is KeyboardInterrupt

    def _line(self, frame, event, _):
        if event == "line" and not self.done:
            self._left -= 1
            if self._left < 0:
                self.done = True
                raise KeyboardInterrupt
        return self._line
