"""Nadam (Dozat 2015; Sun 2023, sections 2.3 and 3.1), Adam to compare it with, and the learning rate as a function of images seen."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn


class OptimizerConfig(BaseModel):
    """The optimizer of both players; the defaults are the paper's, and CycleGAN's betas."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: Literal["nadam", "adam"] = "nadam"
    """nadam is the paper's; adam is CycleGAN's."""
    lr: float = Field(2e-4, gt=0, le=1)
    """Learning rate of the constant part of the schedule, generators and discriminators alike."""
    beta1: float = Field(0.5, ge=0, lt=1)
    """Decay of the first moment (mu in the paper)."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Decay of the second moment (nu in the paper)."""
    momentum_decay: float = Field(4e-3, ge=0)
    """Nadam only: mu_t = beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay)), Dozat's warming momentum schedule."""


class ScheduleConfig(BaseModel):
    """Length of a run and course of its learning rate, counted in images seen (image pairs consumed by all workers)."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    epochs: float = Field(150, gt=0)
    """Length of the run; one epoch is as many pairs as the larger domain has images."""
    images: int | None = Field(None, ge=1)
    """Length of the run in image pairs; when set, it stands instead of `epochs`."""
    constant: float = Field(2 / 3, ge=0, le=1)
    """Part of the run with a constant learning rate, which then falls linearly to 0 (the paper: 100 of 150 epochs)."""


def make_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    betas = (config.beta1, config.beta2)
    if config.name == "adam":
        return torch.optim.Adam(parameters, lr=config.lr, betas=betas)
    return torch.optim.NAdam(parameters, lr=config.lr, betas=betas, momentum_decay=config.momentum_decay)


def total_images(schedule: ScheduleConfig, epoch_images: int, global_batch: int) -> int:
    """Images seen at the end of the run: the schedule's length, rounded up to whole global batches."""
    wanted = schedule.images if schedule.images is not None else schedule.epochs * epoch_images
    return math.ceil(wanted / global_batch) * global_batch


def learning_rate(lr: float, schedule: ScheduleConfig, images_seen: int, total: int) -> float:
    """The rate of the step that follows `images_seen` images: `lr`, then linearly down to 0 at `total` (Sun 2023, section 2.3).

    A pure function of the images seen, so nothing of it is saved and a resumed run cannot get it wrong.
    """
    constant = schedule.constant * total
    if images_seen < constant:
        return lr
    return lr * (total - images_seen) / (total - constant)
