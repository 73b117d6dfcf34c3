"""Warnings of a selection, each class beside its message."""

from __future__ import annotations

from typing import Self


class SelectionWarning(UserWarning):
    """A selection promises less than it may seem to."""


class NothingSelectedWarning(SelectionWarning):
    """No pair was selected; the message says why and what would change it."""

    @classmethod
    def of(cls, fdr: float, least: float, reasons: list[str]) -> Self:
        """Return the warning that the least q-value exceeds the rate."""
        said = [
            f"Nothing is selected at fdr={fdr:g}: the least q-value is {least:.3g}."
        ]
        return cls(" ".join(said + reasons))

    @classmethod
    def untested(cls, n_pairs: int) -> Self:
        """Return the warning that there was nothing to test."""
        return cls(
            f"Nothing is selected: none of the {n_pairs} pairs is a candidate with a "
            "score."
        )


class MostSelectedWarning(SelectionWarning):
    """More than half of the tested pairs were selected."""

    @classmethod
    def of(cls, selected: int, tested: int, null: str) -> Self:
        """Return the warning, with what it may mean for this null."""
        meaning = {
            "theoretical": (
                "That most mu differ from 0 does not say that they matter; "
                "`stronger_than` asks for more than that."
            ),
            "reference": (
                "Either most candidates are unlike good ones, or the references are: "
                "the rate holds for references that are a random sample of the good "
                "pairs, not the easier part of them."
            ),
            "empirical": "An empirical null takes most pairs to be null.",
        }
        return cls(
            f"{selected} of {tested} tested pairs are selected, more than half. "
            f"{meaning[null]}"
        )


class ReferenceWarning(SelectionWarning):
    """The references are too few, or their scores are unlike those of the others."""

    @classmethod
    def too_few(cls, held: int, needed: int, fdr: float, where: str) -> Self:
        """Return the warning that so few references can select nothing."""
        return cls(
            f"`reference` holds {held} pairs{where}; nothing can be selected at "
            f"fdr={fdr:g} with fewer than {needed}."
        )

    @classmethod
    def all_or_most(
        cls, held: int, least: int, tested: int, needed: int, where: str
    ) -> Self:
        """Return the warning that only a selection of most pairs is possible."""
        return cls(
            f"`reference` holds {held} pairs{where}, so that at least {least} of "
            f"{tested} pairs can be selected together or none; {needed} references "
            "would allow a tenth of the pairs."
        )

    @classmethod
    def unlike(cls, pvalue: float, level: float, where: str) -> Self:
        """Return the warning that the references are no sample of the bulk."""
        return cls(
            f"The references' scores are unlike the bulk of the other scores{where} "
            f"(Kolmogorov-Smirnov p = {pvalue:.1g}, tested at {level:g}). The rate "
            "holds for references that are a random sample of the good pairs, trained "
            "on like the others; with references from the easier part of them it does "
            "not."
        )


class SnapshotWarning(SelectionWarning):
    """The sampling error is that of snapshots of one run, which is too small."""

    @classmethod
    def of(cls, quantity: str) -> Self:
        """Return the warning for this quantity."""
        return cls(
            f"The error of mu is over snapshots of one run ({quantity}), which are too "
            "alike: p-values are too small and the rate is not promised. Give "
            "`select` a `reference`, examples known to be good, or mu of retrained "
            "models; or read mu as a ranking."
        )


class UndecidedWarning(SelectionWarning):
    """Some pairs have an estimate and no p-value."""

    @classmethod
    def of(cls, n: int) -> Self:
        """Return the warning with the number of pairs."""
        return cls(
            f"{n} pairs have a mu and no p-value; they count among the tested with a "
            "p-value of 1."
        )


class EmpiricalNullWarning(SelectionWarning):
    """The estimates of the empirical null speak against its assumptions."""

    @classmethod
    def of(cls, complaints: list[str]) -> Self:
        """Return the warning with what was found."""
        return cls(f"The empirical null is doubtful: {'; '.join(complaints)}.")
