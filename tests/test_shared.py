"""Changes of the whole process: made once, undone once, whatever threads do at a time."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hintc.runtime.stream import captured_output
from hintc.shared import Shared
from hintc.source.quiet import quiet


def test_the_first_makes_and_the_last_undoes() -> None:
    seen: list[str] = []

    @contextmanager
    def change() -> Iterator[int]:
        seen.append("made")
        yield 7
        seen.append("undone")

    shared = Shared(change)
    for _ in range(2):
        with shared() as one, shared() as other:
            assert (one, other, seen[-1]) == (7, 7, "made")
        assert seen[-1] == "undone"
    assert seen == ["made", "undone"] * 2


def overlapping(context: object) -> None:
    """Two threads in a context: the second enters before the first leaves, and leaves after it."""
    entered, left = threading.Event(), threading.Event()

    def second() -> None:
        with context():  # type: ignore[operator]
            entered.set()
            left.wait(10)

    thread = threading.Thread(target=second)
    with context():  # type: ignore[operator]
        thread.start()
        entered.wait(10)
    left.set()
    thread.join()


def test_output_comes_back_after_overlapping_threads() -> None:
    before = [os.fstat(number).st_ino for number in (1, 2)], sys.stdout, sys.stderr
    overlapping(captured_output)
    assert ([os.fstat(number).st_ino for number in (1, 2)], sys.stdout, sys.stderr) == before


def test_the_log_comes_back_after_overlapping_threads() -> None:
    log = logging.getLogger("tensorflow")
    before = log.level
    overlapping(quiet)
    assert log.level == before


def test_each_gets_what_was_written_while_it_listened() -> None:
    with captured_output() as outer:
        os.write(1, b"early ")
        sys.stderr.write("first\n")
        with captured_output() as inner:
            os.write(2, b"late ")
            sys.stdout.write("second\n")
        os.write(1, b"end ")
    assert inner.text == "late second\n"
    assert outer.text == "early late end first\nsecond\n"


def test_two_conversions_at_a_time() -> None:
    script = """
import threading
import numpy as np
import tensorflow as tf
import hintc

def model(size):
    weights = np.ones((3, size), np.float32)
    given = [tf.TensorSpec([None, 3], name="x")]
    return tf.function(lambda x: tf.nn.relu(x @ weights), input_signature=given)

found = {}
def work(size):
    found[size] = hintc.convert(model(size), check=True).tflite
threads = [threading.Thread(target=work, args=(size,)) for size in range(1, 7)]
[t.start() for t in threads]
[t.join() for t in threads]
assert all(found[size] == hintc.convert(model(size)).tflite for size in range(1, 7))
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
