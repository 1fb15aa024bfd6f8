"""`TFLiteConverter` with the interface of `tf.compat.v1.lite`, on top of `hintc.convert`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hintc.compat.settings import Plan, check_name, defaults, plan
from hintc.convert import Converted, convert
from hintc.errors import HintcError, HintError
from hintc.source import read_source
from hintc.source.session import freeze_session


class ConverterFileError(HintcError, OSError):
    """A file that the converter was given cannot be read. Also an OSError, as upstream raises."""


class TFLiteConverter:
    """Converts a frozen graph, a Session, a SavedModel or a Keras file to TFLite.

    Hints and stubs become fused operations. Unlike TensorFlow's converter it keeps a dynamic
    batch. The attributes are TensorFlow's; a value that hintc cannot follow is an error when
    `convert` runs, an attribute that does not exist is one when it is set:

    * `optimizations`: ``[tf.lite.Optimize.DEFAULT]`` makes weights int8, or float16 with
      ``target_spec.supported_types = [tf.float16]``; `post_training_quantize` is its old name;
    * `representative_dataset`: with `optimizations`, full integer quantisation;
    * `allow_custom_ops`: must be True for hints of people's own ops;
    * `inference_type`, `inference_input_type`, `inference_output_type`, `target_spec`,
      `output_format`, `dump_graphviz_dir` (a dump after each pass that changed something).

    After `convert`, `report` says what was fused, what was not, and why.

    Args:
        graph_def: frozen GraphDef, with hints, stubs or neither; it is not changed.
        input_tensors: tensors (name and shape are used) or names, in the model's order.
        output_tensors: tensors or names.
        input_arrays_with_shape: pairs of input name and shape; only where the two above are None.
        output_arrays: names; likewise.

    Raises:
        HintError: inputs or outputs are missing (also a ValueError).
    """

    def __init__(
        self,
        graph_def: Any,
        input_tensors: Sequence[Any] | None,
        output_tensors: Sequence[Any] | None,
        input_arrays_with_shape: Sequence[tuple[str, Sequence[int | None]]] | None = None,
        output_arrays: Sequence[str] | None = None,
    ) -> None:
        hidden = vars(self)
        hidden.update(defaults())
        hidden["report"] = None
        if input_tensors is not None and output_tensors is not None:
            shapes = {_name(t): _shape(t) for t in input_tensors}
            outputs = [_name(t) for t in output_tensors]
        elif input_arrays_with_shape and output_arrays:
            shapes = {_name(name): tuple(shape) for name, shape in input_arrays_with_shape}
            outputs = [_name(name) for name in output_arrays]
        else:
            raise HintError(
                "TFLiteConverter needs input_tensors and output_tensors",
                remedy="Or pass input_arrays_with_shape and output_arrays",
            )
        hidden["_inputs"] = list(shapes)
        hidden["_outputs"] = outputs
        hidden["_graph_def"] = _with_shapes(graph_def, shapes)

    @classmethod
    def from_session(
        cls, sess: Any, input_tensors: Sequence[Any], output_tensors: Sequence[Any]
    ) -> TFLiteConverter:
        """A converter of a session's graph, with its variables' present values.

        Args:
            sess: a `tf.compat.v1.Session`.
            input_tensors: see the class.
            output_tensors: see the class.

        Raises:
            HintcError: variables without values, outputs that are not there.
        """
        frozen = freeze_session(sess, [_name(t) for t in output_tensors])
        return cls(frozen.graph_def, input_tensors, list(frozen.outputs))

    @classmethod
    def from_frozen_graph(
        cls,
        graph_def_file: str | os.PathLike[str],
        input_arrays: Sequence[str],
        output_arrays: Sequence[str],
        input_shapes: Mapping[str, Sequence[int | None] | None] | None = None,
    ) -> TFLiteConverter:
        """A converter of a ``.pb`` or ``.pbtxt`` file.

        Args:
            graph_def_file: a frozen GraphDef, binary or text; may hold stubs.
            input_arrays: names of the inputs, in the model's order.
            output_arrays: names of the outputs.
            input_shapes: name -> shape, where the graph's own is not wanted; None or -1 for an
                unknown dimension.

        Raises:
            ConverterFileError: the file is missing or no graph (also an OSError).
            HintError: a name in `input_shapes` is no input (also a ValueError).
            HintcError: a name that is not there, variables.
        """
        given = dict(input_shapes or {})
        names = [_name(name) for name in input_arrays]
        unknown = [name for name in given if _name(name) not in names]
        if unknown:
            raise HintError(
                f"input_shapes has a shape for '{unknown[0]}', which is no input",
                why=f"the inputs are {', '.join(names)}",
            )
        graph_def = _read_graph(graph_def_file)
        shapes = {_name(name): shape for name, shape in given.items()}
        pairs = [(name, shapes.get(name)) for name in names]
        outputs = [_name(name) for name in output_arrays]
        return cls(_with_shapes(graph_def, dict(pairs)), names, outputs)

    @classmethod
    def from_saved_model(
        cls,
        saved_model_dir: str | os.PathLike[str],
        input_arrays: Sequence[str] | None = None,
        input_shapes: Mapping[str, Sequence[int | None] | None] | None = None,
        output_arrays: Sequence[str] | None = None,
        tag_set: set[str] | None = None,
        signature_key: str | None = None,
    ) -> TFLiteConverter:
        """A converter of a SavedModel.

        Args:
            saved_model_dir: its folder.
            input_arrays: names of the inputs; default: the signature's.
            input_shapes: see `from_frozen_graph`.
            output_arrays: names of the outputs; default: the signature's.
            tag_set: only ``{"serve"}``, the default.
            signature_key: default ``"serving_default"``.

        Raises:
            HintError: another tag set (also a ValueError).
            HintcError: what `hintc.source.read_source` raises.
        """
        if tag_set is not None and set(tag_set) != {"serve"}:
            raise HintError(f"tag_set is {tag_set!r}", why="hintc reads the tag 'serve' only")
        model = read_source(saved_model_dir, input_arrays, output_arrays, signature_key)
        shapes = {_name(name): shape for name, shape in (input_shapes or {}).items()}
        graph_def = _with_shapes(model.graph_def, shapes)
        return cls(graph_def, list(model.inputs), list(model.outputs))

    @classmethod
    def from_keras_model_file(
        cls,
        model_file: str | os.PathLike[str],
        input_arrays: Sequence[str] | None = None,
        input_shapes: Mapping[str, Sequence[int | None] | None] | None = None,
        output_arrays: Sequence[str] | None = None,
        custom_objects: Mapping[str, Any] | None = None,
    ) -> TFLiteConverter:
        """A converter of a ``.keras`` or ``.h5`` file.

        Args:
            model_file: the file.
            input_arrays: see `from_saved_model`.
            input_shapes: see `from_frozen_graph`.
            output_arrays: see `from_saved_model`.
            custom_objects: must be None.

        Raises:
            HintError: `custom_objects` is given (also a ValueError).
            HintcError: what `hintc.source.read_source` raises.
        """
        if custom_objects:
            raise HintError(
                "from_keras_model_file: custom_objects is not supported",
                remedy="Load the model yourself and pass it to hintc.convert",
            )
        model = read_source(model_file, input_arrays, output_arrays)
        shapes = {_name(name): shape for name, shape in (input_shapes or {}).items()}
        graph_def = _with_shapes(model.graph_def, shapes)
        return cls(graph_def, list(model.inputs), list(model.outputs))

    def __setattr__(self, name: str, value: Any) -> None:
        check_name(name)
        if name == "post_training_quantize":
            import tensorflow as tf

            name, value = "optimizations", [tf.lite.Optimize.DEFAULT] if value else []
        elif name == "target_ops":
            self.target_spec.supported_ops = value
            return
        vars(self)[name] = value

    def __getattr__(self, name: str) -> Any:
        # only for what is not in the instance
        if name == "post_training_quantize":
            return bool(self.optimizations)
        if name == "target_ops":
            return self.target_spec.supported_ops
        raise AttributeError(f"'TFLiteConverter' object has no attribute '{name}'")

    def get_input_arrays(self) -> list[str]:
        """Names of the inputs, in the model's order."""
        return list(vars(self)["_inputs"])

    def convert(self) -> bytes:
        """The model.

        Raises:
            HintError: an attribute has a value that hintc cannot follow (also a ValueError).
            HintcError: what `hintc.convert` raises.
        """
        settings = plan(vars(self))
        converted = self._converted(settings)
        vars(self)["report"] = converted.report
        custom = converted.report.custom_codes
        if custom and not settings.allow_custom_ops:
            names = ", ".join(custom)
            raise HintError(
                f"the model needs kernels of your own for {names}",
                remedy="Set converter.allow_custom_ops = True",
            )
        return converted.tflite

    def _converted(self, settings: Plan) -> Converted:
        hidden = vars(self)
        return convert(
            hidden["_graph_def"],
            hidden["_inputs"],
            hidden["_outputs"],
            quantize=settings.quantize,
            io_dtype=settings.io_dtype,
            representative_dataset=settings.representative_dataset,
            instruments=settings.instruments(),
        )


