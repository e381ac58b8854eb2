"""Names in the log and in the run folder."""

from __future__ import annotations

KINDS = ("static", "dynamic", "calibrated", "hybrid")
"""Kinds of labels, as the rows of the paper's Table 4."""
STATIC = "static_label"
"""The artefact of static labels."""
