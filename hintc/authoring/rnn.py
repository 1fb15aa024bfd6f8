"""Dynamic recurrent loops around hinted cells.

The loop is `tf.compat.v1.nn.dynamic_rnn`'s, built as a functional While in whatever control-flow
mode the process is: a loop of v1 control flow has no body function that could be replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hintc.authoring.hint import OpHint, Tensor, require_graph_tensor
from hintc.errors import HintError

_FUNCTION_NAME = "TfLiteDynamicRnn"

# Loop input -> first layer's input, layer to layer, last layer's output -> loop output. A cell's
# sequence output is its highest one (2 of an LSTM, 1 of an RNN), hence -1.
_MAPPINGS = {
    "parent_first_child_input": [
        {"parent_ophint_input_index": 0, "first_child_ophint_input_index": 0}
    ],
    "parent_last_child_output": [{"parent_output_index": 0, "child_output_index": -1}],
    "internal_children_input_output": [{"child_input_index": 0, "child_output_index": -1}],
}


def dynamic_rnn(
    cell: Any,
    inputs: Tensor,
    sequence_length: Tensor | None = None,
    initial_state: Any = None,
    dtype: Any = None,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    time_major: bool = True,
    scope: Any = None,
) -> tuple[Tensor, Any]:
    """Run a hinted cell over a sequence in one loop that can become fused operations.

    Build gradients before the first `Session.run` on the graph: they add outputs to the loop, and a
    session does not see changes to what it has run.

    Args:
        cell: a `TFLiteLSTMCell` or `TfLiteRNNCell`, or a stack of them (`MultiRNNCell`, tf_keras'
            `StackedRNNCells`).
        inputs: [time, batch, depth], or [batch, time, depth] without `time_major`. Time and batch
            may be unknown; rank and depth must be known.
        sequence_length: int32 or int64 [batch]; beyond it outputs are zero and states are kept.
            Default: all sequences are full.
        initial_state: structure of `cell.state_size`, tensors [batch, size]; default zeros.
        dtype: of state and outputs; needed without `initial_state`.
        parallel_iterations: steps that may run at once; default 32.
        swap_memory: whether tensors kept for the gradient may be moved to host memory.
        time_major: whether inputs and outputs have time as the first axis. The fused operations
            do; otherwise the sequence is transposed before and after them.
        scope: name or `VariableScope` of the variables; default "rnn".

    Returns:
        Outputs, laid out as `inputs`, with depth `cell.output_size`, and the final state.

    Raises:
        HintError: inputs are not one tensor of known rank and depth, neither `initial_state` nor
            `dtype` is given, or the cell is one of Keras 3 (also a ValueError).
        HintAttributeError: inputs are eager or a KerasTensor.
        TypeError: `cell` is not a recurrent cell.
    """
    import tensorflow as tf

    sequence = _sequence(inputs)
    _check_cell(cell)
    if initial_state is None and not dtype:
        raise HintError(
            f"hint '{_FUNCTION_NAME}': neither initial_state nor dtype is given",
            remedy="Pass dtype=tf.float32 to start from zeros",
        )
    hint = OpHint(_FUNCTION_NAME, level=2, children_inputs_mappings=_MAPPINGS)
    with tf.compat.v1.variable_scope(scope or "rnn") as variable_scope:
        sequence = sequence if time_major else _swap_batch_and_time(sequence)
        sequence = hint.add_input(sequence, name="input", index_override=0)
        with _functional_control_flow():
            outputs, state = tf.compat.v1.nn.dynamic_rnn(
                cell,
                sequence,
                sequence_length=sequence_length,
                initial_state=initial_state,
                dtype=dtype,
                parallel_iterations=parallel_iterations,
                swap_memory=swap_memory,
                time_major=True,
                scope=variable_scope,
            )
        outputs = hint.add_output(outputs, name="outputs")
        return (outputs if time_major else _swap_batch_and_time(outputs)), state


def bidirectional_dynamic_rnn(
    cell_fw: Any,
    cell_bw: Any,
    inputs: Tensor,
    sequence_length: Tensor | None = None,
    initial_state_fw: Any = None,
    initial_state_bw: Any = None,
    dtype: Any = None,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    time_major: bool = False,
    scope: Any = None,
) -> tuple[tuple[Tensor, Tensor], tuple[Any, Any]]:
    """Run one hinted cell forward and another backward over a sequence.

    Each sequence is reversed within its own length if `sequence_length` is given, and the
    backward outputs are put back into the order of the inputs.

    Args:
        cell_fw: cell of the forward direction, as in `dynamic_rnn`.
        cell_bw: cell of the backward direction.
        inputs: [batch, time, depth], or [time, batch, depth] with `time_major`.
        sequence_length: int32 or int64 [batch]; default: all sequences are full.
        initial_state_fw: as `dynamic_rnn`'s `initial_state`, of the forward direction.
        initial_state_bw: the same of the backward direction.
        dtype: of states and outputs; needed unless both initial states are given.
        parallel_iterations: steps that may run at once; default 32.
        swap_memory: whether tensors kept for the gradient may be moved to host memory.
        time_major: whether inputs and outputs have time as the first axis.
        scope: name or `VariableScope` of the variables; default "bidirectional_rnn".

    Returns:
        ((outputs forward, outputs backward), (final state forward, final state backward)).

    Raises:
        HintError, HintAttributeError, TypeError: as `dynamic_rnn`.
    """
    import tensorflow as tf

    sequence = _sequence(inputs)

    def run(cell: Any, one_way: Tensor, initial_state: Any, name: str) -> tuple[Tensor, Any]:
        return dynamic_rnn(
            cell,
            one_way,
            sequence_length,
            initial_state,
            dtype,
            parallel_iterations,
            swap_memory,
            time_major,
            name,
        )

    with tf.compat.v1.variable_scope(scope or "bidirectional_rnn"):
        output_fw, state_fw = run(cell_fw, sequence, initial_state_fw, "fw")
        backwards = _reverse(sequence, sequence_length, time_major)
        reversed_bw, state_bw = run(cell_bw, backwards, initial_state_bw, "bw")
        output_bw = _reverse(reversed_bw, sequence_length, time_major)
    return (output_fw, output_bw), (state_fw, state_bw)


@contextmanager
def _functional_control_flow() -> Iterator[None]:
    """Build loops and lists as functional (v2) ones, whatever the process-wide mode is."""
    from tensorflow.python.ops import control_flow_util

    # The public toggles also write a usage gauge; this module variable is all that they mean.
    previous = control_flow_util.ENABLE_CONTROL_FLOW_V2
    control_flow_util.ENABLE_CONTROL_FLOW_V2 = True
    try:
        yield
    finally:
        control_flow_util.ENABLE_CONTROL_FLOW_V2 = previous


def _check_cell(cell: Any) -> None:
    if type(cell).__module__.partition(".")[0] == "keras":
        raise HintError(
            f"hint '{_FUNCTION_NAME}': {type(cell).__name__} of Keras 3 cannot run a hinted cell",
            why="its states and calls differ from those of the TF1 cells",
            remedy="Use tf_keras.layers.StackedRNNCells or MultiRNNCell, or set "
            "TF_USE_LEGACY_KERAS=1 before tf.keras is first used",
        )


def _sequence(inputs: Tensor) -> Tensor:
    """The inputs as one symbolic tensor, or the reason why they are none."""
    import tensorflow as tf

    require_graph_tensor(_FUNCTION_NAME, inputs)
    wanted = "inputs must be one tensor of three axes (time, batch, depth) with a known depth"
    try:
        sequence = tf.convert_to_tensor(inputs)
    except (TypeError, ValueError) as error:
        raise HintError(f"hint '{_FUNCTION_NAME}': {wanted}", why=str(error)) from error
    shape = sequence.shape
    if shape.rank is None or shape.rank < 3 or not shape[2:].is_fully_defined():
        raise HintError(
            f"hint '{_FUNCTION_NAME}': {wanted}, got shape {shape}",
            remedy="Set the shape of the placeholder, or reshape the sequence before the loop",
        )
    return sequence


def _swap_batch_and_time(sequence: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.transpose(sequence, [1, 0, *range(2, sequence.shape.rank)])


def _reverse(sequence: Tensor, lengths: Tensor | None, time_major: bool) -> Tensor:
    import tensorflow as tf

    time_axis = 0 if time_major else 1
    if lengths is None:
        return tf.reverse(sequence, axis=[time_axis])
    return tf.reverse_sequence(sequence, lengths, seq_axis=time_axis, batch_axis=1 - time_axis)
