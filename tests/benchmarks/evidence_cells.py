"""What evidence.py compares: kinds of runs (cells), two sizes, and which runs are wanted of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from nla_cyclegan import DiscriminatorConfig, GeneratorConfig, ModelConfig, OptimizerConfig, ScheduleConfig, StepConfig

RATES = (1e-4, 2e-4, 4e-4)
RATE_SEED = 1000
PILOT_SEEDS = (RATE_SEED, 1001, 1002)
"""Outside the test, whose seeds count from 0. The runs that chose a rate are a pilot's too."""
EVALUATIONS, LAST = 10, 3
"""Along a run, evenly; the value of a run is the mean of the last ones."""


@dataclass(frozen=True)
class Size:
    """How large the networks and the runs are."""

    crop: int
    """Side in pixels of the training crops."""
    channels: int
    blocks: int
    pairs: int
    """Image pairs of a run; a step takes one, as the paper's."""
    precision: str
    together: int
    """Runs at a time."""
    samples: int = 400
    """Images of each domain to draw, where none are given."""

    @property
    def load(self) -> int:
        """Side in pixels of the images, in the paper's proportion of 286 to crops of 256; a multiple of 4. They are evaluated whole."""
        return round(self.crop * 286 / 256 / 4) * 4

    @property
    def ema_half_life(self) -> int:
        return max(1, self.pairs // 40)

    @property
    def schedule(self) -> ScheduleConfig:
        return ScheduleConfig(images=self.pairs)


SIZES = {
    "tiny": Size(crop=32, channels=4, blocks=2, pairs=20, precision="fp32", together=2, samples=8),
    "cpu": Size(crop=64, channels=16, blocks=9, pairs=900, precision="bf16", together=2),
    "brief": Size(crop=128, channels=64, blocks=9, pairs=1_500, precision="bf16", together=6),
    "gpu": Size(crop=128, channels=64, blocks=9, pairs=40_000, precision="bf16", together=6),
}


@dataclass(frozen=True)
class Network:
    """A reading of the paper's network."""

    name: str
    said: str
    """The paper's words."""
    generator: dict[str, Any]
    discriminator: dict[str, Any]

    def model(self, size: Size) -> ModelConfig:
        widths = {"base_channels": size.channels}
        generator = GeneratorConfig(**widths, num_blocks=size.blocks, **self.generator)
        return ModelConfig(generator=generator, discriminator=DiscriminatorConfig(**widths, **self.discriminator))


@dataclass(frozen=True)
class Cell:
    """A kind of runs: a network under an optimizer."""

    network: Network
    optimizer: str

    @property
    def name(self) -> str:
        return f"{self.network.name}, {self.optimizer}"


NLA_BLOCK = {"nonlocal_blocks": "middle", "nonlocal_gain": "fixed"}
CYCLEGAN = Network("CycleGAN", "the base model (section 2.2)", {"nonlocal_blocks": "none"}, {})
NLA = Network("NLA-CycleGAN", '"a non-local block z_i = W_z y_i + x_i" (section 2.2): the gain is 1', NLA_BLOCK, {})
LEARNED = Network(
    "NLA-CycleGAN, learned gain", "our reading: W_z times a gain that is learned from 0",
    NLA_BLOCK | {"nonlocal_gain": 0.0}, {},
)  # fmt: skip
MASKED = Network(
    "NLA-CycleGAN, masked", '"the attention maps are combined with the input image" (section 4)',
    NLA_BLOCK | {"output": "masked"}, {},
)  # fmt: skip
ATTENTION_IN_BOTH = Network(
    "NLA-CycleGAN, discriminators too", '"provides the generator and discriminator with greater ability" (section 3.2)',
    NLA_BLOCK, {"nonlocal_blocks": (2,), "nonlocal_gain": "fixed"},
)  # fmt: skip
ALL = Network(
    "NLA-CycleGAN, all blocks", '"to replace the residual network block" (section 2.2)',
    NLA_BLOCK | {"nonlocal_blocks": "all"}, {},
)  # fmt: skip

ADAM, NADAM, NADAM_LATE = "Adam", "Nadam", "Nadam, mu = beta1"
OPTIMIZERS: dict[str, dict[str, Any]] = {
    ADAM: {"name": "adam"},
    # As published: mu rises from half of beta1, to 0.49 after 19,713 steps, 2 % of the paper's run.
    NADAM: {"name": "nadam"},
    # As in the other 98 %: mu is beta1 from the start.
    NADAM_LATE: {"name": "nadam", "momentum_decay": 1000.0},
}
PRIMARY = tuple(Cell(network, optimizer) for network, optimizer in product((CYCLEGAN, NLA), (ADAM, NADAM)))
DESCRIPTIVE = (
    Cell(CYCLEGAN, NADAM_LATE), Cell(NLA, NADAM_LATE), Cell(LEARNED, NADAM), Cell(MASKED, NADAM), Cell(ATTENTION_IN_BOTH, NADAM), Cell(ALL, NADAM),
)  # fmt: skip
CELLS = {cell.name: cell for cell in (*PRIMARY, *DESCRIPTIVE)}


@dataclass(frozen=True)
class Wanted:
    """A run that is to be made."""

    cell: str
    rate: float
    seed: int

    @property
    def key(self) -> str:
        return f"{self.cell}, {self.rate:g}, seed {self.seed}"

    def optimizer(self) -> OptimizerConfig:
        return OptimizerConfig(lr=self.rate, **OPTIMIZERS[CELLS[self.cell].optimizer])


def step_config(size: Size) -> StepConfig:
    return StepConfig(precision=size.precision, ema_half_life=size.ema_half_life)  # type: ignore[arg-type]


def for_rates() -> list[Wanted]:
    """Each optimizer at each rate, on both networks, with a seed outside the test."""
    return [
        Wanted(Cell(network, optimizer).name, rate, RATE_SEED)
        for optimizer, rate, network in product(OPTIMIZERS, RATES, (CYCLEGAN, NLA))
    ]


def for_seeds(cells: Sequence[Cell], seeds: Sequence[int], rates: dict[str, float]) -> list[Wanted]:
    """Those cells, each optimizer at its rate, seed by seed."""
    return [Wanted(cell.name, rates[cell.optimizer], seed) for seed in seeds for cell in cells]
