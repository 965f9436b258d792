"""`python -m cluster train`: check the run, plan it or train it, and print where its results are."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from shlex import quote

from cluster.group import driver
from cluster.group.stop_signals import StopSignals
from cluster.jobs.final_errors import final_errors_stop_the_job
from cluster.machines.device import require_cuda
from cluster.ownership.attempt import UNOWNED, Attempt
from cluster.ownership.owner import owned
from cluster.records import events
from cluster.records.run_state import outcome_recorded
from cluster.settings.folders import with_dataset
from cluster.settings.identity import about
from cluster.settings.options import parse_options
from cluster.settings.preflight import Prepared, check_folder, cluster_address, is_first_rank, prepare, warnings
from data_shards.errors import Stopped, counted, say, say_warning


@final_errors_stop_the_job()
def main(arguments: Sequence[str]) -> None:
    """Raises: UserError for what the user can fix, a line for each problem; SystemExit with 130 or 143 when it was stopped."""
    options = parse_options(arguments)
    config, local = options.config, options.local
    if not (local or options.dry_run):
        driver.refuse_torchrun()
    config = with_dataset(config, config.storage, address=options.address, local=local, dry_run=options.dry_run)
    prepared = prepare(config, options.fork_of)
    check_folder(prepared.folder)
    if (config.init.source or config.validation.inception) and not prepared.finished and is_first_rank():
        # It imports torch.
        from cluster.settings.step_plan import check_weights

        check_weights(prepared)
    if options.dry_run:
        # It imports torch, to build the networks.
        from cluster.settings.dry_run import plan_text

        if local and config.scaling.gpu and not prepared.finished:
            require_cuda()
        joined = not local and cluster_address(options.address) is not None
        print(plan_text(prepared, local=local, joined=joined))
        return
    if prepared.finished:
        print(f"{prepared.config.name} is finished: {counted(prepared.images_seen, 'image')} seen")
        print(places(prepared))
        return
    if is_first_rank():
        for text in warnings(prepared):
            say_warning(text)
    prepared.folder.probe()
    try:
        with (
            StopSignals(partial(driver.say, prepared.config)) as signals,
            owner(prepared, signals, take_over=options.take_over) as attempt,
        ):
            if prepared.origin and is_first_rank():
                prepared.origin.copy_into(prepared.folder, about(prepared.config, prepared.dataset))
            if local:
                driver.train_in_process(prepared, signals, attempt)
            else:
                driver.train_on_cluster(prepared, options.address, signals, attempt)
    except Stopped as stopped:
        if is_first_rank():
            say(stopped.line)
        raise SystemExit(stopped.status) from None
    print(f"{prepared.config.name} has finished: {counted(prepared.clock.total, 'image')} seen")
    print(places(prepared))


@contextmanager
def owner(prepared: Prepared, signals: StopSignals, *, take_over: bool) -> Iterator[Attempt]:
    """Own the run's folder, and record there how the run ends; the ranks of torchrun but the first do neither.

    Raises: UserError when another process trains the run; LostRunError when one has taken it over.
    """
    if not is_first_rank():
        yield UNOWNED
        return
    config, say = prepared.config, partial(driver.say, prepared.config)
    on_loss = partial(signals.end, "another process has taken the run over")
    with (
        owned(config.storage, config.name, take_over=take_over, say=say, on_loss=on_loss) as attempt,
        events.opened(prepared.folder, attempt.id, "driver"),
        outcome_recorded(prepared.folder, attempt),
    ):
        yield attempt


def places(prepared: Prepared) -> str:
    folder = quote(prepared.folder.label)
    lines = [("checkpoints", f"{folder}/checkpoint_*"), ("metrics", f"{folder}/metrics.jsonl")]
    if prepared.config.observe.previews:
        lines.append(("pictures", f"{folder}/previews"))
    if prepared.config.observe.tensorboard:
        lines.append(("curves", f"tensorboard --logdir {folder}"))
    lines.append(("status", f"python -m cluster status {folder}"))
    lines.append(("translate", f"python -m nla_cyclegan translate --weights {folder} --direction B2A --out OUT IMAGES"))
    return "\n".join(f"  {name:<12}{text}" for name, text in lines)
