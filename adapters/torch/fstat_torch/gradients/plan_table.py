"""How each layer's inner products are formed, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isnan
from typing import TYPE_CHECKING, NamedTuple, overload

from .plan import VECTORISED

if TYPE_CHECKING:
    import pandas

    from .plan import Plan, Unit


class LayerRoute(NamedTuple):
    """How the inner products of one layer's gradients are formed.

    Parameters
    ----------
    layer : str
        Name of the module, ``""`` for the model itself.
    parameters : tuple of str
        Names in the model of the parameters that are compared.
    rule : str
        Rule of the layer; ``"module"`` for one that is run again by example,
        ``"attention"`` for one that is run again as a batch.
    size : int
        Number of scalars in those parameters.
    route : str
        ``"factored"``: products of inputs and of output gradients, for one place of
        use; ``"ghost"``: the same, over pairs of places; ``"formed"``: per-example
        gradients; ``"formed in slices"``: those, a part of the weight at a time;
        ``"rows looked up"``: of a table. ``"not seen yet"`` before the first pass.
    flops : float
        Operations of the Gram matrix of the first batch, multiplications and
        additions, beside the training itself. NaN before the first pass.
    bytes : float
        What is held between the backward pass and the products; factors are the
        model's own tensors. NaN before the first pass.
    """

    layer: str
    parameters: tuple[str, ...]
    rule: str
    size: int
    route: str
    flops: float
    bytes: float


class PlanTable(Sequence[LayerRoute]):
    """Routes of all layers: a sequence that prints as a table.

    Parameters
    ----------
    rows : sequence of LayerRoute
        One a layer.
    """

    def __init__(self, rows: Sequence[LayerRoute]):
        self._rows = tuple(rows)

    @classmethod
    def of(cls, plan: Plan) -> PlanTable:
        """Tabulate a plan, with what was seen of it so far."""
        return cls([_row(plan, unit) for unit in plan.units])

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, key: int) -> LayerRoute: ...
    @overload
    def __getitem__(self, key: slice) -> PlanTable: ...
    def __getitem__(self, key: int | slice) -> LayerRoute | PlanTable:
        if isinstance(key, slice):
            return PlanTable(self._rows[key])
        return self._rows[key]

    def __iter__(self) -> Iterator[LayerRoute]:
        return iter(self._rows)

    def __repr__(self) -> str:
        head = ("layer", "parameters", "rule", "size", "route", "flops", "bytes")
        lines = [head, *(_words(row) for row in self._rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        numbers = {3, 5, 6}
        return "\n".join(
            "  ".join(
                word.rjust(width) if k in numbers else word.ljust(width)
                for k, (word, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def to_frame(self) -> pandas.DataFrame:
        """Return the table as a data frame.

        Returns
        -------
        pandas.DataFrame
            One row a layer, one column a field of `LayerRoute`.
        """
        import pandas

        return pandas.DataFrame(list(self._rows), columns=list(LayerRoute._fields))


def _row(plan: Plan, unit: Unit) -> LayerRoute:
    names = tuple(unit.names.values())
    size = sum(p.numel() for p in unit.parameters.values())
    keys = [f"parameter {name}" for name in names] if unit.tied else [unit.key]
    costs = [cost for key, cost in plan.costs.items() if key.partition(": ")[0] in keys]
    route, nan = "not seen yet", float("nan")
    if not costs:
        return LayerRoute(unit.name, names, unit.rule, size, route, nan, nan)
    route = costs[0][0]
    if unit.runs_again:
        way = "" if unit.way in (None, VECTORISED) else f" {unit.way}"
        route = f"run again{way}, {route}"
    flops, held = sum(cost[1] for cost in costs), sum(cost[2] for cost in costs)
    return LayerRoute(unit.name, names, unit.rule, size, route, flops, held)


def _words(row: LayerRoute) -> tuple[str, ...]:
    local = ", ".join(name.removeprefix(f"{row.layer}.") for name in row.parameters)
    return (
        row.layer or "(model)",
        local,
        row.rule,
        f"{row.size:,}",
        row.route,
        *("-" if isnan(x) else f"{x:.2g}" for x in (row.flops, row.bytes)),
    )
