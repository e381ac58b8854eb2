"""CycleGAN (Zhu et al. 2017): two generators that undo each other, by the paper and the authors' code."""

from __future__ import annotations

from collections.abc import Generator as Events

from torch import Generator as Rng
from torch import Tensor, nn

from udabench.method import Domain, Event, Group, Optimizer
from udabench.networks.discriminator import PatchDiscriminator
from udabench.networks.generator import GlobalGenerator
from udabench.networks.layers import zero_biases
from udabench.parts.adversarial import ImagePool, distance, generator_loss
from udabench.schedules import LinearSchedule
from udabench.size import Size
from udabench.translate.bounds import all_within
from udabench.translate.learnt import FORM, GENERATORS, OTHER, Images, LearntTranslator, loss_of


class CycleGAN(LearntTranslator):
    """``sum over domains: LSGAN + cycle * |cycled - real| + cycle * identity * |G(real) - real|``, means of absolutes.

    ResNet generators, 70x70 PatchGANs; weights start as N(0, 0.02), biases as 0. Both players are stepped at the end of
    a step, as in the code: the discriminators on what the generators made before they were stepped, out of the pool.

    Args:
        width: of the generators' stem.
        blocks: their residual blocks; 9 for images of 256 pixels and more, 6 for smaller ones (paper).
        discriminator_width: channels of the discriminators' first layer.
        discriminator_layers: their convolutions of stride 2; 3: patches of 70x70.
        pool: images of each look that are kept for the discriminators.
        cycle_source, cycle_target: lambda of source images that come back, and of target images.
        identity: of leaving alone what has the look already, times the domain's lambda; 0.5 in the code, used in the
            paper for paintings alone.
        lr: of both players: constant, and from the half on linear to 0.
    """

    def __init__(
        self,
        width: int = 64,
        blocks: int = 9,
        discriminator_width: int = 64,
        discriminator_layers: int = 3,
        pool: int = 50,
        cycle_source: float = 10.0,
        cycle_target: float = 10.0,
        identity: float = 0.5,
        lr: float = 2e-4,
    ) -> None:
        all_within("cyclegan", 1, 1024, width=width, blocks=blocks, discriminator_width=discriminator_width)
        all_within("cyclegan", 1, 6, discriminator_layers=discriminator_layers)
        all_within("cyclegan", 0, 10_000, pool=pool)
        all_within("cyclegan", 0, 1000, cycle_source=cycle_source, cycle_target=cycle_target, identity=identity)
        all_within("cyclegan", 0, 1, lr=lr)
        super().__init__(
            {d: GlobalGenerator(3, width=width, downs=2, blocks=blocks) for d in OTHER},
            {d: PatchDiscriminator(3, discriminator_width, discriminator_layers, padding=1) for d in OTHER},
        )
        zero_biases(self)
        self.cycle: dict[Domain, float] = {"source": cycle_source, "target": cycle_target}
        self.capacity, self.identity, self.lr = pool, identity, lr
        self.pools = nn.ModuleDict()

    def prepare(self, size: Size) -> None:
        super().prepare(size)
        self.pools.update({d: ImagePool(self.capacity, 3, size) for d in OTHER})

    def optimizer(self, player: nn.Module) -> Optimizer:
        groups = [Group(tuple(player.parameters()), self.lr)]
        return Optimizer("adam", groups, {"betas": (0.5, 0.999)}, LinearSchedule())

    def turn(self, image: Tensor, look: Domain) -> Tensor:
        made: Tensor = self.generators[look](image)
        return made

    def play(self, real: Images, rng: Rng) -> Events[Event, None, None]:
        if not self.pools:
            raise ValueError("CycleGAN.prepare(size) comes before the first step")
        made = {d: self.turn(real[other], d) for d, other in OTHER.items()}
        yield loss_of(GENERATORS, self._terms(real, made))
        yield from self.discriminate(real, {d: self.pools[d](made[d], rng) for d in OTHER})

    def _terms(self, real: Images, made: Images) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for domain, other in OTHER.items():
            cycle, goal = self.cycle[domain], real[domain]
            terms[f"adversarial_{domain}"] = generator_loss(self.discriminators[domain](made[domain]), FORM)
            terms[f"cycle_{domain}"] = cycle * distance(self.turn(made[other], domain), goal)
            if self.identity:
                terms[f"identity_{domain}"] = cycle * self.identity * distance(self.turn(goal, domain), goal)
        return terms
