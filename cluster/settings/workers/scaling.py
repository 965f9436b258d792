"""The section `scaling` of a run's configuration: the workers that are asked for."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from cluster.settings.workers.capacity import SMALLEST_SHARE
from cluster.settings.workers.selector import Selector, check_accelerator, parse_labels

# About the time in which a cloud replaces a machine.
LOSS_WAIT_S = 600.0


def parse_workers(value: Any) -> Any:
    """3, "3", "2,8", [2, 8] -> 3 or (2, 8); None and [None] -> None; ValueError for anything else."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    if list(parts) == [None]:
        return None
    try:
        # As text: int() alone would make a 2 of 2.5, and a 1 of `true`.
        numbers = tuple(int(str(part)) for part in parts)
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 2) or numbers[0] < 1 or list(numbers) != sorted(numbers):
        raise ValueError("expected a number of workers from 1 on, or `min,max` for a group that may shrink and grow")
    return numbers[0] if len(numbers) == 1 else numbers


class ScalingConfig(BaseModel):
    """The worker group: data-parallel workers, one process each."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    workers: Annotated[int | tuple[int, int] | None, BeforeValidator(parse_workers)] = None
    """Number of workers, or `min,max` for a group that may shrink and grow; none: one for each free GPU, or 1 without GPUs."""
    gpu: bool | None = None
    """true: one GPU for each worker; false: CPU cores only, even if there are GPUs; none: GPUs if there are any."""
    cpus_per_worker: float | None = Field(default=None, gt=0, lt=1e6)
    """CPU cores reserved for each worker, and its number of threads; none: an even share of the machines' cores."""
    gpus_per_worker: float = Field(default=1, ge=SMALLEST_SHARE, le=1)
    """The share of a GPU for each worker: with 0.25 four runs or trials, of one worker each, share one."""
    accelerator: Annotated[str, AfterValidator(check_accelerator)] | None = None
    """Use only machines with this accelerator, by Ray's name: H100, L4; none: any machine."""
    labels: Annotated[dict[str, str], BeforeValidator(parse_labels)] = {}
    """Use only machines with these labels (`ray start --labels zone=a`): zone=a, zone=!a for all others, zone=in(a,b), zone=!in(a,b)."""
    placement: Literal["pack", "spread"] = "pack"
    """pack: on as few machines as possible; spread: on as many as possible."""
    max_failures: int = Field(default=3, ge=0)
    """How many failures in a row, without a new checkpoint in between, restart the run from the last one; at the next it gives up."""
    timeout_s: float = Field(default=600, gt=0, lt=1e9)
    """Seconds without any progress after which a worker counts as hung, and the run restarts from the last checkpoint. A
    step, an evaluation and a restart must take less; the first step includes compiling kernels and capturing the CUDA graph."""
    wait_s: float | None = Field(default=None, ge=0)
    """Seconds to wait for machines, at the start and after losing some, before the run gives up; none: 600 s for lost machines and for
    those that an autoscaler can start; without an autoscaler, too few machines at the start are refused at once."""
    resize_s: float = Field(default=60, gt=0)
    """Seconds between two checks whether a group that may grow has room to. Before it grows it waits until no machine has joined for
    as long (15 s at most), but not longer than four times that in all; it then saves a checkpoint, within 60 s, and restarts from it."""

    @field_validator("gpus_per_worker")
    @classmethod
    def _is_not_shared_by_ranks(cls, share: float, others: ValidationInfo) -> float:
        if share < 1 and others.data.get("workers") not in (None, 1):
            raise ValueError(
                "a part of a GPU is for one worker, as NCCL lets no two ranks use one GPU; give --scaling.workers 1"
            )
        if share < 1 and others.data.get("gpu") is False:
            raise ValueError("scaling.gpu is false; leave one of them out")
        return share

    @property
    def selector(self) -> Selector:
        return Selector(self.accelerator, self.labels)

    @property
    def loss_wait_s(self) -> float:
        return LOSS_WAIT_S if self.wait_s is None else self.wait_s

    @property
    def max_workers(self) -> int:
        """The maximum number of workers; 1 if the number depends on the cluster."""
        return self.workers[1] if isinstance(self.workers, tuple) else self.workers or 1
