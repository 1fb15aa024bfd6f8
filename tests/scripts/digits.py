"""Trains the demo's digit classifier, small, and writes the frozen graph and its data to a folder.

A process of its own, as the demo needs Keras 2: ``digits.py FOLDER``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from examples import mnist_lstm

UNITS, EPOCHS, SEED = 24, 6, 1

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    digits = mnist_lstm.load_digits()
    mnist_lstm.train(digits, folder / "model", units=UNITS, epochs=EPOCHS, seed=SEED)
    graph_def = mnist_lstm.export(folder / "model", UNITS)
    (folder / "digits.pb").write_bytes(graph_def.SerializeToString())
    np.savez(
        folder / "digits.npz",
        samples=digits.train_images[:200],
        images=digits.test_images,
        labels=digits.test_labels,
        expected=mnist_lstm.run_tensorflow(graph_def, digits.test_images),
    )
