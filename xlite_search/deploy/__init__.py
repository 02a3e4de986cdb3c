"""Delivery of one model: export, answers from the exported folder, latency, cards."""

import os

# Before onnxruntime is imported: its wheels count what they run, keep an id below the user's home, and send it home.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
