"""Settings that must stand before TensorFlow is imported, and hypothesis' profile."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# One thread for each of the two test processes; also fixes the order of sums.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
# Dots are bold in no terminal: the same text everywhere.
os.environ.setdefault("NO_COLOR", "1")

from hypothesis import settings

settings.register_profile("reproducible", derandomize=True, deadline=None)
settings.load_profile("reproducible")
