"""The plan of a run that --dry-run prints: what will be trained, by how many workers, at what cost, and where it is stored."""

from math import ceil

import torch

from cluster.settings.config import RunConfig
from cluster.settings.costs import Costs
from cluster.settings.memory_plan import plan_this_machine
from cluster.settings.preflight import Prepared, warnings
from cluster.settings.step_plan import step_lines
from cluster.settings.workers.resources import Resources, choose
from cluster.settings.workers.scaling import LOSS_WAIT_S
from cluster.settings.workers.this_machine import gpu_memory_bytes, this_machine
from data_shards import rank_share
from data_shards.errors import counted
from data_shards.gpus import unseen_gpus

# CUDA itself; cuDNN's workspaces and fragmentation.
CUDA_BYTES, GPU_MORE = 1e9, 4 / 3
RESIZED = {
    "stretch": "resized to",
    "keep": "the shorter side resized to",
    "crop": "the square in the middle resized to",
}


def plan_text(prepared: Prepared, *, local: bool, joined: bool = False) -> str:
    """The plan on this machine.

    Args:
        joined: the workers will run on the machines of a cluster, of which this process knows nothing: neither whether they have
            room for the workers nor for what those keep in memory.

    Raises: UserError where the start would be refused: the machine cannot hold the workers, or not compute their steps.
    """
    config = prepared.config
    lines = [("run", config.name), ("dataset", _dataset(prepared)), ("length", _length(prepared))]
    lines.append(("optimizer", _optimizer(config)))
    world, is_certain = 1, True
    if local:
        lines.append(("workers", "none: this process (--local)"))
        on_gpu, device = _local_device(config.scaling.gpu)
        lines.append(("device", device))
    else:
        scaling, here = config.scaling, this_machine()
        if scaling.selector:
            is_one = scaling.selector.takes(here)
            this = "this is one" if is_one else "this is not one; they are assumed to be like it"
            lines.append(("where", f"machines with {scaling.selector}; {this}"))
            if not is_one:
                scaling = scaling.model_copy(update={"accelerator": None, "labels": {}})
        elif joined:
            lines.append(("where", "the cluster, which is not queried; its machines are assumed to be like this one"))
        if joined:
            # How many workers its machines hold shows at the start.
            scaling = scaling.model_copy(update={"wait_s": LOSS_WAIT_S})
        is_certain = config.scaling.gpu is not None or not (joined or scaling.selector)
        resources = choose(scaling, [here], global_batch=config.data.global_batch)
        world, on_gpu = resources.most, resources.use_gpu
        lines += [("workers", _workers(resources, config, world)), ("device", _device(resources))]
    # A finished run starts nothing.
    if not prepared.finished:
        lines += step_lines(config, on_gpu=on_gpu, world=world, is_certain=is_certain)
    costs = Costs.of(config)
    lines += [
        *_costs(costs, config, world),
        *([] if joined else _memory(costs, config, world, on_gpu=on_gpu, local=local)),
        ("begins", _start(prepared)),
        ("storage", _storage(prepared)),
        *(("warning", text) for text in warnings(prepared)),
    ]
    return "\n".join(f"{name:<12}{text}" for name, text in lines)


def _dataset(prepared: Prepared) -> str:
    splits = ", ".join(f"{name} {info.samples:,}" for name, info in prepared.dataset.splits.items())
    data = prepared.config.data
    return f"{prepared.dataset.uri} ({splits} images), {RESIZED[data.fit]} {data.load_size} px, cropped to {data.crop_size} px"


def _length(prepared: Prepared) -> str:
    clock = prepared.clock
    steps = f"{counted(clock.total // clock.batch, 'step')} of {counted(clock.batch, 'image pair')}"
    epoch = f"{counted(clock.epoch, 'image')} or {counted(ceil(clock.epoch / clock.batch), 'step')} an epoch"
    epochs = clock.total / clock.epoch
    return f"{steps}: {counted(clock.total, 'image')}, {counted(round(epochs, 2) or epochs, 'epoch')} ({epoch})"


def _optimizer(config: RunConfig) -> str:
    optimizer, constant = config.optimizer, config.schedule.constant
    decay = f", momentum_decay {optimizer.momentum_decay:g}" if optimizer.name == "nadam" else ""
    course = "" if constant == 1 else f", constant for {constant:.0%} of the run, then linearly to 0"
    return f"{optimizer.name}, learning rate {optimizer.lr:g}{course}; betas {optimizer.beta1:g}, {optimizer.beta2:g}{decay}"


