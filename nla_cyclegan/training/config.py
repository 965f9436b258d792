"""The settings of a training step. Needs pydantic alone, so that a configuration is read without torch."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

Augmentation = Literal["color", "translation", "cutout"]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class LossConfig(_Settings):
    """Weights of the generators' losses, relative to the adversarial loss, which has weight 1."""

    cycle: float = Field(default=10.0, ge=0)
    """Weight of the cycle-consistency loss (lambda in Zhu et al., Eq. 3)."""
    identity: float = Field(default=0.5, ge=0)
    """Weight of the identity loss, as a fraction of the cycle weight (CycleGAN for paintings: 0.5); 0 skips its forward passes."""
    augment: tuple[Augmentation, ...] = ()
    """Random, differentiable changes to what the discriminators see, real and generated images alike (Zhao et al. 2020, DiffAugment):
    color, translation (by up to an eighth), cutout (a hole of half the side). For domains of few images."""


class OptimizerConfig(_Settings):
    """The optimizer of generators and discriminators; the defaults are the paper's, with CycleGAN's betas."""

    name: Literal["nadam", "adam"] = "nadam"
    """nadam is the paper's; adam is CycleGAN's."""
    lr: float = Field(default=2e-4, gt=0, le=1)
    """Learning rate in the constant part of the schedule, for generators and discriminators."""
    discriminator_lr: float | None = Field(default=None, gt=0, le=1)
    """A separate rate for the discriminators, on the same schedule (Heusel et al. 2017, TTUR); none: lr."""
    beta1: float = Field(default=0.5, ge=0, lt=1)
    """Decay of the first moment (mu in the paper)."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the second moment (nu in the paper)."""
    momentum_decay: float = Field(default=4e-3, ge=0)
    """Nadam only: mu_t = beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay)), Dozat's warming momentum schedule."""


Networks = Literal["generators", "networks"]

# A field with the name of a keyword can only be made like this.
_From: type[BaseModel] = create_model("_From", __base__=_Settings, **{"from": (str | None, Field(None, min_length=1, description=(
    "Weights to start from: a run (RUN@best, RUN@newest, RUN@120000), a checkpoint's folder, a generator's file, or a folder of "
    "pytorch-CycleGAN-and-pix2pix; a path or a URI; none: random weights."
)))})  # type: ignore[call-overload]  # fmt: skip


class InitConfig(_From):
    """The weights that a run starts from. They are read only while the run has no checkpoint of its own."""

    what: Networks = "generators"
    """generators: the generators only; networks: the discriminators too."""
    freeze: tuple[str, ...] = ()
    """Networks, or modules in them, whose weights are not trained: generator_ab.encoder,generator_ba.encoder."""

    @property
    def source(self) -> str | None:
        """`from`, which is a keyword."""
        return getattr(self, "from")

    @model_validator(mode="after")
    def _frozen_is_given(self) -> "InitConfig":
        if self.freeze and self.source is None:
            raise ValueError("init.freeze without init.from would keep random weights; give --init.from")
        return self


class ScheduleConfig(_Settings):
    """Length of a run and course of its learning rate, in images seen (image pairs consumed by all workers)."""

    epochs: float = Field(default=150, gt=0, lt=1e9)
    """Length of the run; one epoch is as many pairs as the larger domain has images."""
    images: int | None = Field(default=None, ge=1)
    """Length of the run in image pairs; when set, it replaces `epochs`."""
    constant: float = Field(default=2 / 3, ge=0, le=1)
    """Fraction of the run with a constant learning rate, which then falls linearly to 0 (the paper: 100 of 150 epochs)."""


class StepConfig(_Settings):
    """How a step is computed."""

    precision: Literal["fp32", "bf16", "fp16", "fp64"] = "fp32"
    """bf16 runs the networks under bfloat16 autocast, with weights, optimizer and losses in fp32. fp16 does so with float16 and a loss
    scale, for GPUs before compute capability 8.0 (T4, V100), which have no bf16. fp64 is for comparing arithmetic."""
    kernels: Literal["auto", "fused", "plain"] = "auto"
    """fused: Triton kernels for everything between the convolutions; plain: PyTorch's own; auto: fused on CUDA devices that the kernels
    support."""
    graph: bool | None = None
    """CUDA only: replay the whole step as one CUDA graph; none: yes with one worker, no with several."""
    channels_last: bool | None = None
    """Keep images and convolution weights in NHWC memory order; none: yes with fused kernels, else no."""
    cudnn_benchmark: bool = True
    """CUDA only: let cuDNN time its convolution algorithms at the first step and keep the fastest."""
    tf32: bool = True
    """CUDA only: multiply fp32 matrices in TF32, with 10 bits of mantissa."""
    deterministic: bool = False
    """CUDA only: runs and resumes are equal bit for bit, but slower: only deterministic algorithms, no cudnn_benchmark."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Most image pairs that a worker processes at once. A larger part of the batch is processed in rounds, whose gradients add up to the
    same, in the memory of one round; none: all at once."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Gradients whose L2 norm over both generators, or both discriminators, is above this are scaled down to it; none: no clipping."""
    ema_half_life: int | None = Field(default=None, ge=1)
    """Half-life, in images seen, of an exponential moving average (EMA) of the generators' weights. Validation then measures the EMA, and
    the generators' files contain it; none: no EMA."""
    pool_size: int = Field(default=50, ge=0)
    """Generated images of each domain kept for the discriminators, over all workers together; 0 turns the image pool off."""

    @model_validator(mode="before")
    @classmethod
    def _without_removed_fields(cls, fields: Any) -> Any:
        """Version 0.1 stored `compile`, which changed no result."""
        return (
            {name: value for name, value in fields.items() if name != "compile"} if isinstance(fields, dict) else fields
        )
