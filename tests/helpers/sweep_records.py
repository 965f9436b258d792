"""Records of sweeps without any training, with scores that depend on the values of the trials."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import tiny
from PIL import Image

from cluster.records.fields import flat
from cluster.settings.config import RunConfig
from data_shards.storage.folder import RunFolder
from tuning.analysis.results import SWEEP, TRIAL, Evaluation, Session, Trial
from tuning.search_space.space import Dimension, Space, count, override, sample

TOTAL, EVERY, BLOCKS = 900, 100, 3
RUNGS = (100, 300)
SPACE: Space = {
    "optimizer.lr": Dimension(loguniform=(1e-5, 3e-3)),
    "optimizer.beta1": Dimension(uniform=(0.3, 0.9)),
    "optimizer.momentum_decay": Dimension(loguniform=(1e-3, 3e-2)),
    "model.generator.nonlocal_blocks": Dimension(choice=[[], [0], [1], [2], [0, 1, 2]]),
}
PAPER: Space = {
    "optimizer.name": Dimension(grid=["adam", "nadam"]),
    "model.generator.nonlocal_blocks": Dimension(grid=[[], [1]]),
}


def evaluation(images: int, score: float) -> Evaluation:
    return Evaluation(images=images, score=score, distances={"swd_A2B": score - 1, "swd_B2A": score + 1})


def trial(number: int, state: str = "running", scores: tuple[float, ...] = (), lr: float = 0.001) -> Trial:
    """A record of a trial with an evaluation every 100 images."""
    measured = [evaluation(100 * (index + 1), score) for index, score in enumerate(scores)]
    overrides = {"optimizer.lr": lr, "model.generator.nonlocal_blocks": [0, 1]}
    config = {"observe": {"tensorboard": True}}
    return Trial.model_validate(
        {"number": number, "overrides": overrides, "config": config, "state": state, "evaluations": measured}
    )


def base(storage: Path, space: Space) -> RunConfig:
    return tiny.config(
        "/shards",
        storage,
        schedule={"images": TOTAL},
        validation={"every": EVERY},
        model={"generator": {"base_channels": 2, "num_blocks": BLOCKS, "nonlocal_blocks": []}},
    )


def quality(config: RunConfig) -> float:
    """The score that such a trial ends with: best near lr 3e-4, then by placement, little by beta1."""
    placement = {(): 6.0, (0,): 4.0, (1,): 0.0, (2,): 2.0}.get(config.model.generator.nonlocal_blocks, 1.0)
    rate = 9 * abs(math.log10(config.optimizer.lr / 3e-4)) ** 1.5
    optimizer = 3.0 if config.optimizer.name == "adam" else 0.0
    return 55 + rate + placement + optimizer + 4 * abs(config.optimizer.beta1 - 0.5)


def course(config: RunConfig, seed: int, images: int = TOTAL) -> list[Evaluation]:
    """Evaluations on the way there."""
    random, end = np.random.default_rng(seed), quality(config)
    slow = 500 if config.optimizer.name == "adam" else 300
    found = []
    for seen in range(EVERY, images + 1, EVERY):
        score = end + 60 * math.exp(-seen / slow) + random.normal(0, 1.2)
        found.append(Evaluation(images=seen, score=score, distances={"swd_A2B": score - 4, "swd_B2A": score + 4}))
    return found


def successive_halving(trials: list[Trial], reduction: int = 3) -> None:
    """Stops all but the best of each rung, as a synchronous ASHA would."""
    alive = list(trials)
    for rung in RUNGS:
        alive.sort(key=lambda trial: trial.evaluations[rung // EVERY - 1].score)
        keep = max(1, len(alive) // reduction)
        for trial in alive[keep:]:
            trial.state, trial.evaluations = "stopped", trial.evaluations[: rung // EVERY]
        alive = alive[:keep]


def sweep(
    folder: Path,
    trials: int = 10,
    *,
    name: str = "fabricated",
    scheduler: str = "asha",
    seed: int = 0,
    is_timed: bool = False,
) -> str:
    """Write a sweep of so many trials, of which one diverged, one failed and one runs if there are ten; its URI.

    Args:
        is_timed: with times of evaluations and sessions, see `take_time`.
    """
    configs = [(sample(SPACE, seed, number), number) for number in range(trials)]
    made = [_trial(folder, name, SPACE, overrides, number) for overrides, number in configs]
    if scheduler == "asha":
        successive_halving(made)
    if trials >= 10:
        worst, failing, running = made[3], made[5], made[-1]
        worst.state, worst.reason, worst.evaluations = "diverged", "the loss is not finite", worst.evaluations[:1]
        failing.state, failing.reason, failing.evaluations = "failed", "OSError: disk full", []
        running.state, running.evaluations = "running", running.evaluations[:1]
    if is_timed:
        take_time(made)
    return write(folder, name, SPACE, made, trials, scheduler)


def take_time(trials: list[Trial], hosts: int = 2, begin: float = 1.7e9) -> None:
    """Sessions on hosts of two lanes, a second an image; the second trial loses its process halfway, and resumes."""
    free = [begin] * (2 * hosts)
    for trial in trials:
        lane = free.index(min(free))
        start, host = free[lane], f"host-{lane // 2}"
        trial.evaluations = [each.model_copy(update={"time": start + each.images}) for each in trial.evaluations]
        end = start + max(30, trial.images)
        is_running = trial.state == "running"
        outcome = "interrupted" if trial.state == "waiting" else trial.state
        last = Session(start=start, end=None if is_running else end, host=host, outcome=outcome)
        trial.sessions = [last]
        if trial.number == 1:
            half = (start + end) / 2
            lost = Session(start=start, end=half, host=host, outcome="lost")
            trial.sessions = [lost, last.model_copy(update={"start": half + 5})]
        free[lane] = end + 10


def paper(folder: Path, seeds: int = 3, *, name: str = "paper", losses: bool = True) -> str:
    """Write the paper's comparisons, each with so many seeds; its URI."""
    space: Space = PAPER | {"seed": Dimension(grid=list(range(seeds)))}
    total = count(space, 1)
    made = [_trial(folder, name, space, sample(space, 0, number), number) for number in range(total)]
    uri = write(folder, name, space, made, 1, "none")
    for trial in made if losses else ():
        records = "".join(json.dumps(record) + "\n" for record in _losses(trial))
        RunFolder(uri, trial.name).write("metrics.jsonl", records.encode())
    return uri


