"""Figures of a report as SVG: plain arrays in, bytes out, no decisions. `drawing.py` has what all of them share."""
