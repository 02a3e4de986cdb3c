"""Search and distil light chest X-ray classifiers."""

__version__ = "0.1.0"
