"""Trainables: generators that carry out one run, epoch by epoch."""
