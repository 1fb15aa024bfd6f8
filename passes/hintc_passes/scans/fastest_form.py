"""Which form of a Scan is the fastest on a CPU, by `form_cost`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hintc.graphdef.scan_lowering import known_trip_count
from hintc.ir import Module, Node, Scan
from hintc_passes.scans.form_cost import (
    ASSUMED_STEPS,
    FormName,
    Precision,
    Work,
    nanoseconds,
    tiles,
    work_of,
)


@dataclass(frozen=True)
class Estimate:
    """The fastest form.

    Attributes:
        form: its name.
        tile: with "while", steps of one iteration.
        reason: why, for the remark.
    """

    form: FormName
    tile: int
    reason: str


def fastest_form(
    module: Module,
    node: Node,
    *,
    precision: Precision,
    max_trip: int,
    fusable: bool,
    recurrences: int,
) -> Estimate:
    """The form of a Scan with the lowest estimate.

    Args:
        module: has the step function.
        node: the Scan.
        precision: that the model will have.
        max_trip: Scans of more steps than this are not unrolled.
        fusable: the fused op is among the forms.
        recurrences: how many Scans the model has.
    """
    work, has_batch = work_of(module, node)
    work = replace(work, recurrences=recurrences)
    steps = known_trip_count(Scan.of(node))
    forms: list[tuple[FormName, int]] = [("while", tile) for tile in tiles(steps)]
    if fusable:
        forms.insert(0, ("fused", 1))
    if steps is not None and 1 <= steps <= max_trip:
        forms.append(("unroll", 1))
    times = {(form, tile): nanoseconds(work, form, precision, tile) for form, tile in forms}
    form, tile = min(times, key=lambda key: times[key])
    if fusable and form == "fused":
        others = min(time for (name, _), time in times.items() if name != "fused")
        found = (
            f"the next form would take an estimated {others / times['fused', 1]:.2f} of its time"
        )
    elif fusable:
        found = (
            f"an estimated {times[form, tile] / times['fused', 1]:.2f} of the fused kernel's time"
        )
    else:
        plain = times["while", 1]
        found = f"an estimated {times[form, tile] / plain:.2f} of a loop of single steps"
    return Estimate(form, tile, f"{found} ({_premises(work, steps, has_batch)})")


def _premises(work: Work, steps: int | None, has_batch: bool) -> str:
    known = f"batch {work.batch}" if has_batch else "unknown batch, 1 assumed"
    return known if steps is not None else f"{known}; unknown steps, {ASSUMED_STEPS} assumed"
