"""Source only: what a network scores on the target when it has seen the source alone."""

from __future__ import annotations

import torch
from torch import Generator as Rng
from torch import Tensor

from udabench.errors import UsageError
from udabench.method import Batch, Samples, Setup
from udabench.parts.supervised import Supervised
from udabench.translate.apply import translate_source
from udabench.translate.base import Translator
from udabench_source_only.config import SourceOnlyConfig


class SourceOnly(Supervised):
    """Cross entropy on labelled source images, on wish with another look; the target is never opened."""

    Config = SourceOnlyConfig
    domain = "source"

    def __init__(self, config: SourceOnlyConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.beside = config.translated == "beside"
        self.translator = _translator(config, setup)

    def views(self, samples: Samples, label: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        if self.translator is None:
            return samples.image, label
        translated = translate_source(self.translator, Batch(samples, None), rng)
        if not self.beside:
            return translated, label
        return torch.cat([samples.image, translated]), torch.cat([label, label])


def _translator(config: SourceOnlyConfig, setup: Setup) -> Translator | None:
    if config.translator is None:
        if config.translator_options:
            raise UsageError("settings.translator_options has no effect without settings.translator: name one.")
        return None
    translator = setup.translator(config.translator, config.translator_options)
    if translator.paired:
        raise UsageError(f"source_only has no target images, which translator '{config.translator}' needs.")
    return translator
