"""Means over a set of values that are measured for each image or pair of images."""

import math

import torch
from torch import Tensor

from nla_cyclegan.metrics.similarity import psnr, scene_ssim, ssim


class Mean:
    """The mean of numbers that are added in groups; it does not depend on their order and grouping."""

    def __init__(self) -> None:
        self._values: list[float] = []

    def add(self, values_B: Tensor) -> None:
        self._values += values_B.tolist()

    @property
    def value(self) -> float | None:
        """The mean; None without numbers."""
        return math.fsum(self._values) / len(self._values) if self._values else None


class Pairs:
    """Similarity of images to their inputs and, where they are known, to the true results."""

    def __init__(self) -> None:
        self.content, self.scene, self.psnr_truth, self.ssim_truth = Mean(), Mean(), Mean(), Mean()

    def add(self, images_BCHW: Tensor, inputs_BCHW: Tensor, truth_BCHW: Tensor | None = None) -> None:
        """Add images, their inputs and their true results, all uint8 [B, 3, H, W]."""
        for mean, similarity in ((self.content, ssim), (self.scene, scene_ssim)):
            same = images_BCHW is inputs_BCHW
            mean.add(torch.ones(len(images_BCHW)) if same else similarity(images_BCHW, inputs_BCHW))
        if truth_BCHW is not None:
            self.psnr_truth.add(psnr(images_BCHW, truth_BCHW))
            self.ssim_truth.add(ssim(images_BCHW, truth_BCHW))
