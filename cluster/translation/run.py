"""Translates what OUT lacks: lists both folders, runs Ray Data's actors, and counts the results."""

import argparse
import json
import logging
from collections.abc import Iterator

import pyarrow as pa

from cluster.group.retry import describe
from cluster.machines.session import ray_session
from cluster.settings.preflight import cluster_address
from cluster.translation.calls import CALLS, Report, calls, sent
from cluster.translation.listing import Work, list_work
from cluster.translation.options import TranslationSettings
from cluster.translation.record import LEFT_OUT, begin, write_left_out
from cluster.translation.workers import Workers, choose_workers
from data_shards.errors import ExhaustedError, StorageAwayError, UserError, counted, say
from data_shards.progress import Progress
from data_shards.storage import Location, locate
from nla_cyclegan.inference.tiles import Precision
from nla_cyclegan.model.generator import Generator
from nla_cyclegan.weights.generators import load_generators

# Limit in seconds without a finished call of any worker, including the time in which machines start.
LONGEST_WAIT_S = 3600.0


def translate(options: argparse.Namespace) -> int:
    """What `cluster translate` does. Returns 1 if no image came through, or, with --strict, not all.

    Raises: UserError.
    """
    source, out = locate(options.source), locate(options.out)
    generator = load_generators(options.weights, [options.direction])[options.direction]
    say(f"listing {source.uri} and {out.uri} ...")
    work = list_work(source, out, f".{options.format}", recursive=options.recursive, limit=options.limit)
    for remark in work.left_out.remarks:
        say(f"left out: {remark}")
    if work.outdated:
        say(f"translated again, because the image is newer than its result: {work.outdated:,}")
    left_out: dict[str, str] = {}
    there = done = work.total - work.images.num_rows
    if work.images.num_rows:
        done, left_out = _translate_missing(options, out, generator, work)
        done += there
    write_left_out(out, left_out)
    already = f"; {there:,} of them were there already" if there else ""
    remark = f"; {len(left_out):,} left out, see {LEFT_OUT} there" if left_out else ""
    print(f"{done:,} of {counted(work.total, 'image')} translated ({options.direction}): {out.uri}{already}{remark}")
    return 1 if not done or (left_out and options.strict) else 0


def _translate_missing(
    options: argparse.Namespace, out: Location, generator: Generator, work: Work
) -> tuple[int, dict[str, str]]:
    """Number of images that were written, and why others were not."""
    address = cluster_address(options.address)
    say(f"joining the Ray cluster at {address} ..." if address else "starting Ray on this machine ...")
    with ray_session(address):
        workers = choose_workers(
            options.workers, options.cpus, options.gpu, options.selector, joined=address is not None
        )
        settings = settings_of(options, workers)
        begin(out, generator, settings)
        missing = work.images.num_rows
        say(f"translating {missing:,} of {counted(work.total, 'image')}: {workers}, {settings.precision}")
        done, left_out = 0, dict[str, str]()
        with Progress("translated", missing) as progress:
            try:
                for report in _reports(options, generator, settings, workers, work.images):
                    if report.error is not None:
                        raise (StorageAwayError if report.retryable else UserError)(report.error)
                    done += report.done
                    left_out |= report.left_out
                    progress.advance(done + len(left_out) - progress.done)
            except UserError:
                raise
            # Ray and Ray Data raise many types.
            except Exception as error:
                if not has_given_up(error):
                    raise
                raise ExhaustedError(
                    f"workers were lost too often, the last time with {describe(error)}; the same command translates what is missing"
                ) from error
    return done, left_out


def has_given_up(error: Exception) -> bool:
    """Whether machines or Ray failed, rather than a worker's code or this one's."""
    from ray.data.exceptions import ExecutionTimeoutError
    from ray.exceptions import RayError, RayTaskError

    return isinstance(error, ExecutionTimeoutError | RayError) and not isinstance(error, RayTaskError)


def settings_of(options: argparse.Namespace, workers: Workers) -> TranslationSettings:
    auto: Precision = "bf16" if workers.use_gpu else "fp32"
    precision: Precision = auto if options.precision == "auto" else options.precision
    return TranslationSettings(
        options.direction, f".{options.format}", options.size, options.batch, options.tile // 4 * 4, precision
    )


def _reports(
    options: argparse.Namespace, generator: Generator, settings: TranslationSettings, workers: Workers, images: pa.Table
) -> Iterator[Report]:
    """The report of each call, as they end."""
    import ray
    import ray.data

    from cluster.translation.translator import Translator

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = LONGEST_WAIT_S
    # Stored once on this machine, from where each other machine fetches it once.
    generators = [ray.put(generator)]
    given = [{"images": sent(call)} for call in calls(images, settings.batch, workers)]
    arguments = [generators, options.source, options.out, settings, max(1, int(workers.cpus)), workers.use_gpu]
    # By default a lost worker is restarted and its calls are repeated without limit.
    dataset = ray.data.from_items(given, override_num_blocks=len(given)).map_batches(
        Translator,
        fn_constructor_args=arguments,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            min_size=workers.fewest,
            max_size=workers.most,
            initial_size=max(workers.fewest, workers.at_once),
            max_concurrent_calls_per_actor=CALLS,
            enable_true_multi_threading=True,
        ),
        **workers.per_worker,
    )
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for report in batch["report"].to_pylist():
            yield Report(**json.loads(report))
