"""What the records say once the runs are over."""
