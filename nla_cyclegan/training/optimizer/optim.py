"""Nadam (Dozat 2015; Sun 2023, sections 2.3 and 3.1), and Adam to compare it with.

Both are torch's own, number for number, with one thing more: a flag on the device can hold a step back. Nobody has to wait
for the device to learn whether the gradients were finite before the weights may move.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nla_cyclegan.training.config import OptimizerConfig
from nla_cyclegan.training.optimizer.loss_scale import LossScale

if TYPE_CHECKING:
    from nla_cyclegan.kernels.optimizer.step_count import StepCount
    from nla_cyclegan.kernels.optimizer.update import Update

EPS = 1e-8


class Adam(torch.optim.Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1), as the paper's section 3.1 writes it with mu for beta1 and nu for beta2.

    m_t = mu m_{t-1} + (1 - mu) g_t and n_t = nu n_{t-1} + (1 - nu) g_t^2; the step is -lr m_hat / (sqrt(n_hat) + eps) with
    m_hat = m_t / (1 - mu^t) and n_hat = n_t / (1 - nu^t).

    The state is laid out as torch's, but the count of steps lives on the device, and so do the rate and the corrections
    that follow from the count (in fp64): what a flag there may hold back cannot be counted here, and a CUDA graph replays a
    step with the numbers that are on the device then.

    Args:
        config: the first rate, and the decays.
        applies: bool scalar on the parameters' device. A step taken while it is False changes nothing: no weight, no
            moment, no count, whatever is in the gradients. None: every step applies.
        fused: move all parameters in one kernel (kernels/optimizer), equal up to rounding. Needs fp32 on CUDA, and Triton.
        loss_scale: by which the gradients are too large; its `applies` stands in place of the argument. Not with `fused`.

    Attributes:
        rate: fp64 scalar on the device, the learning rate.

    Raises: ValueError for parameters on several devices or of several types.
    """

    # As they are without the decorator by which torch's own import its compiler at their first call, two seconds of every start.
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)

    def __init__(
        self,
        config: OptimizerConfig,
        parameters: Iterable[nn.Parameter],
        applies: Tensor | None = None,
        *,
        fused: bool = False,
        loss_scale: LossScale | None = None,
    ) -> None:
        super().__init__(parameters, {})
        self.config = config
        everything = [parameter for group in self.param_groups for parameter in group["params"]]
        kinds = sorted({f"{parameter.dtype} on {parameter.device}" for parameter in everything})
        if len(kinds) > 1:
            raise ValueError(f"parameters of one device and one type are needed; got {', '.join(kinds)}")
        self.device, self.dtype = everything[0].device, everything[0].dtype
        self.applies = torch.ones((), dtype=torch.bool, device=self.device) if applies is None else applies
        self.loss_scale = loss_scale
        if loss_scale:
            self.applies = loss_scale.applies
        for parameter in everything:
            self.state[parameter] = self._start(parameter)
        self.rate = torch.tensor(config.lr, dtype=torch.float64, device=self.device)
        self._everything = everything
        self._update: Update | None = None
        self._step_count: StepCount | None = None
        if fused:
            # Only here, because they need Triton.
            from nla_cyclegan.kernels.optimizer.step_count import StepCount
            from nla_cyclegan.kernels.optimizer.update import Update

            moments = (self._all(name, everything) for name in ("exp_avg", "exp_avg_sq"))
            self._update = Update(everything, *moments, beta1=config.beta1, beta2=config.beta2, eps=EPS)
            products = self._all("mu_product", everything) if "mu_product" in self.state[everything[0]] else None
            self._step_count = StepCount(
                self._all("step", everything), products,
                beta1=config.beta1, beta2=config.beta2, momentum_decay=config.momentum_decay,
            )  # fmt: skip

    @torch.no_grad()
    def clipped_step(self, max_norm: float | None) -> None:
        """As `step`, after gradients whose L2 norm over all parameters exceeds `max_norm` are scaled down to it. None: no clipping.

        Gradients that are not finite turn `applies` to False, before anything moves; with a loss scale for this step alone.
        """
        if self._update and self._step_count:
            gradients = self._update.gradients()
            norm = self._update.grad_norm(gradients)
            factors = self._step_count.advance(norm, self.rate, self.applies, max_norm)
            self._update.apply(gradients, factors, self.applies)
        else:
            found = [_gradient(parameter) for parameter in self._everything]
            if self.loss_scale:
                self.loss_scale.unscale(found)
            norm = nn.utils.get_total_norm(found)
            if self.loss_scale:
                self.loss_scale.update(norm)
            else:
                self.applies &= norm.isfinite()
            if max_norm is not None:
                nn.utils.clip_grads_with_norm_(self._everything, max_norm, norm)
            self.step()

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Move every parameter along its gradient, if `applies` says so. Raises: ValueError if one has no gradient."""
        factors = [factor.to(self.dtype) for factor in (-self.rate, *self._count(self._everything))]
        # Few launches on a GPU; on a CPU one tensor after the other, which then stays in its cache.
        parts = [self._everything] if self.device.type == "cuda" else [[parameter] for parameter in self._everything]
        for part in parts:
            self._move(part, *factors)

    def _start(self, parameter: Tensor) -> dict[str, Tensor]:
        return {
            "step": torch.zeros((), dtype=torch.float64, device=self.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }

    def _count(self, parameters: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Count the step, and work out the factors of g_t and m_t in its direction, and that of sqrt(n_t) below them."""
        steps = self._all("step", parameters)
        # Without alpha the scalar would be read, and the device waited for.
        torch._foreach_add_(steps, self.applies.to(torch.float64), alpha=1)
        # Held at the very first step the count is still 0: any finite factor of a zero will do.
        t = steps[0].clamp(min=1)
        return torch.zeros_like(t), 1 / (1 - self.config.beta1**t), (1 - self.config.beta2**t).rsqrt()

    def _move(self, parameters: list[Tensor], minus_lr: Tensor, of_g: Tensor, of_m: Tensor, of_root: Tensor) -> None:
        m, n = self._all("exp_avg", parameters), self._all("exp_avg_sq", parameters)
        on, beta1, beta2 = self.applies.to(torch.float64), self.config.beta1, self.config.beta2
        # Selected, not multiplied, because 0 times NaN is NaN. A held step then has gradients and a rate of 0 and decays of 1.
        g = [torch.where(self.applies, _gradient(parameter), 0.0) for parameter in parameters]
        torch._foreach_mul_(m, (1 - (1 - beta1) * on).to(self.dtype))
        torch._foreach_add_(m, g, alpha=1 - beta1)
        torch._foreach_mul_(n, (1 - (1 - beta2) * on).to(self.dtype))
        torch._foreach_addcmul_(n, g, g, value=1 - beta2)

        below = torch._foreach_sqrt(n)
        torch._foreach_mul_(below, of_root)
        torch._foreach_add_(below, EPS)
        direction = torch._foreach_mul(m, (of_m * on).to(self.dtype))
        torch._foreach_mul_(g, of_g)
        torch._foreach_add_(direction, g)
        torch._foreach_mul_(direction, minus_lr)
        torch._foreach_addcdiv_(parameters, direction, below)

    def _all(self, name: str, parameters: list[Tensor]) -> list[Tensor]:
        return [self.state[parameter][name] for parameter in parameters]


