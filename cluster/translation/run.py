"""Translates what OUT lacks: lists both folders, has Ray Data's actors do the work, and counts."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from cluster.group.retry import fixable
from cluster.machines.session import ray_session
from cluster.translation.listing import Work, list_work
from cluster.translation.options import Way
from cluster.translation.record import LEFT_OUT, begin, write_left_out
from cluster.translation.workers import Workers, choose_workers
from data_shards.progress import Progress
from data_shards.storage import Location, locate
from nla_cyclegan.inference.tiles import Precision
from nla_cyclegan.model.generator import Generator
from nla_cyclegan.weights.generators import load_generators

# Of a worker at once; one's last images are written while the other's first ones are read.
CALLS = 2
# Batches in one, which are translated again where its worker is lost: on a GPU they are a second or two.
BATCHES_A_CALL, BATCHES_A_CALL_ON_CORES = 16, 4
# A call whose worker has died so often may be what kills it.
MOST_DEATHS = 10


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
    left_out: dict[str, str] = {}
    there = done = work.total - work.images.num_rows
    if work.images.num_rows:
        done, left_out = _translate_missing(options, out, generator, work)
        done += there
    write_left_out(out, left_out)
    already = f"; {there:,} of them were there" if there else ""
    remark = f"; {len(left_out):,} left out, see {LEFT_OUT} there" if left_out else ""
    print(f"{done:,} of {work.total:,} images translated ({options.direction}): {out.uri}{already}{remark}")
    return 1 if not done or (left_out and options.strict) else 0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _translate_missing(
    options: argparse.Namespace, out: Location, generator: Generator, work: Work
) -> tuple[int, dict[str, str]]:
    """Number of images that were written, and why others were not."""
    address = options.address or os.environ.get("RAY_ADDRESS")
    say(f"joining the Ray cluster at {address} ..." if address else "starting Ray on this machine ...")
    with ray_session(address):
        workers = choose_workers(options.workers, options.cpus, options.gpu, joined=address is not None)
        way = way_of(options, workers)
        begin(out, generator, way)
        missing = work.images.num_rows
        say(f"translating {missing:,} of {work.total:,} images: {workers}, {way.precision}")
        done, left_out = 0, dict[str, str]()
        with Progress("translated", missing) as progress:
            try:
                for report in _reports(options, generator, way, workers, work.images):
                    done += report["done"]
                    left_out |= json.loads(report["left_out"])
                    progress.advance(done + len(left_out) - progress.done)
            # Ray Data wraps what a worker raises in types of several kinds.
            except Exception as error:
                if reason := fixable(error):
                    raise reason from error
                raise
    return done, left_out


def way_of(options: argparse.Namespace, workers: Workers) -> Way:
    auto: Precision = "bf16" if workers.use_gpu else "fp32"
    precision: Precision = auto if options.precision == "auto" else options.precision
    return Way(options.direction, f".{options.format}", options.size, options.batch, options.tile // 4 * 4, precision)


def _reports(
    options: argparse.Namespace, generator: Generator, way: Way, workers: Workers, images: pa.Table
) -> Iterator[dict[str, Any]]:
    """What each call of a worker returned, as they come."""
    import ray
    import ray.data

    from cluster.translation.painter import Painter

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    # Once in the store of this machine, from where each other one gets it once.
    generators = [ray.put(generator)]
    dataset = ray.data.from_arrow(list(calls(images, way.batch, workers))).map_batches(
        Painter,
        fn_constructor_args=[generators, options.source, options.out, way, max(1, int(workers.cpus)), workers.use_gpu],
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            min_size=workers.fewest,
            max_size=workers.most,
            initial_size=max(workers.fewest, workers.at_once),
            max_concurrent_calls_per_actor=CALLS,
            enable_true_multi_threading=True,
        ),
        num_cpus=workers.cpus,
        num_gpus=1 if workers.use_gpu else 0,
        max_restarts=-1,
        max_task_retries=MOST_DEATHS,
    )
    for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from block.to_pylist()


def calls(images: pa.Table, batch: int, workers: Workers) -> Iterator[pa.Table]:
    """The images of each call: few enough that every worker has several, so that all end at about the same time."""
    most = batch * (BATCHES_A_CALL if workers.use_gpu else BATCHES_A_CALL_ON_CORES)
    count = max(1, min(most, -(-images.num_rows // (2 * CALLS * workers.at_once))))
    columns = images.select(["name", "target", "size"]).combine_chunks()
    for start in range(0, images.num_rows, count):
        yield columns.slice(start, count)
