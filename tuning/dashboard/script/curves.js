// Learning curves: one line a trial, or a group's mean with a band from its lowest to its highest trial.

import { interval } from "page/groups";
import { BLUE, FAINT, ORANGE, TEAL, draw, shade } from "page/plot";
import { choices, courseOf, sweep, view } from "page/store";
import { number } from "page/text";

// Lines of one colour are one trace: browsers are fast with ten traces, not with a thousand.
const SHADES = 12, NAMED = 9, BANDS = 40;

export const curveName = () => choices.curve ?? view.metric.name;

export function drawCurves() {
  const name = curveName();
  const lines = view.groups.map((group) => ({ ...group, ...meanCourse(group, name) })).filter((line) => line.x.length);
  const holder = document.querySelector("#curves .holder");
  holder.closest("section").hidden = !sweep.trials.some((trial) => trial.course.images.length);
  const named = lines.length <= NAMED;
  const traces = [
    joined(view.rest.map((trial) => ({ ...courseOf(trial, name), numbers: [trial.number] })), { color: FAINT, width: 1 }, { hoverinfo: "skip" }),
    ...lines.slice(0, BANDS).filter((line) => line.low).map(band),
    ...(named ? lines.toReversed().map(single) : shades(lines.slice(1))),
    crosses(name), diamonds(name),
  ];
  const [best] = lines;
  if (best && !named) traces.push(joined([best], { color: shade(0), width: 3.2 }));
  const metric = [...sweep.metrics, ...sweep.losses].find((each) => each.name === name);
  draw("curves", holder, traces.filter(Boolean), {
    showlegend: named && lines.length > 1,
    legend: { orientation: "h", y: -0.18, x: 0, traceorder: "reversed" },
    xaxis: { title: { text: "images seen" }, rangemode: "tozero", tickformat: ",~s" },
    yaxis: { title: { text: metric?.label ?? name }, range: range(lines, name) },
    ...marks(name, named ? null : best),
  }, {
    height: 440 + (named && lines.length > 3 ? 24 * Math.ceil(lines.length / 3) : 0),
    label: `Learning curves, ${metric?.label ?? name} over images seen: ${lines.length} lines.`
      + (best ? ` Best: ${best.name}, ${number(best.y.at(-1))} after ${number(best.x.at(-1))} images.` : ""),
  });
}

// Mean over the trials of a group at the images that all of them have reached, without diverged ones if others are there.
function meanCourse(group, name) {
  const sound = group.trials.filter((trial) => trial.state !== "diverged");
  const courses = (sound.length ? sound : group.trials).map((trial) => courseOf(trial, name)).filter(({ x }) => x.length);
  if (courses.length < 2) return courses[0] ?? { x: [], y: [] };
  const at = courses.map(({ x, y }) => new Map(x.map((images, i) => [images, y[i]])));
  const x = courses[0].x.filter((images) => at.every((course) => Number.isFinite(course.get(images) ?? NaN)));
  const values = x.map((images) => at.map((course) => course.get(images)));
  return {
    x, y: values.map((each) => interval(each).mean),
    low: values.map((each) => Math.min(...each)), high: values.map((each) => Math.max(...each)),
  };
}

function shades(lines) {
  const found = new Map();
  for (const line of lines.toReversed()) {
    const key = Math.round(line.place * SHADES) / SHADES;
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(line);
  }
  const power = lines.length > 30 ? 0.5 : 2;
  return [...found].map(([place, each]) => joined(each, { color: shade(place), width: 1.4 }, { opacity: 0.95 - 0.65 * place ** power }));
}

const single = (line) => joined([line], { color: shade(line.place), width: line.place === 0 ? 3.2 : 2 }, { name: line.name });

