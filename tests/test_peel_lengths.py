"""peel-lengths: bit for bit what dynamic_rnn computes, with a plain cell left in the Scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hintc.graphdef import lift, lower
from hintc.ir import SCAN, Module, Scan
from hintc.remark import PassReport
from hintc_passes.peel_lengths import PeelLengths
from hintc_passes.raise_loops import RaiseLoops
from recurrences import DEPTH, Array, dynamic_rnn_model, run_graph_def

LENGTHS = [[5, 3, 0], [2, 1, -4], [9, 5, 1], [0, 0, 0]]


def peeled(graph_def: Any) -> tuple[Module, PassReport]:
    module = lift(graph_def)
    assert RaiseLoops().run(module).changed
    return module, PeelLengths().run(module)


def feeds(lengths: list[int]) -> dict[str, Array]:
    x = np.random.default_rng(0).standard_normal((5, len(lengths), DEPTH)).astype(np.float32)
    return {"x": x, "lengths": np.array(lengths, np.int32)}


@pytest.mark.parametrize("cells", [1, 2])
def test_outputs_and_final_output_state(cells: int) -> None:
    graph_def, names = dynamic_rnn_model(cells=cells)
    module, report = peeled(graph_def)
    assert report.counts == {"peeled": 1}
    scan = next(Scan.of(node) for node in module.graph if node.op == SCAN)
    assert not any(n.op.startswith("Select") for n in scan.body_function(module).graph)
    lowered = lower(module)
    for lengths in LENGTHS:
        before, after = (run_graph_def(g, feeds(lengths), names) for g in (graph_def, lowered))
        for one, other in zip(before, after, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
            assert (np.asarray(one) == 0).tolist() == (np.asarray(other) == 0).tolist()


def test_the_final_cell_state_is_a_reason_to_refuse() -> None:
    graph_def, names = dynamic_rnn_model(final_cell_state=True)
    module, report = peeled(graph_def)
    assert not report.changed
    assert [r.code for r in report.remarks] == ["lengths-final-state"]
    assert "reads the final value of state 0" in report.remarks[0].reason
    before, after = (run_graph_def(g, feeds([4, 0, 7]), names) for g in (graph_def, lower(module)))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_nothing_to_peel() -> None:
    graph_def, _ = dynamic_rnn_model(lengths=False)
    _, report = peeled(graph_def)
    assert not report.changed
    assert not report.remarks
