"""Oracle: what the same network scores when it may learn from the target's labels."""

from __future__ import annotations

from udabench.parts.supervised import Supervised


class Oracle(Supervised):
    """Cross entropy on labelled target images; the source is never opened. Not an adaptation method."""

    domain = "target"
    target_labels = True
