"""Raw images to batches."""
