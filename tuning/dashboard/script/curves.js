// Learning curves: one line a trial, or a group's mean with a band from its lowest to its highest trial.

import { interval } from "page/groups";
import { BLUE, FAINT, ORANGE, TEAL, draw, remove, shade } from "page/plot";
import { choices, courseOf, sweep, view } from "page/store";
import { ends, number } from "page/text";

// Lines of one colour are one trace: browsers are fast with ten traces, not with a thousand.
const SHADES = 12, NAMED = 9, BANDS = 40;

export const curveName = () => choices.curve ?? view.metric.name;

export function drawCurves() {
  if (!sweep.trials.some((trial) => trial.course.images.length)) return remove("curves");
  const name = curveName();
  const label = [...sweep.metrics, ...sweep.losses].find((each) => each.name === name)?.label ?? name;
  const lines = view.groups.map((group) => ({ ...group, ...meanCourse(group, name) })).filter((line) => line.x.length);
  const known = sweep.references.filter((each) => each.metric === name);
  const [best] = lines, isNamed = lines.length <= NAMED;
  const end = best && `${number(best.y.at(-1))} after ${number(best.x.at(-1))} images`;
  draw("curves", [
    joined(view.rest.map((trial) => ({ ...courseOf(trial, name), numbers: [trial.number] })), { color: FAINT, width: 1 }, { hoverinfo: "skip", showlegend: false }),
    ...lines.slice(0, BANDS).filter((line) => line.low).map(band),
    ...(isNamed ? lines.toReversed().map(single) : [...shades(lines.slice(1)), single(best)]),
    ...marks(name),
  ], {
    showlegend: isNamed && lines.length > 1,
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "reversed" },
    xaxis: { title: { text: "images seen" }, rangemode: "tozero", tickformat: ",~s", nticks: 8 },
    yaxis: { title: { text: label }, range: range(lines, known.map((each) => each.value)) },
    // Values of the metric that readers know.
    shapes: known.map(({ value, label: text }) => ({
      type: "line", xref: "paper", x0: 0, x1: 1, y0: value, y1: value, line: { color: BLUE, width: 1.5, dash: "dash" },
      label: { text, textposition: "start", yanchor: "bottom" },
    })),
    annotations: isNamed ? [] : [{ x: best.x.at(-1), y: best.y.at(-1), text: `<b>${best.name}: ${number(best.y.at(-1))}</b>`, showarrow: false, xanchor: "right", yanchor: "top", yshift: -8 }],
  }, {
    height: 440 + (isNamed && lines.length > 3 ? 24 * Math.ceil(lines.length / 3) : 0),
    label: `Learning curves, ${label} over images seen: ${lines.length} lines.${best ? ` Best: ${best.name}, ${end}.` : ""}`,
  });
}

// Mean over the trials of a group at the images that all of them have reached, without diverged ones if others are there.
function meanCourse(group, name) {
  const sound = group.trials.filter((trial) => trial.state !== "diverged");
  const courses = (sound.length ? sound : group.trials).map((trial) => courseOf(trial, name)).filter(({ x }) => x.length);
  if (courses.length < 2) return courses[0] ?? { x: [], y: [] };
  const at = courses.map(({ x, y }) => new Map(x.map((images, i) => [images, y[i]])));
  const x = courses[0].x.filter((images) => at.every((course) => Number.isFinite(course.get(images))));
  const values = x.map((images) => at.map((course) => course.get(images)));
  return { x, y: values.map((each) => interval(each).mean), low: values.map((each) => ends(each)[0]), high: values.map((each) => ends(each)[1]) };
}

// Lines of one shade together, the better ones in front.
function shades(lines) {
  const power = lines.length > 30 ? 0.5 : 2;
  const found = Map.groupBy(lines.toReversed(), (line) => Math.round(line.place * SHADES) / SHADES);
  return [...found].map(([place, each]) => joined(each, { color: shade(place), width: 1.4 }, { opacity: 0.95 - 0.65 * place ** power }));
}

const single = (line) => joined([line], { color: shade(line.place), width: line.place === 0 ? 3.2 : 2 }, { name: line.name });

// Several lines as one trace; a line ends at null.
function joined(lines, line, more = {}) {
  const many = lines.length > 20;
  return {
    type: "scatter", mode: "lines+markers", line,
    // Boxes select points with markers; of many none is drawn.
    marker: many ? { opacity: 0, maxdisplayed: 1 } : { size: 4 },
    x: lines.flatMap((each) => [...each.x, null]), y: lines.flatMap((each) => [...each.y, null]),
    customdata: lines.flatMap((each) => Array(each.x.length + 1).fill([each.numbers, each.name])),
    hovertemplate: "%{customdata[1]}: %{y:.4~g} after %{x:,} images<extra></extra>", ...more,
  };
}

const band = (line) => ({
  type: "scatter", mode: "lines", x: [...line.x, ...line.x.toReversed()], y: [...line.high, ...line.low.toReversed()],
  fill: "toself", fillcolor: shade(line.place, 0.15), line: { width: 0 }, hoverinfo: "skip", showlegend: false,
});

// Where trials diverged, and the checkpoints of trials from which others of a population continued.
function marks(name) {
  const byNumber = new Map(sweep.trials.map((trial) => [trial.number, trial]));
  // A mark of a trial, on the curve of one of this number, after so many images.
  const mark = (trial, number, images) => {
    const { x, y } = byNumber.has(number) ? courseOf(byNumber.get(number), name) : { x: [], y: [] };
    return { x: Math.min(images, x.at(-1)), y: y[Math.max(0, x.filter((each) => each <= images).length - 1)], customdata: [[trial.number], number] };
  };
  const diverged = view.shown.filter((trial) => trial.state === "diverged").map((trial) => mark(trial, trial.number, Infinity));
  const taken = view.shown.flatMap((trial) => trial.exploits.map(([images, donor]) => mark(trial, donor, images)));
  const trace = (found, marker, text) => found.length > 0 && {
    type: "scatter", mode: "markers", showlegend: false, marker, x: found.map((each) => each.x), y: found.map((each) => each.y),
    customdata: found.map((each) => each.customdata), hovertemplate: `trial %{customdata[0][0]} ${text} after %{x:,} images<extra></extra>`,
  };
  return [
    trace(diverged, { symbol: "x-thin", size: 9, line: { color: ORANGE, width: 2.5 } }, "diverged"),
    trace(taken, { symbol: "diamond", size: 9, color: TEAL }, "continued from here, trial %{customdata[1]}"),
  ];
}

// Without a few outliers that would flatten all other curves; with the values that readers know.
function range(lines, known) {
  const values = lines.flatMap((line) => (line.low ? [...line.low, ...line.high] : line.y)).filter(Number.isFinite).sort((a, b) => a - b);
  if (!values.length) return undefined;
  const most = values[Math.floor(0.97 * (values.length - 1))];
  const [low, high] = ends([values[0], Math.min(values.at(-1), values[0] + 2 * (most - values[0])), ...known]);
  const edge = 0.06 * (high - low) || 1;
  return [low - 1.6 * edge, high + edge];
}
