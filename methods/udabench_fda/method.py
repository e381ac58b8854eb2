"""FDA (Yang and Soatto, 2020): L = CE(source in the target's look) + CE(pseudo-labels) + entW * robust entropy."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Generator as Rng
from torch import Tensor, nn

from udabench.method import Batch, Event, Loss, Method, Panel, Samples, Setup, Stage
from udabench.network import Network, Output
from udabench.parts.domain_passes import domain_losses
from udabench.parts.entropy import normalised_entropy, robust_entropy
from udabench.parts.label_rules import QuantileRule
from udabench.parts.lengths import even_lengths
from udabench.parts.losses import segmentation_loss, upsample
from udabench.parts.panels import prediction_panel
from udabench.parts.pseudo_label_pass import PseudoLabelPass
from udabench.translate.apply import translate_source, whole_target
from udabench.translate.base import Translator
from udabench_fda.config import FDAConfig

LABEL = "pseudo_label"
Terms = tuple[Tensor, Mapping[str, Tensor]]
"""A loss, and its summands for the log."""


class FDA(Method):
    """A network for each band, trained one after the other; then rounds of self-training on their mean's labels.

    Networks that are not a stage's own take no part in its steps: no forward pass, no gradient, no optimiser state.
    """

    Config = FDAConfig
    outputs = ("source", "target")
    accumulates = True
    trained: Tensor
    """K bool: networks that have seen a step since they began from the initial weights."""

    def __init__(self, config: FDAConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.config = config
        self.networks = nn.ModuleList(setup.network() for _ in config.bands)
        options = {"window": config.window, "clamp": config.clamp}
        self.translators = nn.ModuleList(setup.translator("fda", {"beta": band} | options) for band in config.bands)
        self.register_buffer("trained", torch.zeros(len(config.bands), dtype=torch.bool))

    # Stages

    def stages(self) -> Sequence[Stage]:
        bands = range(len(self.config.bands))
        lengths = iter(even_lengths(self.setup.iterations, len(bands) * (self.config.rounds + 1)))
        stages = [self._training(0, band, next(lengths)) for band in bands]
        for number in range(1, self.config.rounds + 1):
            stages += self._labellings(number)
            stages += [self._training(number, band, next(lengths)) for band in bands]
        return stages

    def _training(self, number: int, band: int, iterations: int) -> Stage:
        """One network's training in one round; from round 1 on with pseudo-labels, and from the initial weights."""
        again = number > 0
        return Stage(
            f"adapt-{number}-{self.config.bands[band]:g}",
            iterations,
            partial(self.self_train if again else self.adapt, band),
            {"segmenter": self.setup.segmenter(self._network(band))},
            layers={LABEL: ("target", self._artefact(band))} if again else {},
            context=whole_target(self.setup) if self.config.translate_whole else None,
            start=partial(self._begin_anew, band) if again else None,
            after_step=partial(self._mark, band),
        )

    def _labellings(self, number: int) -> Iterator[Stage]:
        """The pass before a round: one for all networks, or one for each."""
        for band in range(1 if self.config.average else len(self.config.bands)):
            write = PseudoLabelPass(
                partial(self._label_probabilities, band),
                self.setup.task.classes,
                QuantileRule(self.config.label_share, self.config.label_cap),
                self._artefact(band),
            )
            name = f"labels-{number}" if self.config.average else f"labels-{number}-{self.config.bands[band]:g}"
            yield Stage(name, 0, domains=("target",), prepare=write)

    def _artefact(self, band: int) -> str:
        return LABEL if self.config.average else f"{LABEL}-{self.config.bands[band]:g}"

    def _begin_anew(self, band: int) -> None:
        self.networks[band] = self.setup.network()
        self.trained[band] = False

    def _mark(self, band: int, iteration: int) -> None:
        if iteration == 0:
            self.trained[band] = True

    # Steps

    def adapt(self, band: int, batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, None]:
        """One step of round 0: translated source, and the target's entropy."""
        wanted = self.config.entropy_weight > 0 and iteration > self.config.entropy_after
        yield from self._step(band, batch, rng, None, ("source", "target") if wanted else ("source",))

    def self_train(self, band: int, batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, None]:
        """One step of a later round: translated source, the target's pseudo-labels, and its entropy."""
        assert batch.target is not None
        label = batch.target.layers[LABEL]
        yield Panel("pseudo_label", lambda: label)
        yield from self._step(band, batch, rng, label, ("source", "target"))

    def _step(
        self, band: int, batch: Batch, rng: Rng, pseudo: Tensor | None, names: tuple[str, ...]
    ) -> Generator[Event, None, None]:
        assert batch.source is not None
        assert batch.target is not None
        source, target = batch.source, batch.target
        translated = translate_source(self._translator(band), batch, rng)

        def objective(name: str, output: Output) -> Terms:
            return self._supervised(output, source) if name == "source" else self._target_terms(output, target, pseudo)

        yield Panel("translated", lambda: translated.clamp(0, 1))
        images = {"source": translated, "target": target.image}
        wanted = {name: images[name] for name in names}
        for loss in domain_losses(self._network(band), wanted, objective, self.config.student_batch):
            yield loss
            yield from _panels(loss, target)

    def _supervised(self, output: Output, source: Samples) -> Terms:
        loss = segmentation_loss(output, source.label, reduction=self.config.ce_avg)
        return loss, {"source": loss}

    def _target_terms(self, output: Output, target: Samples, pseudo: Tensor | None) -> Terms:
        """The entropy, on the logits as they are, and the cross entropy where there are pseudo-labels."""
        entropy = robust_entropy(output.logits, self.config.entropy_eta, target.valid)
        value = self.config.entropy_weight * entropy
        if pseudo is None:
            return value, {"entropy": entropy}
        loss = segmentation_loss(output, pseudo, reduction=self.config.ce_avg)
        return value + loss, {"pseudo": loss, "entropy": entropy}

    # Predictions

    def predict(self, samples: Samples) -> Tensor:
        """Logarithm of the mean probability of the trained networks; of one network, its logits."""
        return self._joint_logits(samples) if self.config.average else self._logits(0, samples)

    def predictors(self) -> Mapping[str, Callable[[Samples], Tensor]]:
        """The mean first, then each network; one network alone is the student."""
        if len(self.networks) == 1:
            return {"student": self.predict}
        single = {f"band-{beta:g}": partial(self._logits, band) for band, beta in enumerate(self.config.bands)}
        return {"mean": self.predict, **single} if self.config.average else single

    def _joint_logits(self, samples: Samples) -> Tensor:
        bands = self._trained_bands()
        if len(bands) == 1:
            return self._logits(bands[0], samples)
        mean = self._mean_probability(samples)
        return mean.clamp(min=torch.finfo(mean.dtype).tiny).log()

    def _mean_probability(self, samples: Samples) -> Tensor:
        return torch.stack([self._probability(band, samples) for band in self._trained_bands()]).mean(0)

    def _label_probabilities(self, band: int, samples: Samples) -> Tensor:
        return self._mean_probability(samples) if self.config.average else self._probability(band, samples)

    def _probability(self, band: int, samples: Samples) -> Tensor:
        return self._logits(band, samples).float().softmax(1)

    def _logits(self, band: int, samples: Samples) -> Tensor:
        logits: Tensor = self._network(band)(samples.image).logits
        return logits

    def _trained_bands(self) -> list[int]:
        """Those that an evaluation in the middle of a run should ask; all, where none has been trained."""
        flags = self.trained.tolist()
        return [band for band, done in enumerate(flags) if done] or list(range(len(flags)))

    def _network(self, band: int) -> Network:
        return self.networks[band]  # type: ignore[return-value]

    def _translator(self, band: int) -> Translator:
        return self.translators[band]  # type: ignore[return-value]


def _panels(loss: Loss, target: Samples) -> Generator[Event, None, None]:
    """Of the pass that holds the target."""
    if "target" not in loss.outputs:
        return
    logits, size = loss.outputs["target"].logits.detach(), target.image.shape[-2:]
    yield Panel("target", lambda: target.image)
    yield Panel("entropy", lambda: upsample(normalised_entropy(logits)[:, None], size)[:, 0])
    yield prediction_panel(logits, size)
