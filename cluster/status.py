"""`python -m cluster status`: the state of runs, from their storage alone."""

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any

from pydantic import ValidationError

from cluster.records.about import ABOUT_REMEDY
from cluster.records.console_progress import duration_text, losses_text, score_text, wait_text
from cluster.records.health import Health, Pace, health, pace
from cluster.records.snapshot import READERS, CheckpointSnapshot, RunSnapshot, is_run, take_snapshot
from data_shards.errors import UserError, say_warning, shown_name
from data_shards.storage import list_folder, locate
from data_shards.storage.checked import damaged, problem
from data_shards.storage.folder import RunFolder, split_uri
from nla_cyclegan.model.config import ModelConfig
from nla_cyclegan.weights.stored_score import ABOUT, SWD_ALONE

# --json has more.
EVENTS_SHOWN = 12
WATCH_S, LONGEST_WATCH_S = 10.0, 1_000_000
# States in which a run writes nothing more.
ENDED = ("finished", "stopped", "diverged", "failed")
# The terminal's codes for an empty screen and its first line.
CLEARED = "\x1b[2J\x1b[H"


def main(arguments: Sequence[str]) -> int:
    """Raises: UserError where there is no run, or storage does not answer."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster status",
        description="Show the state of a run, or a table of all runs in a storage, from storage alone.",
    )
    parser.add_argument("uri", metavar="URI", help="a run's folder, STORAGE/NAME, or a storage; a path or a URI")
    parser.add_argument(
        "--verify", action="store_true", help="read all checkpoints and compare them with what was written"
    )
    parser.add_argument("--json", action="store_true", help="print everything as a JSON list of runs")
    parser.add_argument(
        "--watch", metavar="SECONDS", type=_seconds, nargs="?", const=WATCH_S,
        help=f"refresh every SECONDS ({WATCH_S:g} by default) until all runs have ended, or until Ctrl-C",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if options.watch is None:
        print(_look(options)[0])
        return 0
    ended = has_shown = False
    while not ended:
        try:
            text, ended = _look(options)
            # On a terminal it replaces the text before it.
            print(f"{CLEARED}{text}" if sys.stdout.isatty() else text, flush=True)
            has_shown = True
        except UserError as error:
            if not (error.retryable and has_shown):
                raise
            say_warning(f"{error}; trying again")
        if not ended:
            time.sleep(options.watch)
    return 0


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) <= LONGEST_WATCH_S:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected seconds above 0, at most {LONGEST_WATCH_S:,}, got {text!r}")


def _look(options: argparse.Namespace) -> tuple[str, bool]:
    """The text to show, and whether all runs have ended."""
    folders, is_one = find_runs(options.uri)
    with ThreadPoolExecutor(READERS) as readers:
        read = list(readers.map(partial(_read, verify=options.verify), folders))
    runs = [each for each in read if isinstance(each, RunSnapshot)]
    damaged = [each for each in read if isinstance(each, UserError)]
    if not runs:
        raise damaged[0]
    remarks = [] if is_one else [line for run in runs for line in run.remarks]
    warnings = [f"warning: {shown_name(line)}" for line in [*map(str, damaged), *remarks]]
    # A terminal that is watched is cleared: they stand below the text.
    is_watched = options.watch is not None and sys.stdout.isatty()
    for line in [] if is_watched else warnings:
        print(line, file=sys.stderr)
    now = time.time()
    ended = all(health(run, now).state in ENDED for run in runs)
    if options.json:
        return json.dumps(_finite([as_json(run, now) for run in runs]), indent=1), ended
    text = text_of(runs[0], now) if is_one else table_of(runs, now)
    return "\n".join([text, *(warnings if is_watched else [])]), ended


def _read(folder: RunFolder, verify: bool) -> RunSnapshot | UserError:
    """The run's snapshot, or the error if it is damaged, so that other runs are still shown."""
    try:
        return take_snapshot(folder, verify=verify)
    except UserError as error:
        if error.retryable:
            raise
        return error


