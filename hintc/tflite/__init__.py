"""From a lowered GraphDef to a .tflite: the hand-off to TensorFlow's converter and legalisation."""