def _workers(resources: Resources, config: RunConfig, world: int) -> str:
    batch = config.data.global_batch
    shares = " + ".join(str(len(rank_share(batch, rank, world))) for rank in range(min(world, 8)))
    more = " + ..." if world > 8 else ""
    cores = f"{counted(resources.cpus_per_worker, 'CPU core')} each ({resources.reasons['cores']})"
    least = f"{resources.fewest} to " if resources.fewest < world else ""
    return f"{least}{world} ({resources.reasons['workers']}), parts of the batch {shares}{more}; {cores}"


def _device(resources: Resources) -> str:
    gpu = "one GPU a worker" if resources.gpus_per_worker == 1 else f"{resources.gpus_per_worker:g} of a GPU"
    kind = f"cuda, {gpu}, NCCL" if resources.use_gpu else "cpu, gloo"
    return f"{kind} ({resources.reasons['device']})"


def _local_device(wanted: bool | None) -> tuple[bool, str]:
    if wanted is not None:
        return wanted, f"{'cuda' if wanted else 'cpu'} (scaling.gpu {str(wanted).lower()})"
    if torch.cuda.is_available():
        return True, "cuda (the first of those visible)"
    return False, f"cpu (no CUDA device visible{unseen_gpus()})"


def _costs(costs: Costs, config: RunConfig, world: int) -> list[tuple[str, str]]:
    generator, discriminator = costs.generator.parameters, costs.discriminator.parameters
    pair, step = costs.flops_per_pair, costs.flops_per_pair * config.data.global_batch
    memory = costs.step_memory(config).worker_bytes(config, world) / 1e9
    most, rounds = config.step.micro_batch, ""
    if most is not None:
        rounds = f", in rounds of up to {counted(most, 'image pair')} a worker (step.micro_batch)"
    return [
        ("model", str(config.model)),
        ("networks", f"2 generators of {generator:,} and 2 discriminators of {discriminator:,} parameters"),
        ("work", f"{pair / 1e9:,.1f} GFLOP an image pair, {step / 1e9:,.1f} GFLOP a step{rounds}"),
        ("memory", f"about {memory:.2f} GB for tensors a worker (weights, optimizer, activations, image pools)"),
    ]


def _memory(costs: Costs, config: RunConfig, world: int, *, on_gpu: bool, local: bool) -> list[tuple[str, str]]:
    """What the workers need on this machine, and on its GPU, beside what is there."""
    step = costs.step_memory(config)
    plan = plan_this_machine(config, step, world=world, here=world, on_gpu=on_gpu, under_ray=not local)
    lines = [("machine", f"{plan}{f': too little, {plan.advice}' if plan.is_tight else ''}")]
    if on_gpu and (there := gpu_memory_bytes()):
        share = config.scaling.gpus_per_worker * there
        needed = GPU_MORE * step.worker_bytes(config, world) + CUDA_BYTES
        short = ": too little, lower step.micro_batch (it changes no result)" if needed > share else ""
        lines.append(("GPU", f"about {needed / 1e9:.1f} GB of {share / 1e9:.1f} GB{short}"))
    return lines


def _start(prepared: Prepared) -> str:
    if prepared.finished:
        return "nothing: the run is finished"
    if prepared.checkpoints:
        return f"at {counted(prepared.images_seen, 'image')}, from {prepared.checkpoints[0]}"
    if prepared.origin:
        return f"at {counted(prepared.images_seen, 'image')}, as a fork of {prepared.origin}"
    init = prepared.config.init
    if init.source:
        frozen = f"; {', '.join(init.freeze)} frozen" if init.freeze else ""
        return f"at 0 images, with the {init.what} of {init.source}{frozen}"
    return "at 0 images: there is no checkpoint"


def _storage(prepared: Prepared) -> str:
    config = prepared.config
    saved = (
        f"checkpoints every {counted(config.checkpoint.every, 'image')} (the newest {config.checkpoint.keep} are kept)"
    )
    events = ", tensorboard/" if config.observe.tensorboard else ""
    previews = config.observe.previews
    events += f", previews every {counted(previews, 'image')}" if previews else ""
    return f"{prepared.folder.label}: {saved}, metrics.jsonl every {counted(config.observe.every, 'image')}{events}"
