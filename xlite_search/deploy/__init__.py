"""Delivery of one model: export, answers from the exported folder, latency, cards."""