def write(folder: Path, name: str, space: Space, trials: list[Trial], draws: int, scheduler: str) -> str:
    storage = RunFolder(str(folder), name)
    storage.write_json(
        SWEEP,
        {
            "sweep": {
                "name": name,
                "storage": str(folder),
                "train": "cluster/configs/demo.yaml",
                "space": {field: dimension.model_dump(mode="json") for field, dimension in space.items()},
                "search": "random",
                "trials": draws,
                "scheduler": scheduler,
                "asha": {"grace": RUNGS[0], "reduction": 3},
                "seed": 0,
            },
            "run": base(folder, space).model_dump(mode="json"),
            "dataset": "b3c1f0",
        },
    )
    for trial in trials:
        storage.write_json(f"{trial.name}/{TRIAL}", trial.model_dump(mode="json"))
    return storage.path


def preview(uri: str, number: int, images: int = TOTAL, rows: int = 3, grain: int = 2) -> None:
    """A preview grid in a trial's folder: random pictures, in the columns of a run's previews.

    Args:
        grain: blobs of a picture across; 256 is noise, which no codec makes small.
    """
    random = np.random.default_rng([number, images])
    small = random.integers(0, 256, (rows * grain, 5 * grain, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((5 * 256, rows * 256), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    trial = RunFolder(uri, f"trial-{number:04d}")
    trial.write(f"previews/images_{images:012d}.png", buffer.getvalue())


def _trial(folder: Path, name: str, space: Space, overrides: dict[str, Any], number: int) -> Trial:
    config = override(base(folder / name, space), overrides).model_copy(update={"name": f"trial-{number:04d}"})
    dumped = config.model_dump(mode="json")
    return Trial(
        number=number,
        overrides={field: flat(dumped)[field] for field in overrides},
        config=dumped,
        state="finished",
        evaluations=course(config, seed=number),
    )


def _losses(trial: Trial) -> list[dict[str, float]]:
    random = np.random.default_rng(trial.number)
    slow = 350 if trial.overrides["optimizer.name"] == "adam" else 200
    records = []
    for seen in range(10, TOTAL + 1, 10):
        fall = math.exp(-seen / slow)
        noise = random.normal(1, 0.05, 5)
        records.append(
            {
                "images": seen,
                "generator_total": (5 + 9 * fall) * noise[0],
                "gan_ab": 0.4 * noise[1],
                "gan_ba": 0.35 * noise[2],
                "cycle_a": (0.12 + 0.3 * fall) * noise[3],
                "cycle_b": (0.1 + 0.3 * fall) * noise[4],
                "discriminator_a": 0.2 * noise[1],
                "discriminator_b": 0.22 * noise[2],
            }
        )
    return records