def find_runs(uri: str) -> tuple[list[RunFolder], bool]:
    """The run at the URI, or the runs in it; and whether it is one. Raises: UserError where there is none."""
    place = locate(uri)
    there = list_folder(place)
    if is_run(there):
        return [RunFolder(*split_uri(uri))], True
    inside = [name for name, info in there.items() if not info.is_file and not name.startswith(".")]
    with ThreadPoolExecutor(READERS) as readers:
        folders = list(readers.map(partial(RunFolder, uri), inside))
        runs = [
            folder
            for folder, names in zip(folders, readers.map(RunFolder.names, folders), strict=True)
            if is_run(names)
        ]
    if not runs:
        what = "neither it nor a folder in it has a run's files" if there else "nothing is there"
        raise UserError(f"no run at {place.uri}: {what}; give a run's folder, STORAGE/NAME, or a storage with runs")
    return runs, False


def text_of(run: RunSnapshot, now: float) -> str:
    found = health(run, now)
    lines = [("run", run.label), *_settings(run), ("health", health_text(found, now)), ("progress", progress_text(run))]
    if recent := pace(run.records):
        lines += [("rate", rate_text(run, recent, found, now)), ("waits", waits_text(recent))]
    latest: dict[str, Any] = {name: value for record in run.records for name, value in record.items()}
    if "generator_total" in latest:
        lines.append(("newest", losses_text(latest)))
    if "memory_gb" in latest:
        lines.append(("memory", f"{latest['memory_gb']:.1f} GB at most, on the first worker"))
    lines += [("data", text)] if (text := data_text(latest)) else []
    if evaluated := run.evaluated:
        lines.append(("evaluated", evaluated_text(evaluated)))
    sound = sum(each.is_sound for each in run.checkpoints)
    lines.append(("checkpoints", f"{sound} complete, {len(run.checkpoints) - sound} not"))
    rows = [f"  {checkpoint_text(each, run.best)}" for each in run.checkpoints]
    if run.events:
        newest = run.events[-EVENTS_SHOWN:]
        rows.append(f"{'events':<13}the newest {len(newest)} of {len(run.events)}")
        rows += [f"  {_at(event['time'])}  {event['kind']:<10}  {event['text']}" for event in newest]
    # What is in storage may be a stranger's: a terminal gets no control characters.
    return "\n".join(map(shown_name, [*(f"{name:<13}{text}" for name, text in lines), *rows, *warnings_of(run)]))


def table_of(runs: Sequence[RunSnapshot], now: float) -> str:
    rows = [["run", "health", "since", "images", "done", "images/s", "left", "score", "checkpoints"]]
    for run in runs:
        state, recent = health(run, now), pace(run.records)
        done = f"{run.images / run.total:.1%}" if run.total else "-"
        score = next((text.removeprefix("score ") for text in map(score_text, reversed(run.records)) if text), "-")
        sound = sum(each.is_sound for each in run.checkpoints)
        stored = f"{sound}" if sound == len(run.checkpoints) else f"{sound} of {len(run.checkpoints)}"
        rate = f"{recent.images_per_s:.1f}" if recent else "-"
        left = left_text(run, recent) if recent and state.state == "training" else "-"
        name = shown_name(run.label.rpartition("/")[2])
        rows.append([name, state.state, ago_text(state.since, now), f"{run.images:,}", done, rate, left, score, stored])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def as_json(run: RunSnapshot, now: float) -> dict[str, Any]:
    """A run as JSON values: the content of `text_of`, and its configuration."""
    recent, best = pace(run.records), run.best
    checkpoints = [
        asdict(each) | {"images": each.images, "is_sound": each.is_sound, "score_images": each.score_on.images}
        for each in run.checkpoints
    ]
    return {
        "run": run.label,
        "config": run.about.get("config", {}),
        "health": asdict(health(run, now)),
        "images": run.images,
        "total": run.total,
        "epoch": run.images / run.epoch if run.epoch else None,
        "pace": asdict(recent) if recent else None,
        "latest": {name: value for record in run.records for name, value in record.items()},
        "checkpoints": checkpoints,
        "best": best.name if best else None,
        "events": run.events,
        "warnings": [line.removeprefix("warning: ") for line in warnings_of(run)],
    }


