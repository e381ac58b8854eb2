"""Looking at what a network has learnt: features, certainty, pseudo-labels. The built-in analyses, one file each.

A plugin brings another with the hook ``register_analyses``; see :mod:`udabench.analysis.base` for the interface.
"""

from __future__ import annotations

from collections.abc import Mapping

from udabench.hookspecs import Entry, hookimpl


@hookimpl
def register_analyses() -> Mapping[str, Entry]:
    here = "udabench.analysis"
    return {
        "ccd": Entry(f"{here}.discrimination:ClassCenterDistance", "spread of a class over the distance to others"),
        "pdd": Entry(f"{here}.discrimination:PixelDiscrimination", "how much nearer pixels are to their own class"),
        "similarity": Entry(f"{here}.similarity:Similarity", "class means of one domain beside those of the other"),
        "attention": Entry(f"{here}.attention:AttentionMaps", "what pixels are similar to: logits, SAM's attention"),
        "tsne": Entry(f"{here}.tsne:TSNE", "pixels of both domains as points in a plane"),
        "entropy": Entry(f"{here}.entropy:Entropy", "of correct and of incorrect pixels"),
        "pseudo-labels": Entry(f"{here}.pseudo_labels:PseudoLabels", "how many pixels are sure, how many right"),
        "calibration": Entry(f"{here}.calibration:Calibration", "whether a confidence is the chance to be right"),
    }
