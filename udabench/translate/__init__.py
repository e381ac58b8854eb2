"""Translation engines: source images take on the target's look."""

from __future__ import annotations

from collections.abc import Mapping

from udabench.hookspecs import Entry, hookimpl


@hookimpl
def register_translators() -> Mapping[str, Entry]:
    return {
        "identity": Entry("udabench.translate.identity:Identity", "the image itself"),
        "fda": Entry("udabench.translate.fda:FDA", "Fourier domain adaptation: the target's low-frequency amplitude"),
        "color_jitter": Entry("udabench.translate.photometric:ColorJitter", "SimCLR's colour jitter, needs no target"),
        "gaussian_blur": Entry("udabench.translate.photometric:GaussianBlur", "SimCLR's blur, needs no target"),
        "folder": Entry("udabench.translate.folder:Folder", "pictures translated beforehand, found by sample name"),
    }