class Nadam(Adam):
    """Adam that looks ahead by the next step's momentum, after Nesterov (Dozat 2015, algorithm 2; Sun 2023, section 3.1).

    g_hat = g_t / (1 - prod_{i<=t} mu_i), m_hat = m_t / (1 - prod_{i<=t+1} mu_i), and the step is
    -lr ((1 - mu_t) g_hat + mu_{t+1} m_hat) / (sqrt(n_hat) + eps), with mu_t = mu (1 - 0.5 * 0.96^(t * momentum_decay)).
    """

    def _start(self, parameter: Tensor) -> dict[str, Tensor]:
        return super()._start(parameter) | {"mu_product": torch.ones((), dtype=torch.float64, device=self.device)}

    def _count(self, parameters: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        _, _, of_root = super()._count(parameters)
        t, beta1 = self.state[parameters[0]]["step"], self.config.beta1
        mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (k * self.config.momentum_decay)) for k in (t, t + 1))
        products = self._all("mu_product", parameters)
        torch._foreach_mul_(products, torch.where(self.applies, mu, 1.0))
        # At most beta1 after a step; still 1 when the very first one is held.
        product = products[0].clamp(max=beta1)
        return (1 - mu) / (1 - product), mu_next / (1 - product * mu_next), of_root


def _gradient(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        raise ValueError(f"a parameter of shape {list(parameter.shape)} has no gradient; leave it out, or use it")
    return parameter.grad


def make_optimizer(
    config: OptimizerConfig,
    parameters: Iterable[nn.Parameter],
    applies: Tensor | None = None,
    *,
    fused: bool = False,
    loss_scale: LossScale | None = None,
) -> Adam:
    """The optimizer of that config; the rest as in Adam."""
    kind = {"adam": Adam, "nadam": Nadam}[config.name]
    return kind(config, parameters, applies, fused=fused, loss_scale=loss_scale)
