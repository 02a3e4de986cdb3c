"""Data: raw images to batches."""
