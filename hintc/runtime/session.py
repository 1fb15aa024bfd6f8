"""Running a GraphDef in a TensorFlow session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from hintc.errors import HintcError
from hintc.runtime.tensor_info import TensorInfo

Array = npt.NDArray[Any]


class Session:
    """A GraphDef imported once, for any number of runs. Use it as a context manager.

    Args:
        graph_def: a GraphDef; it is not modified.

    Raises:
        HintcError: TensorFlow refuses the graph.
    """

    def __init__(self, graph_def: Any) -> None:
        import tensorflow as tf

        graph = tf.Graph()
        try:
            with graph.as_default():
                tf.import_graph_def(graph_def, name="")
        except (ValueError, TypeError, tf.errors.OpError) as error:
            raise HintcError("TensorFlow cannot import the graph", why=_one_line(error)) from error
        config = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
        # the graph as it is written: with oneDNN the remapper gives a layer normalisation another
        # epsilon than its own
        options = config.graph_options.rewrite_options
        options.remapping = options.OFF
        self._graph = graph
        self._session = tf.compat.v1.Session(graph=graph, config=config)
        self._errors = (ValueError, TypeError, KeyError, RuntimeError, tf.errors.OpError)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees the session."""
        self._session.close()

    def info(self, name: str) -> TensorInfo:
        """Shape and dtype of a tensor; `HintcError` if there is none or its rank is unknown."""
        try:
            tensor = self._graph.get_tensor_by_name(tensor_name(name))
        except (KeyError, ValueError) as error:
            raise HintcError(f"the graph has no tensor '{tensor_name(name)}'") from error
        if tensor.shape.rank is None:
            raise HintcError("its rank is not known", node=name, remedy="Give feeds.")
        shape = tuple(-1 if size is None else int(size) for size in tensor.shape.as_list())
        return TensorInfo(name.removesuffix(":0"), shape, np.dtype(tensor.dtype.as_numpy_dtype))

    def run(self, feeds: Mapping[str, npt.ArrayLike], fetches: Sequence[str]) -> dict[str, Array]:
        """One run.

        Args:
            feeds: tensor name (``:0`` may be left out) -> value.
            fetches: tensor names, the same way.

        Returns:
            Fetch, spelled as given -> value, in order.

        Raises:
            HintcError: an unknown tensor or a failed run.
        """
        try:
            values = self._session.run(
                [tensor_name(fetch) for fetch in fetches],
                {tensor_name(name): np.asarray(value) for name, value in feeds.items()},
            )
        except self._errors as error:
            raise HintcError("the graph did not run", why=_one_line(error)) from error
        return {fetch: np.asarray(value) for fetch, value in zip(fetches, values, strict=True)}


def run(
    graph_def: Any, feeds: Mapping[str, npt.ArrayLike], fetches: Sequence[str]
) -> dict[str, Array]:
    """One run of `graph_def` in a session of its own; see `Session`."""
    with Session(graph_def) as session:
        return session.run(feeds, fetches)


def tensor_name(name: str) -> str:
    """`name` with its output number: ``x`` -> ``x:0``."""
    return name if ":" in name else f"{name}:0"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:600]
