"""A study's trials on Ray Tune."""
