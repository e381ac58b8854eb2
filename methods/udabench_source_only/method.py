"""Source only: what a network scores on the target when it has seen the source alone."""

from __future__ import annotations

from udabench.parts.supervised import Supervised


class SourceOnly(Supervised):
    """Cross entropy on labelled source images; the target is never opened."""

    domain = "source"
