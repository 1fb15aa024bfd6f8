"""The hinted recurrent cells: variables and attributes as `tf.lite.experimental.nn` had them.

Both are cells in the sense of `tf.compat.v1.nn.rnn_cell`: they work with `hintc.dynamic_rnn`,
`tf.compat.v1.nn.{dynamic_rnn,static_rnn,static_bidirectional_rnn}`, `MultiRNNCell` and tf_keras'
`StackedRNNCells`. Each weight is a variable of its own, shaped [out, in], because that is how the
fused kernels read it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from hintc.authoring.cell_hint import CellHint
from hintc.authoring.hint import Tensor
from hintc.errors import HintcError, HintError, HintRuntimeError

try:
    import tf_keras
    from tf_keras.src.layers.rnn.legacy_cells import LayerRNNCell, LSTMStateTuple
except ImportError as error:
    raise HintcError(
        "the hinted cells need the package tf_keras",
        why=f"Keras 3 has no TF1 recurrent cells; importing tf_keras failed: {error}",
        remedy="pip install hintc[cells]",
    ) from error

Activation = Callable[[Tensor], Tensor]

_GATES = ("input", "forget", "cell", "output")


class _HintedCell(LayerRNNCell):  # type: ignore[misc]
    """What the two cells share: checks, and variables that the hint knows."""

    def __init__(
        self, hint: CellHint, reuse: bool | None, name: str | None, dtype: Any, kwargs: Any
    ) -> None:
        super().__init__(_reuse=reuse, name=name, dtype=dtype, **kwargs)
        self.input_spec = tf_keras.layers.InputSpec(ndim=2)
        self._reuse_argument = reuse
        self._hint = hint

    def __call__(self, inputs: Tensor, state: Any, *args: Any, **kwargs: Any) -> Any:
        # AutoGraph would rewrite `call` for nothing and turn its errors into its own kind.
        step = tf.autograph.experimental.do_not_convert(super().__call__)
        return step(inputs, state, *args, **kwargs)

    def _checked_depth(self, inputs_shape: Any) -> int:
        in_function = tf.compat.v1.executing_eagerly_outside_functions()
        if in_function and not tf.executing_eagerly():
            raise HintRuntimeError(
                f"cell '{self.name}' cannot create its variables in a tf.function",
                why="TF1 cells keep variables by scope, which a function of an eager program lacks",
                remedy="Build the model in a tf.Graph, or call "
                "tf.compat.v1.disable_eager_execution() at the start of the program",
            )
        shape = tf.TensorShape(inputs_shape)
        depth = shape[-1] if shape.rank == 2 else None
        if depth is None:
            raise HintError(
                f"cell '{self.name}': inputs must be [batch, depth] with known depth, got {shape}",
                remedy="Give the placeholder or the reshape before the cell its last dimension",
            )
        return int(depth)

    def _add_hinted_weight(
        self, name: str, index: int, shape: list[int], initializer: Any, shards: int | None = None
    ) -> None:
        partitioner = None if shards is None else tf.compat.v1.fixed_size_partitioner(shards)
        variable = self.add_weight(
            name, shape=shape, initializer=_fresh(initializer), partitioner=partitioner
        )
        self._hint.add_weight(name, index, variable)

    def _check_dtype(self, inputs: Tensor, weight: Tensor) -> None:
        if inputs.dtype != weight.dtype:
            raise HintError(
                f"cell '{self.name}': inputs are {inputs.dtype.name}, "
                f"its variables {weight.dtype.name}",
                remedy="Cast the inputs, or give the cell their dtype",
            )


class TFLiteLSTMCell(_HintedCell):
    """A long short-term memory cell whose steps are hinted as `UnidirectionalSequenceLstm`.

    With x [batch, depth], c [batch, num_units], m [batch, output_size], s the sigmoid, * taken
    element by element and the terms in brackets only with peepholes::

        i = s(W_i x + R_i m + b_i [+ w_i * c])
        f = s(W_f x + R_f m + b_f [+ w_f * c])
        c' = clip(f * c + i * activation(W_c x + R_c m + b_c), cell_clip)
        o = s(W_o x + R_o m + b_o [+ w_o * c'])
        m' = o * activation(c'), then clip(P m', proj_clip) if num_proj is given

    after Gers et al., "Learning to Forget" (1999), and Sak et al., "Long Short-Term Memory
    Recurrent Neural Network Architectures for Large Scale Acoustic Modeling" (2014).

    Args:
        num_units: width of the cell state.
        use_peepholes: whether the gates also read the cell state.
        cell_clip: bound on the absolute value of the cell state; None for no bound.
        initializer: of the matrices and peepholes; default that of the variable scope.
        num_proj: width of the output projection; None for no projection.
        proj_clip: bound on the absolute value of the projected output; None for no bound.
        num_unit_shards: number of parts along the first axis in which the weights are stored.
        num_proj_shards: the same for the projection.
        forget_bias: initial value of the forget gate's bias.
        state_is_tuple: whether the state is the tuple (c, m) or one tensor [c | m].
        activation: None for tanh, a name ("tanh", "relu", "relu6", ...) or a callable.
        reuse: whether to take variables that already exist in the scope.
        name: name of the layer and of its variable scope.
        dtype: of the variables; default that of the first inputs.
        **kwargs: further arguments of a layer, e.g. `trainable`.

    Raises:
        HintError: an option is out of range or the activation is unknown (also a ValueError).
    """

    def __init__(
        self,
        num_units: int,
        use_peepholes: bool = False,
        cell_clip: float | None = None,
        initializer: Any = None,
        num_proj: int | None = None,
        proj_clip: float | None = None,
        num_unit_shards: int | None = None,
        num_proj_shards: int | None = None,
        forget_bias: float = 1.0,
        state_is_tuple: bool = True,
        activation: str | Activation | None = None,
        reuse: bool | None = None,
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        _check_positive("TFLiteLSTMCell", num_units=num_units, num_proj=num_proj)
        _check_positive("TFLiteLSTMCell", cell_clip=cell_clip, proj_clip=proj_clip)
        _check_positive(
            "TFLiteLSTMCell", num_unit_shards=num_unit_shards, num_proj_shards=num_proj_shards
        )
        chosen = _activation("TFLiteLSTMCell", activation)
        known: dict[str, object] = {"activation": _activation_name(activation)}
        known |= {"cell_clip": cell_clip, "proj_clip": proj_clip}
        super().__init__(
            CellHint("UnidirectionalSequenceLstm", _given(known)), reuse, name, dtype, kwargs
        )
        self._num_units = num_units
        self._use_peepholes = use_peepholes
        self._cell_clip = cell_clip
        self._initializer = tf_keras.initializers.get(initializer)
        self._num_proj = num_proj
        self._proj_clip = proj_clip
        self._num_unit_shards = num_unit_shards
        self._num_proj_shards = num_proj_shards
        self._forget_bias = forget_bias
        self._state_is_tuple = state_is_tuple
        self._activation = chosen

    @property
    def state_size(self) -> Any:
        """`LSTMStateTuple(num_units, output_size)`, or their sum without `state_is_tuple`."""
        if self._state_is_tuple:
            return LSTMStateTuple(self._num_units, self.output_size)
        return self._num_units + self.output_size

    @property
    def output_size(self) -> int:
        """`num_proj` if given, else `num_units`."""
        return self._num_proj or self._num_units

    def build(self, inputs_shape: Any) -> None:
        """Create the variables for inputs of shape [batch, depth]; depth must be known."""
        depth = self._checked_depth(inputs_shape)
        units, shards = self._num_units, self._num_unit_shards
        zeros = tf.compat.v1.zeros_initializer()
        forget = tf.compat.v1.constant_initializer(self._forget_bias)
        for part, first_index, width in (("input", 1, depth), ("cell", 5, self.output_size)):
            for index, gate in enumerate(_GATES, first_index):
                self._add_hinted_weight(
                    f"{part}_to_{gate}_w", index, [units, width], self._initializer, shards
                )
        for index, gate in enumerate(_GATES, 12):
            bias = forget if gate == "forget" else zeros
            self._add_hinted_weight(f"{gate}_bias", index, [units], bias, shards)
        if self._use_peepholes:
            for name, index in (("w_f_diag", 10), ("w_i_diag", 9), ("w_o_diag", 11)):
                self._add_hinted_weight(name, index, [units], self._initializer, shards)
        if self._num_proj:
            shape = [self._num_proj, units]
            self._add_hinted_weight(
                "projection/kernel", 16, shape, self._initializer, self._num_proj_shards
            )
        self.built = True

    def call(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step: inputs [batch, depth] and a state to output [batch, output_size] and state."""
        c, m = state if self._state_is_tuple else self._split(state)
        chain = self._hint.begin_step([c, m])
        self._check_dtype(inputs, chain.weights["input_bias"])
        hint = chain.hint
        x = hint.add_input(inputs, "input", "input", "stack", 0)
        c = hint.add_input(c, "c_prev", "c_prev", "first", 19)
        m = hint.add_input(m, "m_prev", "m_prev", "first", 18)
        new_c, new_m = self._step(x, c, m, chain.weights)
        new_c = hint.add_output(new_c, "c", "c", "last", 1)
        new_m = hint.add_output(new_m, "m", "m", "stack", 2)
        self._hint.end_step(chain, [new_c, new_m])
        if self._state_is_tuple:
            return new_m, LSTMStateTuple(new_c, new_m)
        return new_m, tf.concat([new_c, new_m], 1)

    def _step(
        self, x: Tensor, c: Tensor, m: Tensor, weights: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        x_and_m = tf.concat([x, m], axis=1)

        def gate(name: str) -> Tensor:
            matrix = tf.concat([weights[f"input_to_{name}_w"], weights[f"cell_to_{name}_w"]], 1)
            product = tf.matmul(x_and_m, matrix, transpose_b=True)
            return tf.nn.bias_add(product, weights[f"{name}_bias"])

        def peep(name: str, cell: Tensor, value: Tensor) -> Tensor:
            return value + weights[name] * cell if self._use_peepholes else value

        i = tf.sigmoid(peep("w_i_diag", c, gate("input")))
        f = tf.sigmoid(peep("w_f_diag", c, gate("forget")))
        new_c = f * c + i * self._activation(gate("cell"))
        if self._cell_clip is not None:
            new_c = tf.clip_by_value(new_c, -self._cell_clip, self._cell_clip)
        o = tf.sigmoid(peep("w_o_diag", new_c, gate("output")))
        new_m = o * self._activation(new_c)
        if self._num_proj:
            new_m = tf.matmul(new_m, weights["projection/kernel"], transpose_b=True)
            if self._proj_clip is not None:
                new_m = tf.clip_by_value(new_m, -self._proj_clip, self._proj_clip)
        return new_c, new_m

    def _split(self, state: Tensor) -> tuple[Tensor, Tensor]:
        units = self._num_units
        return (
            tf.slice(state, [0, 0], [-1, units]),
            tf.slice(state, [0, units], [-1, self.output_size]),
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, serialised as a layer's config."""
        return {
            **super().get_config(),
            "num_units": self._num_units,
            "use_peepholes": self._use_peepholes,
            "cell_clip": self._cell_clip,
            "initializer": tf_keras.initializers.serialize(self._initializer),
            "num_proj": self._num_proj,
            "proj_clip": self._proj_clip,
            "num_unit_shards": self._num_unit_shards,
            "num_proj_shards": self._num_proj_shards,
            "forget_bias": self._forget_bias,
            "state_is_tuple": self._state_is_tuple,
            "activation": tf_keras.activations.serialize(self._activation),
            "reuse": self._reuse_argument,
        }


class TfLiteRNNCell(_HintedCell):
    """A simple recurrent cell whose steps are hinted as `UnidirectionalSequenceRnn`.

    Output and next state are activation(W x + R h + b), [batch, num_units].

    Args:
        num_units: width of the state.
        activation: None for tanh, a name ("tanh", "relu", "relu6", ...) or a callable.
        reuse: whether to take variables that already exist in the scope.
        name: name of the layer and of its variable scope.
        dtype: of the variables; default that of the first inputs.
        **kwargs: further arguments of a layer, e.g. `trainable`.

    Raises:
        HintError: num_units is out of range or the activation is unknown (also a ValueError).
    """

    def __init__(
        self,
        num_units: int,
        activation: str | Activation | None = None,
        reuse: bool | None = None,
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        _check_positive("TfLiteRNNCell", num_units=num_units)
        chosen = _activation("TfLiteRNNCell", activation)
        known = _given({"activation": _activation_name(activation)})
        super().__init__(CellHint("UnidirectionalSequenceRnn", known), reuse, name, dtype, kwargs)
        self._num_units = num_units
        self._activation = chosen

    @property
    def state_size(self) -> int:
        """`num_units`."""
        return self._num_units

    @property
    def output_size(self) -> int:
        """`num_units`."""
        return self._num_units

    def build(self, inputs_shape: Any) -> None:
        """Create the variables for inputs of shape [batch, depth]; depth must be known."""
        depth, units = self._checked_depth(inputs_shape), self._num_units
        zeros = tf.compat.v1.zeros_initializer()
        self._add_hinted_weight("input_weights", 1, [units, depth], None)
        self._add_hinted_weight("recurrent_weights", 2, [units, units], None)
        self._add_hinted_weight("bias", 3, [units], zeros)
        self.built = True

    def call(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step: inputs [batch, depth] and state [batch, num_units] to (output, new state)."""
        chain = self._hint.begin_step([state])
        hint, weights = chain.hint, chain.weights
        self._check_dtype(inputs, weights["bias"])
        x = hint.add_input(inputs, "input", "input", "stack", 0)
        h = hint.add_input(state, "hidden_state", "hidden_state", "first", 4)
        matrix = tf.concat([weights["input_weights"], weights["recurrent_weights"]], 1)
        product = tf.matmul(tf.concat([x, h], 1), matrix, transpose_b=True)
        output = self._activation(tf.nn.bias_add(product, weights["bias"]))
        output = hint.add_output(output, "output", "output", "stack", 1)
        self._hint.end_step(chain, [output])
        return output, output

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, serialised as a layer's config."""
        return {
            **super().get_config(),
            "num_units": self._num_units,
            "activation": tf_keras.activations.serialize(self._activation),
            "reuse": self._reuse_argument,
        }


def _activation(cell: str, activation: str | Activation | None) -> Activation:
    if not activation:
        return tf.tanh  # type: ignore[no-any-return]
    if callable(activation):
        return activation
    if activation == "relu6":
        return tf.nn.relu6  # type: ignore[no-any-return]
    try:
        return tf_keras.activations.get(activation)  # type: ignore[no-any-return]
    except (TypeError, ValueError) as error:
        raise HintError(
            f"{cell}: unknown activation {activation!r}",
            remedy="Give the name of a Keras activation (e.g. 'tanh', 'relu') or a callable",
        ) from error


def _activation_name(activation: str | Activation | None) -> str | None:
    if not activation:
        return "tanh"
    name = activation if isinstance(activation, str) else getattr(activation, "__name__", "")
    return name if name.isidentifier() else None


def _check_positive(cell: str, **options: float | None) -> None:
    for name, value in options.items():
        if value is not None and not value > 0:
            raise HintError(
                f"{cell}: {name} must be above 0, got {value!r}",
                remedy="Leave it out to do without" if name != "num_units" else None,
            )


def _fresh(initializer: Any) -> Any:
    """An initializer for one variable.

    A Keras initializer without a seed gives the same values each time it is called, and all
    gates would start alike; so each variable gets its own copy.
    """
    if initializer is None:
        scope = tf.compat.v1.get_variable_scope()
        return scope.initializer or tf.compat.v1.glorot_uniform_initializer()
    if isinstance(initializer, tf_keras.initializers.Initializer):
        return type(initializer).from_config(initializer.get_config())
    return initializer


def _given(options: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}
