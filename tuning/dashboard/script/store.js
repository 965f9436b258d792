// What the page shows: the sweep's data, the reader's choices, and what follows from both.

import { read, write, DEFAULTS } from "page/address";
import { grouped, interval, ranked, useQuantiles } from "page/groups";

export let page = null; // the document: version, parts, sweep
export let sweep = null;
export let choices = read(location.hash);
export let view = null; // what follows: see `derive`

// `quick`: what follows each key while a search is typed; the rest follows when the typing rests.
const REST_MS = 200;
const followers = [];
export const follow = (draw, quick = false) => followers.push({ draw, quick });

export function load(newer) {
  page = newer;
  sweep = newer.sweep;
  if (sweep) useQuantiles(sweep.quantiles);
  publish();
}

// Change choices; the address follows.
export function choose(changes, isTyped = false) {
  Object.assign(choices, changes);
  const hash = write(choices);
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  publish(isTyped);
}

export function toggle(numbers) {
  const all = numbers.every((number) => choices.trials.includes(number));
  const others = choices.trials.filter((number) => !numbers.includes(number));
  choose({ trials: all ? others : [...others, ...numbers] });
}

export function clear() {
  choose({ search: "", brush: null, trials: [], ranges: {} });
}

export const isFiltered = () => Boolean(choices.search || choices.brush || choices.trials.length || Object.keys(choices.ranges).length);

addEventListener("hashchange", () => { choices = read(location.hash); publish(); });

let resting = 0;
function publish(isTyped = false) {
  clearTimeout(resting);
  if (sweep) view = derive();
  for (const { draw, quick } of followers) if (quick || !isTyped) draw();
  if (isTyped) resting = setTimeout(publish, REST_MS);
}

function derive() {
  const collapsed = choices.collapse ?? sweep.collapse;
  const metric = sweep.metrics.find((each) => each.name === choices.metric) ?? sweep.metrics[0];
  const at = sweep.reductions.includes(choices.at) ? choices.at : sweep.reductions[0];
  const value = (trial) => valueOf(trial, metric, at);
  const ofTrials = (trials) => ranked(grouped(trials, sweep.axes, collapsed), value, metric.isHigherBetter);
  // Ranks and colours are those among all trials, whatever is selected.
  const everything = ofTrials(sweep.trials);
  const ranks = new Map(everything.map((group, index) => [group.key, index + 1]));
  const last = Math.max(1, everything.length - 1);
  const named = (groups) => groups.map((group) => ({
    ...group,
    rank: ranks.get(group.key),
    place: (ranks.get(group.key) - 1) / last,
    numbers: group.trials.map((trial) => trial.number),
    name: nameOf(group, collapsed),
  }));
  const passing = sweep.trials.filter(filter());
  const picked = new Set(choices.trials);
  const shown = picked.size ? passing.filter((trial) => picked.has(trial.number)) : passing;
  const inside = new Set(shown);
  return {
    collapsed, metric, at, value, shown, picked,
    rest: sweep.trials.filter((trial) => !inside.has(trial)),
    // Rows of the ranking: a click on one does not hide the others.
    rows: named(ofTrials(passing)),
    groups: named(ofTrials(shown)),
    // All of them, whatever is selected, as what the others are seen against.
    everything: named(everything),
    // The fields that tell groups apart.
    axes: sweep.axes.map((axis, place) => ({ ...axis, place })).filter((axis) => !collapsed.includes(axis.field)),
    label: at === "last" ? metric.label : `${metric.label}, ${at}`,
  };
}

// The last, best, lowest, highest or mean value of a metric's evaluations in a trial; null for none.
export function valueOf(trial, metric, at) {
  return trial.values[metric.name][at === "best" ? (metric.isHigherBetter ? "max" : "min") : at];
}

// Whether a trial passes the search, the box and the ranges.
function filter() {
  const words = choices.search.toLowerCase().split(/\s+/).filter(Boolean);
  const brush = choices.brush && new Set(choices.brush);
  const ranges = sweep.axes.map((axis, place) => [place, choices.ranges[axis.field]]).filter(([, found]) => found);
  const inRange = (trial) => ranges.every(([place, found]) =>
    found.some(([low, high]) => trial.places[place] >= low && trial.places[place] <= high));
  return (trial) =>
    (!brush || brush.has(trial.number)) && inRange(trial) && words.every((word) => textOf(trial).includes(word));
}

const texts = new WeakMap();
function textOf(trial) {
  if (!texts.has(trial)) {
    const fields = sweep.axes.map((axis, place) => `${axis.label} ${trial.texts[place]}`);
    texts.set(trial, `trial ${trial.number} ${trial.state} ${fields.join(" ")} ${trial.reason ?? ""}`.toLowerCase());
  }
  return texts.get(trial);
}

function nameOf(group, collapsed) {
  if (!collapsed.length) return `trial ${group.trials[0].number}`;
  const kept = sweep.axes.map((axis, place) => [axis, place]).filter(([axis]) => !collapsed.includes(axis.field));
  return kept.map(([axis, place]) => `${axis.label} ${group.trials[0].texts[place]}`).join(", ") || "all trials";
}

// Images seen and values of a metric or a loss in a trial's course.
export function courseOf(trial, name) {
  if (name in trial.course) return { x: trial.course.images, y: trial.course[name] };
  return trial.losses?.[name] ? { x: trial.losses.images, y: trial.losses[name] } : { x: [], y: [] };
}

// The measure after so many images, as far as a trial has come; null for one that has seen fewer. A diverged one has no value.
export function valueAt(trial, images) {
  const { x, y } = courseOf(trial, view.metric.name);
  const before = y.filter((value, i) => x[i] <= images && value !== null);
  if (!before.length || trial.images < images || trial.state === "diverged") return null;
  const best = view.metric.isHigherBetter ? "max" : "min";
  const reduce = {
    last: (values) => values.at(-1),
    min: (values) => Math.min(...values),
    max: (values) => Math.max(...values),
    mean: (values) => interval(values).mean,
  };
  return reduce[view.at === "best" ? best : view.at](before);
}

export const costOf = (trial) => (choices.price === null ? null : (trial.seconds / 3600) * choices.price);

export { DEFAULTS };
