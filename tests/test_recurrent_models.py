"""Random recurrent models: right, and fused or refused with a reason; `make hunt` runs more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model_check import check
from recurrent_fronts import build
from recurrent_models import Cell, Group, Recipe, Walk, check_seed, recipe

SEEDS = range(1000, 1040)
WRONG = ("wrong", "illegal", "too much")


@pytest.mark.parametrize("seed", SEEDS)
def test_model(seed: int) -> None:
    model, outcome = recipe(seed), check_seed(seed)
    assert outcome.status not in WRONG, (str(model), outcome)
    assert outcome.status == ("fused" if model.kernels else "refused"), (str(model), outcome)


def test_recipes_are_reproducible_and_differ() -> None:
    texts = [str(recipe(seed)) for seed in range(200)]
    assert texts == [str(recipe(seed)) for seed in range(200)]
    assert len(set(texts)) == len(texts)


LSTM = Group((Cell("lstm", 4, {"order": "ifgo", "packing": "two"}),))
NESTED = Group((Cell("lstm", 3, {"order": "ifgo", "packing": "two"}),))
PLAIN = Recipe(
    seed=1,
    front="while",
    control_flow=2,
    groups=(LSTM,),
    time_major=True,
    lengths=False,
    dynamic_batch=True,
    dynamic_time=False,
    read=("sequence",),
    beside="nothing",
)
FOUND: dict[str, Recipe] = {
    "tf.scan that gives its state as output": replace(PLAIN, front="scan"),
    "tf.scan whose outputs start other than its state": replace(
        PLAIN, front="scan", groups=(replace(LSTM, initial="computed"),), read=("last",)
    ),
    "a range of autograph, whose step is captured": replace(PLAIN, front="autograph"),
    "lengths by where() of TensorFlow 2": replace(
        PLAIN, lengths=True, read=("sequence", "h"), control_flow=1
    ),
    "static_rnn with lengths": replace(
        PLAIN, front="v1 static", groups=(Group((Cell("lstm", 4),)),), lengths=True
    ),
    "hints in conditions of control flow 1": replace(
        PLAIN,
        front="hinted static",
        control_flow=1,
        groups=(Group((Cell("rnn", 4), Cell("lstm", 4, {"num_proj": 3}))),),
        lengths=True,
        read=("sequence", "h"),
    ),
    "hints in conditions of control flow 2": replace(
        PLAIN,
        front="hinted static",
        groups=(Group((Cell("lstm", 4),), "both"),),
        lengths=True,
        read=("sequence", "h"),
    ),
    "gates that share a dropout mask": replace(
        PLAIN,
        front="keras 2",
        groups=(Group((Cell("lstm", 4, {"dropout": 0.2, "implementation": 1}),)),),
        time_major=False,
    ),
    "tf.scan of which the last c is read": replace(PLAIN, front="scan", read=("c",)),
    "a GRU in unrolled steps, behind an LSTM": replace(
        PLAIN, front="v1 static", groups=(Group((Cell("lstm", 4), Cell("gru", 4))),)
    ),
    "unrolled steps that start from a slice of their input": replace(
        PLAIN,
        front="v1 static",
        groups=(Group((Cell("lstm", 4),), direction="backward", initial="computed"),),
    ),
    "unrolled peepholes of a constant zero state": replace(
        PLAIN,
        front="v1 static",
        groups=(Group((Cell("lstm", 4, {"use_peepholes": True}),)),),
        dynamic_batch=False,
    ),
    "an array of constant size, filled from a dynamic tensor": replace(
        PLAIN, front="scan", control_flow=1, beside="shared", groups=(LSTM,)
    ),
    "a size that is an element of a constant": replace(
        PLAIN, control_flow=1, dynamic_batch=False, groups=(LSTM,)
    ),
    "weights that a loop hands to a loop inside": replace(
        PLAIN, front="scan", control_flow=1, beside="nested", groups=(NESTED,)
    ),
    "a loop in a loop, of dynamic_rnn": replace(
        PLAIN, front="v1 dynamic", beside="nested", groups=(Group((Cell("lstm", 3),)),)
    ),
    "lengths by tf.where": replace(PLAIN, lengths=True, read=("sequence", "h")),
    "a loop over what a loop has written from the end": replace(
        PLAIN,
        groups=(
            replace(LSTM, walk=Walk("down", "slice", literal=True, turn="write")),
            replace(LSTM, initial="other", walk=Walk()),
        ),
    ),
    "lengths in a loop that counts down and reads forward": replace(
        PLAIN,
        front="autograph",
        groups=(replace(LSTM, walk=Walk("down", "slice")),),
        time_major=False,
        lengths=True,
    ),
    "a reversed tf.scan of which the last c is read": replace(
        PLAIN,
        front="scan",
        groups=(replace(LSTM, direction="backward", initial="computed", walk=Walk()),),
        read=("sequence", "c"),
        dynamic_time=True,
    ),
    "steps unrolled under the mask of a dropout": replace(
        PLAIN,
        front="keras 2",
        groups=(Group((Cell("lstm", 4, {"dropout": 0.2, "unroll": True}),)),),
        time_major=False,
    ),
    "lengths, and only h is read": replace(
        PLAIN, front="v1 dynamic", groups=(Group((Cell("lstm", 4),)),), lengths=True, read=("h",)
    ),
    "a residual around static_rnn with lengths": replace(
        PLAIN,
        front="v1 static",
        groups=(Group((Cell("lstm", 3, wrapper="residual"),)),),
        lengths=True,
    ),
    "a residual around dynamic_rnn with lengths": replace(
        PLAIN,
        front="v1 dynamic",
        groups=(Group((Cell("lstm", 3, wrapper="residual"),)),),
        lengths=True,
    ),
}
"""What `make hunt` found once; all of it fuses now."""


@pytest.mark.parametrize("name", FOUND)
def test_found(name: str) -> None:
    outcome = check(build(FOUND[name]))
    assert outcome.status == "fused", outcome
