// What the page shows: the sweep's data, the reader's choices, and what follows from both.

import { read, write } from "page/address";
import { interval, ranked, useQuantiles } from "page/groups";
import { ends, value as text } from "page/text";

// Charts of few trials change together. Those of more are drawn one by one, so that the page answers in between.
const AT_ONCE = 200;
// What is drawn first follows each key of a search at once, the rest when the typing rests.
const FIRST = 2, REST_MS = 200;

export let page = null; // the document: version, parts, sweep
export let sweep = null;
export let choices = read(location.hash);
export let view = null; // what follows: see `derive`

let followers = [];
export const follow = (found) => { followers = found; };

export function load(newer) {
  page = newer;
  sweep = newer.sweep;
  if (sweep) useQuantiles(sweep.quantiles);
  return publish();
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

export const clear = () => choose({ search: "", brush: null, trials: [], ranges: {} });

export const isFiltered = () => Boolean(choices.search || choices.brush || choices.trials.length || Object.keys(choices.ranges).length);

addEventListener("hashchange", () => { choices = read(location.hash); publish(); });

let turn = 0;
async function publish(isTyped = false) {
  const mine = (turn += 1), isSlow = sweep?.trials.length > AT_ONCE;
  if (sweep) view = derive();
  for (const [place, draw] of followers.entries()) {
    draw();
    const rests = isTyped && place === FIRST - 1;
    if (rests || (isSlow && place >= FIRST - 1)) await new Promise((go) => { setTimeout(go, rests ? REST_MS : 0); });
    if (mine !== turn) return; // Something newer is drawn.
  }
  document.documentElement.dataset.ready = "";
}

function derive() {
  const collapsed = choices.collapse ?? sweep.collapse;
  const metric = sweep.metrics.find((each) => each.name === choices.metric) ?? sweep.metrics[0];
  const at = sweep.reductions.includes(choices.at) ? choices.at : sweep.reductions[0];
  const value = (trial) => valueOf(trial, metric, at);
  const axes = sweep.axes.filter((axis) => !collapsed.includes(axis.field)); // the fields that tell groups apart
  const ofTrials = (trials) => ranked(trials, sweep.fields, collapsed, value, metric.isHigherBetter);
  // Ranks and colours are those among all trials, whatever is selected.
  const all = ofTrials(sweep.trials);
  const ranks = new Map(all.map((group, index) => [group.key, index + 1]));
  const named = (groups) => groups.map((group) => ({
    ...group,
    rank: ranks.get(group.key),
    place: (ranks.get(group.key) - 1) / Math.max(1, all.length - 1),
    numbers: group.trials.map((trial) => trial.number),
    name: collapsed.length ? valuesOf(group.trials[0], axes) || "all trials" : `trial ${group.trials[0].number}`,
  }));
  const passing = sweep.trials.filter(filter());
  const picked = new Set(choices.trials);
  const shown = picked.size ? passing.filter((trial) => picked.has(trial.number)) : passing;
  const inside = new Set(shown);
  return {
    collapsed, metric, at, value, axes, shown, picked,
    rest: sweep.trials.filter((trial) => !inside.has(trial)),
    // Rows of the ranking: a click on one does not hide the others.
    rows: named(ofTrials(passing)),
    groups: named(ofTrials(shown)),
    // All of them, as what the selected ones are seen against.
    everything: named(all),
    label: at === "last" ? metric.label : `${metric.label}, ${at}`,
  };
}

// One of a metric's values in a trial: the last, best, lowest, highest or mean one; null for none.
export function valueOf(trial, metric, at, values = trial.values) {
  return values[metric.name][at === "best" ? (metric.isHigherBetter ? "max" : "min") : at];
}

// Groups with their measure where trials are compared: after `age` images. Diverged trials are as bad as the worst.
export function compared(groups) {
  const early = (trial) => trial.early && valueOf(trial, view.metric, view.at, trial.early);
  const known = sweep.trials.map(early).filter((value) => value !== null);
  const worst = known.length ? ends(known)[view.metric.isHigherBetter ? 0 : 1] : null;
  return groups.map((group) => {
    const values = group.trials.map((trial) => (trial.state === "diverged" ? worst : early(trial))).filter((value) => value !== null);
    return { ...group, values, value: interval(values).mean };
  }).filter((group) => group.value !== null);
}

// Whether a trial passes the search, the box and the ranges.
function filter() {
  const words = choices.search.toLowerCase().split(/\s+/).filter(Boolean);
  const brush = choices.brush && new Set(choices.brush);
  const isInside = ({ places }) => sweep.axes.every(({ field, place }) =>
    choices.ranges[field]?.some(([low, high]) => places[place] >= low && places[place] <= high) ?? true);
  return (trial) => (!brush || brush.has(trial.number)) && isInside(trial) && words.every((word) => wordsOf(trial).includes(word));
}

const searched = new WeakMap();
function wordsOf(trial) {
  if (!searched.has(trial)) searched.set(trial, `trial ${trial.number} ${trial.state} ${valuesOf(trial, sweep.axes)} ${trial.reason ?? ""}`.toLowerCase());
  return searched.get(trial);
}

// The value of a field as text, and those of several.
export const textOf = (trial, { place, choices: texts }) => (texts.length ? texts[trial.places[place]] : text(trial.plain[place]));
export const valuesOf = (trial, axes) => axes.map((axis) => `${axis.label} ${textOf(trial, axis)}`).join(", ");

// Images seen and values of a metric or a loss in a trial's course.
export function courseOf(trial, name) {
  if (name in trial.course) return { x: trial.course.images, y: trial.course[name] };
  return trial.losses?.[name] ? { x: trial.losses.images, y: trial.losses[name] } : { x: [], y: [] };
}

export const costOf = (trial) => (trial.seconds / 3600) * (choices.price ?? 0);
