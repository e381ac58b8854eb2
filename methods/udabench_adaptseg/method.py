"""AdaptSegNet (Tsai et al., "Learning to Adapt Structured Output Space for Semantic Segmentation", 2018)."""

from __future__ import annotations

from udabench.parts.output_aligner import OutputAligner


class AdaptSeg(OutputAligner):
    """Class probabilities are aligned: at one level, or at two where the network has an auxiliary head."""

    space = "probability"
