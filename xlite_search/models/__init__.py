"""Hybrids: a timm backbone, attention over its last feature map, a small classifier."""
