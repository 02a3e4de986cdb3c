"""Training: losses, optimisation, metrics, checkpoints, and the loop that yields one EpochResult per epoch."""
