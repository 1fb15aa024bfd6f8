"""Random recurrent models: right, and fused or refused with a reason; `make hunt` runs more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model_check import check
from recurrent_fronts import build
from recurrent_models import Cell, Group, Recipe, check_seed, recipe

SEEDS = range(1000, 1040)
WANTED = 0.95


@pytest.mark.parametrize("seed", SEEDS)
def test_model(seed: int) -> None:
    outcome = check_seed(seed)
    assert outcome.good, (str(recipe(seed)), outcome)


def test_recipes_are_reproducible_and_differ() -> None:
    texts = [str(recipe(seed)) for seed in range(200)]
    assert texts == [str(recipe(seed)) for seed in range(200)]
    assert len(set(texts)) == len(texts)


LSTM = Group((Cell("lstm", 4, {"order": "ifgo", "packing": "two"}),))
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
    "a range of autograph, whose step is captured": replace(PLAIN, front="autograph"),
}
"""What `make hunt` found once; all of it fuses now."""


@pytest.mark.parametrize("name", FOUND)
def test_found(name: str) -> None:
    outcome = check(build(FOUND[name]))
    assert outcome.status == "fused", outcome
