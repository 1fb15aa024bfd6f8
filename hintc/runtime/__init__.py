"""Running models: .tflite in an interpreter, GraphDefs in a TensorFlow session."""

from hintc.runtime.kernels import Kernels

__all__ = ["Kernels"]
