"""The table of Keras models without hints: what each becomes. Run it to print docs/keras-models.md.

`tests/test_keras_models.py` converts every row, by Keras 2 and 3, and compares.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

STEPS, DEPTH, UNITS, WORDS = 5, 3, 4, 11
TOLERANCE = 1e-5
SEQUENCE = {"return_sequences": True}
NAMES = {
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "LSTM",
    "UNIDIRECTIONAL_SEQUENCE_RNN": "RNN",
    "BIDIRECTIONAL_SEQUENCE_LSTM": "bidirectional LSTM",
    "BIDIRECTIONAL_SEQUENCE_RNN": "bidirectional RNN",
    "WHILE": "loop",
}
"""The operators that the table counts, and their names in the page."""
LSTM, RNN, BOTH_LSTM, BOTH_RNN, WHILE = NAMES

Make = Callable[[Any], Any]


@dataclass(frozen=True)
class Case:
    """A model, and what it shall become.

    Attributes:
        make: gets the module ``layers`` of a Keras and gives what is called on the inputs.
        counts: fused operators and loops.
        keras_3: the same for Keras 3, where it differs.
        code: of the remark that says why something is not fused, "" if all is.
        inputs: their shapes without the batch, which is dynamic; None: a dynamic dimension.
        dtype: of the inputs; int32: words.
    """

    make: Make
    counts: Mapping[str, int]
    code: str = ""
    keras_3: Mapping[str, int] | None = None
    inputs: tuple[tuple[int | None, ...], ...] = ((STEPS, DEPTH),)
    dtype: str = "float32"

    def expected(self, version: int) -> Mapping[str, int]:
        """Operators of the model made by that version of Keras."""
        return self.keras_3 if version == 3 and self.keras_3 is not None else self.counts


def chain(*makes: Make) -> Make:
    """Layers one after the other."""

    def build(layers: Any) -> Any:
        made = [make(layers) for make in makes]

        def call(value: Any) -> Any:
            for layer in made:
                value = layer(value)
            return value

        return call

    return build


def lstm(**options: Any) -> Make:
    return lambda layers: layers.LSTM(UNITS, **options)


def gru(**options: Any) -> Make:
    return lambda layers: layers.GRU(UNITS, **options)


def simple_rnn(**options: Any) -> Make:
    return lambda layers: layers.SimpleRNN(UNITS, **options)


def rnn(*cells: str, **options: Any) -> Make:
    """``RNN`` around cells of these classes, of 4, 5, … units."""

    def build(layers: Any) -> Any:
        made = [getattr(layers, cell)(UNITS + at) for at, cell in enumerate(cells)]
        return layers.RNN(made if len(made) > 1 else made[0], **options)

    return build


def stacked_cells(layers: Any) -> Any:
    cells = layers.StackedRNNCells([layers.LSTMCell(UNITS), layers.LSTMCell(UNITS)])
    return layers.RNN(cells, return_sequences=True)


def both_ways(make: Make, **options: Any) -> Make:
    return lambda layers: layers.Bidirectional(make(layers), **options)


def distributed(make: Make) -> Make:
    return lambda layers: layers.TimeDistributed(make(layers))


def encoder_decoder(layers: Any) -> Any:
    encode = layers.LSTM(UNITS, return_state=True)
    decode = layers.LSTM(UNITS, return_sequences=True)
    return lambda source, target: decode(target, initial_state=encode(source)[1:])


def masking(layers: Any) -> Any:
    return layers.Masking()


def embedding(**options: Any) -> Make:
    return lambda layers: layers.Embedding(WORDS, DEPTH, **options)


_ANY_TIME = ((None, DEPTH),)
_TEXT: dict[str, Any] = {"inputs": ((STEPS,),), "dtype": "int32"}
_ONE, _TWO = {LSTM: 1}, {LSTM: 2}
_LOOP = {WHILE: 1}
_PAIR = {BOTH_LSTM: 1}

CASES: dict[str, Case] = {
    "LSTM": Case(lstm(), _ONE),
    "LSTM, whole sequence": Case(lstm(**SEQUENCE), _ONE),
    "LSTM, dynamic time": Case(lstm(), _ONE, inputs=_ANY_TIME),
    "LSTM, whole sequence, dynamic time": Case(lstm(**SEQUENCE), _ONE, inputs=_ANY_TIME),
    "LSTM, `use_bias=False`": Case(lstm(use_bias=False), _ONE),
    "LSTM, `activation='relu'`": Case(lstm(activation="relu"), _ONE),
    "LSTM, `go_backwards=True`": Case(lstm(go_backwards=True, **SEQUENCE), _ONE),
    "LSTM, h and c used": Case(lstm(return_state=True), _ONE),
    "LSTM, whole sequence, h and c used": Case(lstm(return_state=True, **SEQUENCE), _ONE),
    "LSTM, dropout": Case(lstm(dropout=0.3), _ONE),
    "LSTM, recurrent dropout": Case(lstm(dropout=0.2, recurrent_dropout=0.3), _ONE),
    "LSTM, Dropout, LSTM": Case(chain(lstm(**SEQUENCE), lambda k: k.Dropout(0.5), lstm()), _TWO),
    "LSTM, `unroll=True`": Case(lstm(unroll=True), _ONE),
    "LSTM, hard sigmoid": Case(lstm(recurrent_activation="hard_sigmoid"), _LOOP, "gate-activation"),
    "LSTM, relu gates": Case(lstm(recurrent_activation="relu"), _LOOP, "gate-activation"),
    "LSTM, linear activation": Case(lstm(activation="linear"), _LOOP, "cell-activation"),
    "stacked LSTMs": Case(chain(lstm(**SEQUENCE), lstm()), _TWO),
    "encoder and decoder, `initial_state`": Case(
        encoder_decoder, _TWO, inputs=((STEPS, DEPTH), (STEPS + 1, 2))
    ),
    "Bidirectional LSTM, concat": Case(both_ways(lstm()), _PAIR),
    "Bidirectional LSTM, concat, whole sequence": Case(both_ways(lstm(**SEQUENCE)), _PAIR),
    "Bidirectional LSTM, sum": Case(both_ways(lstm(**SEQUENCE), merge_mode="sum"), _PAIR),
    "Bidirectional LSTM, mul": Case(both_ways(lstm(**SEQUENCE), merge_mode="mul"), _PAIR),
    "Bidirectional LSTM, ave": Case(both_ways(lstm(), merge_mode="ave"), _PAIR),
    "Bidirectional LSTM, not merged": Case(both_ways(lstm(**SEQUENCE), merge_mode=None), _PAIR),
    "Bidirectional LSTM, dynamic time": Case(both_ways(lstm(**SEQUENCE)), _PAIR, inputs=_ANY_TIME),
    "Bidirectional LSTM, recurrent dropout": Case(
        both_ways(lstm(dropout=0.2, recurrent_dropout=0.2)), _PAIR
    ),
    "RNN of an LSTMCell": Case(rnn("LSTMCell"), _ONE),
    "RNN of two LSTMCells": Case(rnn("LSTMCell", "LSTMCell"), _TWO),
    "RNN of StackedRNNCells": Case(stacked_cells, _TWO),
    "RNN of an LSTMCell and a GRUCell": Case(
        rnn("LSTMCell", "GRUCell", **SEQUENCE), {LSTM: 1, WHILE: 1}, "gru"
    ),
    "Embedding, LSTM": Case(chain(embedding(), lstm()), _ONE, **_TEXT),
    "Embedding with a mask, LSTM": Case(
        chain(embedding(mask_zero=True), lstm()), _LOOP, "masked", **_TEXT
    ),
    "Conv1D, BatchNormalization, LSTM": Case(
        chain(lambda k: k.Conv1D(4, 2), lambda k: k.BatchNormalization(), lstm()), _ONE
    ),
    "TimeDistributed Dense, LSTM, TimeDistributed Dense": Case(
        chain(
            distributed(lambda k: k.Dense(4)),
            lstm(**SEQUENCE),
            distributed(lambda k: k.Dense(2)),
        ),
        _ONE,
    ),
    "TimeDistributed LSTM": Case(
        distributed(lstm()), _ONE, keras_3=_TWO, inputs=((2, STEPS, DEPTH),)
    ),
    "Masking, LSTM": Case(chain(masking, lstm()), _LOOP, "masked"),
    "Masking, LSTM, whole sequence": Case(chain(masking, lstm(**SEQUENCE)), _LOOP, "masked"),
    "Masking, Bidirectional LSTM": Case(chain(masking, both_ways(lstm())), {WHILE: 2}, "masked"),
    "SimpleRNN": Case(simple_rnn(), {RNN: 1}),
    "SimpleRNN, dynamic time": Case(simple_rnn(), {RNN: 1}, inputs=_ANY_TIME),
    "SimpleRNN, `use_bias=False`": Case(simple_rnn(use_bias=False), {RNN: 1}),
    "SimpleRNN, `activation='relu'`": Case(simple_rnn(activation="relu"), {RNN: 1}),
    "SimpleRNN, recurrent dropout": Case(simple_rnn(dropout=0.3, recurrent_dropout=0.2), {RNN: 1}),
    "SimpleRNN, `unroll=True`": Case(simple_rnn(unroll=True), {RNN: 1}),
    "SimpleRNN, `activation='elu'`": Case(simple_rnn(activation="elu"), _LOOP, "cell-activation"),
    "Bidirectional SimpleRNN": Case(both_ways(simple_rnn(**SEQUENCE)), {BOTH_RNN: 1}),
    "GRU": Case(gru(), _LOOP, "gru"),
    "GRU, `reset_after=False`": Case(gru(reset_after=False), _LOOP, "gru"),
    "GRU, dynamic time": Case(gru(**SEQUENCE), _LOOP, "gru", inputs=_ANY_TIME),
    "GRU, recurrent dropout": Case(gru(dropout=0.3, recurrent_dropout=0.2), _LOOP, "gru"),
    "GRU, hard sigmoid": Case(gru(recurrent_activation="hard_sigmoid"), _LOOP, "gru"),
    "GRU, `unroll=True`": Case(gru(unroll=True), {}, "gru"),
    "Bidirectional GRU": Case(both_ways(gru(**SEQUENCE)), {WHILE: 2}, "gru"),
    "Masking, GRU": Case(chain(masking, gru()), _LOOP, "masked", keras_3={WHILE: 2}),
    "ConvLSTM1D": Case(
        lambda k: k.ConvLSTM1D(2, 2), _LOOP, "convolution", inputs=((STEPS, 4, DEPTH),)
    ),
    "LSTM, GRU of equal width": Case(chain(lstm(**SEQUENCE), gru()), {LSTM: 1, WHILE: 1}, "gru"),
}


def _text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[op]} {name}" for op, name in NAMES.items() if op in counts)


def _row(name: str, case: Case) -> str:
    becomes = _text(case.counts) or "unrolled"
    if case.keras_3 is not None:
        becomes += f"; Keras 3: {_text(case.keras_3)}"
    return f"| {name} | {becomes} | {f'`{case.code}`' if case.code else ''} |"


def page() -> str:
    """The page docs/keras-models.md."""
    rows = "\n".join(_row(name, case) for name, case in CASES.items())
    return f"""# Keras models

What layers of Keras 2 (`tf_keras`) and Keras 3 become, without hints in the model and with a
dynamic batch. *LSTM*, *RNN* and the bidirectional ones are fused kernels, *loop* is a `WHILE`
without TensorLists. No row needs Flex or a custom operator. Each row is converted in the tests and
equals Keras within {TOLERANCE:g} at two batch sizes, on two invokes each. The last column is the
code of the [remark](remarks.md) that says why something is not fused. `make tables` writes this
page.

| model | becomes | why not fused |
|---|---|---|
{rows}
"""


if __name__ == "__main__":
    sys.stdout.write(page())
