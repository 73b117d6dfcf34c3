"""What goes wrong with the record of a run, and that training goes on without."""

from __future__ import annotations

from fstat import Trace
from fstat._files import UnwrittenError
from fstat._warnings import warn

from ..distributed import Processes, SharedError
from ..gradients import NoBackwardError
from .verification import DisagreementError, Verification
from .warnings import PassedOverWarning, UnwrittenWarning

_UNVERIFIED = (
    "Recorded since gradients were last compared, and dropped when they differed."
)


class Faults:
    """What cannot be recorded is raised or passed over, as `on_error` says.

    Parameters
    ----------
    trace : Trace
        Where steps that are passed over are counted.
    verification : Verification
        Who knows which steps were compared with their gradients.
    processes : Processes or None
        Who shares the batch.
    on_error : {"warn", "detach", "raise"}
        What happens once a first step was recorded.

    Attributes
    ----------
    on_error : str
        As given.
    lost : bool
        Whether a micro-batch of this update was passed over.
    proven : bool
        Whether a step was captured, and compared with its gradient.
    detached : bool
        Whether nothing is watched any more.
    """

    def __init__(
        self,
        trace: Trace,
        verification: Verification,
        processes: Processes | None,
        on_error: str,
    ) -> None:
        self.on_error = on_error
        self._trace, self._verification = trace, verification
        self._processes = processes
        self.lost = self.proven = self.detached = False
        self._failed: Exception | None = None  # why, until all processes know
        self._unwritten = False  # a write failed, and was reported

    @property
    def confer(self) -> bool:
        """Whether several processes tell each other what they could not take.

        Where parameters are sharded they cannot: taking them needs all processes.
        """
        return self._processes is not None and not self._processes.sharded

    def met(self, error: Exception, together: bool = False) -> bool:
        """Pass over a step that could not be recorded, once one was; else raise.

        What goes wrong in the user's own lines is none of this. An error is kept until
        the end of the update, when processes tell each other of theirs.

        Parameters
        ----------
        error : Exception
            What went wrong.
        together : bool, default=False
            Whether all processes were at it, and know of each other's errors.

        Returns
        -------
        bool
            Whether there turned out to be no backward pass.
        """
        self.lost = True
        if self.confer and not together:
            self._failed = self._failed or error
            return False
        # Processes that wait for one another must not part.
        parts = self._processes is not None and not isinstance(error, SharedError)
        if self.on_error == "raise" or not self.proven or parts:
            raise error
        idle = isinstance(error, NoBackwardError)
        self._pass_over(error, idle=idle)
        return idle

    def share(self) -> None:
        """Raise what any process could not take of an update, on all of them."""
        own, self._failed = self._failed, None
        if self._processes is not None and self.confer:
            unverified = isinstance(own, DisagreementError)
            shared = self._processes.failure(own, unverified)
            if shared is not None:
                raise shared if own is None or self.proven else own

    def _pass_over(self, error: Exception, idle: bool) -> None:
        if isinstance(error, DisagreementError) or (
            isinstance(error, SharedError) and error.unverified
        ):
            self._drop_unverified()
        self.detached = self.on_error == "detach" and not idle
        self._say_once(str(error), "A step was not recorded")

    def _drop_unverified(self) -> None:
        """Drop the steps since the last one that was compared with its gradient."""
        recorded = self._trace.n_recorded
        self._trace.rewind(self._verification.last + 1)
        dropped = recorded - self._trace.n_recorded
        for _ in range(dropped):
            self._trace.pass_over(_UNVERIFIED)

    def _say_once(self, cause: str, what: str) -> None:
        """Count a step that was passed over, and warn of the first of each cause."""
        if self._trace.pass_over(cause) > 1:
            return
        ahead = "no further step is watched" if self.detached else "training goes on"
        warn(
            f"{what}, and {ahead}: {cause} Further ones of the same cause are counted "
            "in `trace.passed_over` and not reported.",
            PassedOverWarning,
        )

    def keep_on(self, error: Exception, what: str) -> None:
        """Report an error in what is not a step itself, or raise it.

        Parameters
        ----------
        error : Exception
            What went wrong.
        what : str
            What is said of it, such as "A snapshot was not taken".
        """
        unwritten = isinstance(error, UnwrittenError)
        if self.on_error == "raise" or not (unwritten or self.proven):
            raise error
        if not unwritten:
            self.detached |= self.on_error == "detach"
            self._say_once(str(error), what)
        elif not self._unwritten:
            # What was recorded is kept, and tried again.
            self._unwritten = True
            warn(
                f"{error} Until then what was recorded is kept in memory, training "
                "goes on, and writing is tried again now and then.",
                UnwrittenWarning,
            )
