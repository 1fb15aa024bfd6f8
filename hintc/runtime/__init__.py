"""Running models: .tflite in an interpreter, GraphDefs in a TensorFlow session."""