// Several lines as one trace; a line ends at null.
function joined(lines, line, more = {}) {
  const [x, y, customdata] = [[], [], []];
  for (const each of lines) {
    x.push(...each.x, null);
    y.push(...each.y, null);
    const about = [each.numbers, each.name];
    for (let i = 0; i <= each.x.length; i += 1) customdata.push(about);
  }
  return {
    type: "scatter", mode: "lines+markers", x, y, customdata, line, marker: { size: lines.length > 20 ? 3 : 4 },
    hovertemplate: "%{customdata[1]}: %{y:.4~g} after %{x:,} images<extra></extra>", ...more,
  };
}

function band(line) {
  return {
    type: "scatter", mode: "lines", x: [...line.x, ...line.x.toReversed()], y: [...line.high, ...line.low.toReversed()],
    fill: "toself", fillcolor: shade(line.place, 0.15), line: { width: 0 }, hoverinfo: "skip", showlegend: false,
  };
}

function crosses(name) {
  const ends = view.shown.filter((trial) => trial.state === "diverged").map((trial) => [trial, courseOf(trial, name)])
    .filter(([, { y }]) => y.length);
  return {
    type: "scatter", mode: "markers", x: ends.map(([, { x }]) => x.at(-1)), y: ends.map(([, { y }]) => y.at(-1)),
    customdata: ends.map(([trial]) => [[trial.number]]), showlegend: false,
    marker: { symbol: "x-thin", size: 9, line: { color: ORANGE, width: 2.5 } },
    hovertemplate: "trial %{customdata[0][0]} diverged after %{x:,} images<extra></extra>",
  };
}

// Checkpoints, on the curves of their trials, from which other trials of a population continued.
function diamonds(name) {
  const byNumber = new Map(sweep.trials.map((trial) => [trial.number, trial]));
  const taken = view.shown.flatMap((trial) => trial.exploits.map(([images, donor]) => {
    const { x, y } = byNumber.has(donor) ? courseOf(byNumber.get(donor), name) : { x: [], y: [] };
    const seen = Math.max(0, x.filter((each) => each <= images).length - 1);
    return { images, value: y[seen], about: [[trial.number], donor] };
  }));
  return taken.length ? {
    type: "scatter", mode: "markers", x: taken.map((each) => each.images), y: taken.map((each) => each.value),
    customdata: taken.map((each) => each.about), marker: { symbol: "diamond", size: 9, color: TEAL }, showlegend: false,
    hovertemplate: "trial %{customdata[0][0]} continued from here, trial %{customdata[1]} after %{x:,} images<extra></extra>",
  } : null;
}

// Without a few outliers that would flatten all other curves; with the values that readers know.
function range(lines, name) {
  const values = lines.flatMap((line) => (line.low ? [...line.low, ...line.high] : line.y)).filter(Number.isFinite).sort((a, b) => a - b);
  if (!values.length) return undefined;
  const most = values[Math.floor(0.97 * (values.length - 1))], known = sweep.references.filter((each) => each.metric === name).map((each) => each.value);
  const low = Math.min(values[0], ...known), high = Math.max(Math.min(values.at(-1), values[0] + 2 * (most - values[0])), ...known);
  const edge = 0.06 * (high - low) || 1;
  return [low - 1.6 * edge, high + edge];
}

// Values of the metric that readers know, as lines, and the name of the best line where lines have no legend.
function marks(name, best) {
  const lines = sweep.references.filter((each) => each.metric === name);
  return {
    shapes: lines.map(({ value }) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: value, y1: value, line: { color: BLUE, width: 1.5, dash: "dash" } })),
    annotations: [
      ...lines.map(({ value, label }) => ({ xref: "paper", x: 1, y: value, text: label, showarrow: false, xanchor: "right", yanchor: "bottom" })),
      ...(best ? [{ x: best.x.at(-1), y: best.y.at(-1), text: `<b>${best.name}: ${number(best.y.at(-1))}</b>`, showarrow: false, xanchor: "right", yanchor: "top", yshift: -8 }] : []),
    ],
  };
}