def _finite(value: Any) -> Any:
    """JSON values with null in place of numbers that are not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def warnings_of(run: RunSnapshot) -> list[str]:
    """A line on damaged records, and one for each checkpoint that a resume would pass over."""
    lines = [f"warning: {line}" for line in run.remarks]
    for each in run.checkpoints:
        if each.world is None:
            lines.append(f"warning: {each.name} is not complete: it is being written, or a failure cut it off")
        lines += [f"warning: {each.name}: {damage}" for damage in each.damage]
    return lines


def health_text(found: Health, now: float) -> str:
    when = f" ({_at(found.since)}, {ago_text(found.since, now)} ago)" if found.since else ""
    reason = f": {found.reason}" if found.reason else ""
    words = {"training": "training, last sign of life", "stalled": "stalled or stopped since"}
    return f"{words.get(found.state, found.state)}{when}{reason}"


def progress_text(run: RunSnapshot) -> str:
    text = f"{run.images:,} images"
    if run.total and run.epoch:
        text += f" of {run.total:,} ({run.images / run.total:.1%}), epoch {run.images / run.epoch:.2f} of {round(run.total / run.epoch, 2):g}"
    return text


def rate_text(run: RunSnapshot, recent: Pace, found: Health, now: float) -> str:
    rate = f"{recent.images_per_s:.1f} images/s"
    if not run.total or run.images >= run.total or found.state != "training":
        return rate
    end = now + (run.total - run.images) / recent.images_per_s
    return f"{rate}, {left_text(run, recent)} left, done about {_at(end)}"


def left_text(run: RunSnapshot, recent: Pace) -> str:
    return duration_text((run.total - run.images) / recent.images_per_s) if run.total else "-"


def waits_text(recent: Pace) -> str:
    """Shares of waiting time; for a worker group those of the slowest rank, which the others wait for."""
    shares = (f"{what} {wait_text(share, recent.ranks.get(what), 1)}" for what, share in recent.waits.items())
    return ", ".join(shares) + " of the time"


def data_text(latest: Mapping[str, Any]) -> str:
    """Problems with the data so far; empty if there were none."""
    bad, restarts = latest.get("bad_samples", 0), latest.get("loader_restarts", 0)
    texts = [f"{bad} damaged samples replaced"] if bad else []
    texts += [f"{restarts} loader processes died and were replaced since the last start"] if restarts else []
    return ", ".join(texts)


def evaluated_text(records: Sequence[Mapping[str, Any]]) -> str:
    """The newest and the lowest score of comparable ones; for runs of versions without scores, the distances."""
    newest = records[-1]
    name, form = ("score", ".3f") if "score" in newest else ("swd", ".1f")
    measured = [record for record in records if math.isfinite(record.get(name, math.nan))]
    best = min(measured, key=lambda record: record[name], default=newest)
    each = ", ".join(f"{part} {newest.get(part, math.nan):{form}}" for part in (f"{name}_A2B", f"{name}_B2A"))
    return (
        f"{name} {newest[name]:{form}} ({each}) at {newest['images']:,} images; "
        f"best {best[name]:{form}} at {best['images']:,}"
    )


def checkpoint_text(stored: CheckpointSnapshot, best: CheckpointSnapshot | None) -> str:
    size = f"{stored.size_bytes / 1e6:8,.1f} MB"
    if stored.world is None:
        return f"{stored.name}  {_at(stored.time)}  {size}  not complete"
    name, form = ("swd", ".1f") if stored.score_definition == SWD_ALONE else ("score", ".3f")
    score = f", {name} {stored.score:{form}}" if stored.score is not None else ""
    marks = (", damaged" if stored.damage else "") + (", the best" if stored is best else "")
    workers = "1 worker" if stored.world == 1 else f"{stored.world} workers"
    return f"{stored.name}  {_at(stored.time)}  {size}  by {workers}{score}{marks}"


def ago_text(then: float | None, now: float) -> str:
    return "-" if then is None else duration_text(max(0.0, now - then))


def _at(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "invalid time"


def _settings(run: RunSnapshot) -> list[tuple[str, str]]:
    config = run.about.get("config")
    if not config:
        return []
    try:
        data, optimizer = config["data"], config["optimizer"]
        try:
            model = str(ModelConfig.model_validate(config["model"]))
        except ValidationError as error:
            model = f"not one of this version ({problem(error)})"
        learning = (
            f"{optimizer['name']}, lr {optimizer['lr']:g}, batch {data['global_batch']}, {config['step']['precision']}"
        )
        return [
            ("dataset", f"{data['uri']}, crops of {data['crop_size']} px"),
            ("model", f"{model}; {learning}, seed {config['seed']}"),
        ]
    except (KeyError, TypeError, ValueError) as error:
        why = f"its config: {type(error).__name__}: {error}"
        raise damaged(f"{run.label}/{ABOUT}", why, ABOUT_REMEDY) from error
