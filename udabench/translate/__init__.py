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
        "fda_style": Entry("udabench.translate.fda:FDAStyle", "FDA with style pictures or textures, needs no target"),
        "histogram_matching": Entry("udabench.translate.histogram:HistogramMatching", "the target's colour histograms"),
        "weather": Entry("udabench.translate.weather:Weather", "fog, rain or snow, needs no target"),
        "cartoon": Entry("udabench.translate.cartoon:Cartoon", "flat colours and dark lines, needs no target"),
        "folder": Entry("udabench.translate.folder:Folder", "pictures translated beforehand, found by sample name"),
        "chain": Entry("udabench.translate.compose:Chain", "several engines, one after the other"),
        "choice": Entry("udabench.translate.compose:Choice", "one of several engines, drawn for each batch"),
    }
