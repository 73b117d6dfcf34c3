"""What every Display shares: colours, looks, scales, new axes and one diagonal."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import ndtri

from .._validation import FloatArray, confidence, numeric, shown, string

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

HELPS, HARMS, UNCLEAR = "#2166ac", "#b2182b", "#8a8a8a"
_TICKS = np.array([0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999])
_DIAGONAL = "fstat: no influence"
_COLOURS = {"c", "color", "facecolor"}


class Display:
    """A picture of computed data; its repr says what was given."""

    def __repr__(self) -> str:
        names = inspect.signature(type(self).__init__).parameters
        given = ((name, getattr(self, name)) for name in list(names)[1:])
        parts = [f"{name}={_short(v)}" for name, v in given if v is not None]
        return f"{type(self).__name__}({', '.join(parts)})"


class Inks(NamedTuple):
    """Colours that can be seen on axes, light or dark."""

    line: str
    ground: Any
    helps: str
    harms: str
    unclear: str


def inks(ax: Axes) -> Inks:
    """Return the colours for these axes."""
    from matplotlib.colors import to_rgb

    ground = ax.get_facecolor()
    if len(ground) > 3 and ground[3] == 0:
        ground = ax.figure.get_facecolor()
    if np.dot(to_rgb(ground), (0.299, 0.587, 0.114)) < 0.5:
        return Inks("white", ground, "#67a9cf", "#f4816b", "#a0a0a0")
    return Inks("black", ground, HELPS, HARMS, UNCLEAR)


def line_looks(given: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """Return the looks of a line: what was given under any name goes before."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    return defaults | normalize_kwargs(given, Line2D)


def point_looks(given: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """Return the looks of scattered points, for each the name that scatter uses."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.collections import PathCollection

    aliases = {"facecolors": "facecolor", "fc": "facecolor"}
    looks = normalize_kwargs(
        {aliases.get(k, k): v for k, v in given.items()}, PathCollection
    )
    if "sizes" in looks:
        looks["s"] = looks.pop("sizes")
    if _COLOURS & looks.keys():
        defaults = {k: v for k, v in defaults.items() if k != "c"}
        if "facecolor" not in looks:
            defaults.pop("edgecolor", None)
    return defaults | looks


def new_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Return the given axes, or those of a new figure."""
    if ax is None:
        import matplotlib.pyplot as plt

        return plt.subplots(figsize=size, layout="constrained")[1]
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise ValueError(f"`ax` must be matplotlib axes, got {shown(ax)}.")
    return ax


def diagonal(ax: Axes, x: Any, y: Any) -> Line2D:
    """Return the line of no influence, drawn once however many curves there are."""
    for line in ax.lines:
        if line.get_gid() == _DIAGONAL:
            return line
    (line,) = ax.plot(
        x, y, ":", color=inks(ax).unclear, lw=1.2, gid=_DIAGONAL, label="_diagonal"
    )
    return line


def errors_on_probit_axes(ax: Axes, end: float) -> None:
    """Scale both axes for errors from `end` to ``1 - end``, drawn as their probits."""
    limit = -float(ndtri(end))
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(ndtri(_TICKS), [f"{tick:g}" for tick in _TICKS])
    ax.tick_params(axis="x", labelrotation=45)


def columns(**given: Any) -> list[FloatArray]:
    """Return what is drawn of each pair: 1-D arrays of one length."""
    arrays = [numeric(values, name) for name, values in given.items()]
    for name, array in zip(given, arrays, strict=True):
        if array.shape != arrays[0].shape or array.ndim != 1:
            raise ValueError(
                f"`{name}` must hold one number for each pair, got shape {array.shape}"
                f" and {arrays[0].shape} for `{next(iter(given))}`."
            )
    return arrays


def words(value: object, name: str) -> str:
    """Return what is written beside a picture, nothing for None."""
    return "" if value is None else string(value, name)


def percent(level: float) -> str:
    """Return a confidence level as it is written."""
    return f"{100 * confidence(level, 'confidence_level'):g}"


def _short(value: Any) -> str:
    if _is_long(value):
        return f"<{len(value)} values>"
    if isinstance(value, tuple) and any(map(_is_long, value)):
        return f"{type(value).__name__}(...)"
    if isinstance(value, float):
        return f"{value:.4g}"
    return shown(value)


def _is_long(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return bool(value.ndim)
    return isinstance(value, list | range)