def _name(tensor: Any) -> str:
    """Name of a tensor, ``:0`` left out."""
    name = tensor if isinstance(tensor, str) else getattr(tensor, "name", None)
    if not isinstance(name, str):
        raise HintError(
            f"expected a tensor or a name, got a {type(tensor).__name__}",
            remedy="Pass tensors of the graph, e.g. placeholders",
        )
    return name.removesuffix(":0")


def _shape(tensor: Any) -> tuple[int | None, ...] | None:
    shape = getattr(tensor, "shape", None)
    if shape is None or shape.rank is None:
        return None
    return tuple(shape.as_list())


def _with_shapes(graph_def: Any, shapes: Mapping[str, Sequence[int | None] | None]) -> Any:
    """The graph with the shapes of its Placeholders set; the caller's graph is not changed."""
    wanted = {name: shape for name, shape in shapes.items() if shape is not None}
    if not wanted or not hasattr(graph_def, "node"):
        return graph_def
    changed = type(graph_def)()
    changed.CopyFrom(graph_def)
    for node in changed.node:
        if node.op != "Placeholder" or node.name not in wanted:
            continue
        message = node.attr["shape"].shape
        message.Clear()
        for size in wanted[node.name]:
            message.dim.add().size = -1 if size is None else int(size)
        node.attr.pop("_output_shapes", None)
    return changed


def _read_graph(path: str | os.PathLike[str]) -> Any:
    from hintc.source.graph_file import read_graph_file

    try:
        return read_graph_file(Path(path))
    except HintcError as error:
        raise ConverterFileError(
            f"'{os.fspath(path)}' cannot be read", why=error.what, remedy=error.remedy
        ) from error
