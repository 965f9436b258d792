"""What `status` says of runs: the text of one, the table of several, and the same as JSON values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from cluster.inspection.health import Health, Pace, health, pace
from cluster.inspection.snapshot import CheckpointSnapshot, RunSnapshot
from cluster.records.about import ABOUT_REMEDY
from cluster.records.console_progress import duration_text, losses_text, score_text, wait_text
from data_shards.errors import counted, shown_name
from data_shards.storage.checked import damaged, problem
from nla_cyclegan.model.config import ModelConfig
from nla_cyclegan.weights.stored_score import ABOUT, SWD_ALONE

# --json has more.
EVENTS_SHOWN = 12


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
    values = {
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
    return {name: _finite(value) for name, value in values.items()}


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
    words = {"starting": "starting since", "training": "training, last sign of life"}
    words |= {"waiting": "waiting, last sign of progress", "stalled": "stalled or stopped since"}
    return f"{words.get(found.state, found.state)}{when}{reason}"


def progress_text(run: RunSnapshot) -> str:
    text = counted(run.images, "image")
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
    texts += [f"since the last start {restarts} times a loader process died and was replaced"] if restarts else []
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
    workers = counted(stored.world, "worker")
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
        raise damaged(f"{run.label}/{ABOUT}", f"config: {problem(error)}", ABOUT_REMEDY) from error
