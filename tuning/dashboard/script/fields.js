// How the measure depends on the fields: importance, one chart a field, and a rank plot of two.

import { interval } from "page/groups";
import { BLUE, FAINT, GREY, colorscale, draw, remove, shade } from "page/plot";
import { choices, isFiltered, sweep, valueAt, view } from "page/store";
import { element, number, options } from "page/text";

const BOXED = 6; // fewer points get no box

export function drawImportance() {
  const rows = sweep.importance.toReversed();
  const holder = document.querySelector("#importance .holder");
  if (!rows.length) return remove("importance");
  const shares = rows.map((row) => row.share);
  draw("importance", holder, [{
    type: "bar", orientation: "h", x: shares, y: rows.map((row) => row.label), width: 0.55, marker: { color: BLUE },
    error_x: {
      type: "data", symmetric: false, color: GREY, thickness: 1.5, width: 4,
      array: rows.map((row) => Math.max(0, row.high - row.share)), arrayminus: rows.map((row) => Math.max(0, row.share - row.low)),
    },
    customdata: rows.map((row) => [[], row.low, row.high]),
    hovertemplate: "%{y}: %{x:.0%} (80 % of random halves: %{customdata[1]:.0%} to %{customdata[2]:.0%})<extra></extra>",
  }], {
    margin: { l: 8, r: 52, t: 12, b: 8 },
    annotations: rows.map((row) => ({ x: Math.max(row.share, row.high), y: row.label, text: `<b>${Math.round(100 * row.share)}%</b>`, showarrow: false, xanchor: "left", xshift: 8 })),
    xaxis: { tickformat: ".0%", rangemode: "tozero", nticks: 5 }, yaxis: { showgrid: false, ticks: "", ticklabelstandoff: 6 },
  }, {
    height: 70 + 44 * rows.length, brush: false,
    label: `Importance of fields: ${sweep.importance.map((row) => `${row.label} ${Math.round(100 * row.share)} %`).join(", ")}.`,
  });
}

// Groups with the measure where trials are compared: after `age` images; diverged trials are as bad as the worst.
function compared(groups) {
  const trials = groups.flatMap((group) => group.trials);
  const measured = new Map(trials.map((trial) => [trial.number, valueAt(trial, sweep.age)]));
  const known = [...measured.values()].filter((value) => value !== null);
  const worst = known.length ? Math[view.metric.isHigherBetter ? "min" : "max"](...known) : null;
  for (const trial of trials) if (trial.state === "diverged") measured.set(trial.number, worst);
  return groups
    .map((group) => {
      const values = group.trials.map((trial) => measured.get(trial.number)).filter((value) => value !== null);
      return { ...group, values, value: interval(values).mean };
    })
    .filter((group) => group.value !== null);
}

export function drawFields() {
  const section = document.querySelector("#fields");
  const points = compared(view.groups), all = compared(view.everything);
  section.hidden = all.length < 2 || !view.axes.length;
  const grid = section.querySelector(".grid");
  for (const holder of [...grid.children]) {
    if (!section.hidden && view.axes.some((axis) => holder.dataset.field === axis.field)) continue;
    remove(holder.dataset.chart);
    holder.remove();
  }
  if (section.hidden) return;
  section.querySelector(".measured").textContent = number(sweep.age);
  for (const axis of view.axes) {
    let holder = [...grid.children].find((each) => each.dataset.field === axis.field);
    if (!holder) {
      holder = element("div", { "data-field": axis.field, "data-chart": `field-${axis.place}` }, element("h3", {}, axis.label));
      grid.append(holder);
    }
    drawField(axis, points, all, holder);
  }
}

function drawField(axis, points, all, holder) {
  const isChoice = axis.scale === "choice";
  const values = points.map((point) => point.value);
  const places = placesOf(axis, points);
  const [allValues, allPlaces] = [all.map((point) => point.value), placesOf(axis, all)];
  const behind = isChoice ? context(all, allValues, allPlaces) : context(all, allPlaces, allValues);
  const traces = [...(isChoice ? boxes(axis, points) : []), ...behind];
  const spread = {
    type: "data", symmetric: false, color: GREY, thickness: 1.2, width: 3, visible: points.some((point) => point.values.length > 1),
    array: points.map((point) => Math.max(...point.values) - point.value),
    arrayminus: points.map((point) => point.value - Math.min(...point.values)),
  };
  traces.push({
    ...marks(points), x: isChoice ? values : places, y: isChoice ? places : values, [isChoice ? "error_x" : "error_y"]: spread,
    customdata: points.map((point) => [point.numbers, point.name, axis.scale === "choice" ? "" : point.trials[0].texts[axis.place]]),
    hovertemplate: `%{customdata[1]}: %{${isChoice ? "x" : "y"}:.4~g}, ${axis.label} %{customdata[2]}<extra></extra>`,
  });
  const measured = { title: { text: view.label } };
  const layout = isChoice
    ? { xaxis: measured, yaxis: { ...axisOf(axis, all), range: [axis.choices.length - 0.5, -0.5] } }
    : { xaxis: axisOf(axis, all), yaxis: measured };
  draw(holder.dataset.chart, holder, traces, layout, {
    height: Math.max(240, 70 + 46 * axis.choices.length),
    label: `${view.label} by ${axis.label}: ${points.length} points.`,
  });
}

export function drawRanks() {
  const section = document.querySelector("#ranks");
  const [points, all] = [view.groups, view.everything].map((groups) => groups.filter((group) => group.found.n));
  section.hidden = view.axes.length < 2 || all.length < 2;
  if (section.hidden) return remove("ranks");
  const order = [...sweep.importance.map((row) => row.field), ...view.axes.map((axis) => axis.field)]
    .filter((field) => view.axes.some((axis) => axis.field === field));
  const [x, y] = two(order);
  const pairs = view.axes.map((axis) => [axis.field, axis.label]);
  options(section.querySelector("[name=x]"), pairs, x.field);
  options(section.querySelector("[name=y]"), pairs, y.field);
  const holder = section.querySelector(".holder");
  const places = view.axes.length;
  const behind = context(all, placesOf(x, all), placesOf(y, all));
  draw("ranks", holder, [...behind, {
    ...marks(points, true), x: placesOf(x, points), y: placesOf(y, points),
    customdata: points.map((point) => [point.numbers, point.name, point.rank, number(point.found.mean), point.trials[0].texts[x.place], point.trials[0].texts[y.place]]),
    hovertemplate: `%{customdata[1]}: rank %{customdata[2]}, %{customdata[3]}<br>${x.label} %{customdata[4]}, ${y.label} %{customdata[5]}<extra></extra>`,
  }], {
    xaxis: { ...axisOf(x, all), title: { text: x.label } }, yaxis: { ...axisOf(y, all), title: { text: y.label } },
  }, { height: 400, label: `Ranks of ${points.length} points by ${x.label} and ${y.label}, two of ${places} fields.` });
}

// What is not selected, faint, so that the axes and the page stay as they are.
function context(all, x, y) {
  const marker = { size: all.length <= 50 ? 7 : 5, color: FAINT };
  return isFiltered() ? [{ type: "scatter", mode: "markers", x, y, marker, hoverinfo: "skip", customdata: all.map((point) => [point.numbers]) }] : [];
}

function two(order) {
  const axisNamed = (field) => view.axes.find((axis) => axis.field === field);
  const x = axisNamed(choices.x) ?? axisNamed(order[0]);
  const y = [choices.y, ...order].map(axisNamed).find((axis) => axis && axis !== x);
  return [x, y];
}

function marks(points, scaled = false) {
  const few = points.length <= 50;
  return {
    type: "scatter", mode: "markers",
    marker: scaled
      ? {
        size: few ? 14 : 8, color: points.map((point) => point.place), colorscale, cmin: 0, cmax: 1, opacity: 0.85,
        colorbar: { tickvals: [0, 1], ticktext: ["best", "worst"], thickness: 10, len: 0.6, outlinewidth: 0 },
      }
      : { size: few ? 9 : 6, opacity: few ? 0.85 : 0.6, color: points.map((point) => shade(point.place)) },
  };
}

// Values; of a choice its index, spread sideways at the same places in every page.
function placesOf(axis, points) {
  return points.map((point) => {
    const place = point.trials[0].places[axis.place];
    const turn = (point.numbers[0] * 0.618034) % 1;
    return axis.scale === "choice" ? place + 0.44 * (turn - 0.5) : place;
  });
}

function axisOf(axis, points) {
  if (axis.scale === "choice") {
    return {
      tickvals: axis.choices.map((_, place) => place), ticktext: axis.choices, zeroline: false, showgrid: false,
      ticklabelstandoff: 6, range: [-0.5, axis.choices.length - 0.5],
    };
  }
  if (axis.scale === "linear") return { nticks: 6 };
  return { type: "log", tickvals: powers(points.map((point) => point.trials[0].places[axis.place])), tickformat: "~g" };
}

// 1, 3, 10, 30, ... over the range, without the threes where there are many.
export function powers(values) {
  const low = Math.floor(Math.log10(Math.min(...values))), high = Math.ceil(Math.log10(Math.max(...values)));
  const steps = high - low <= 2 ? [1, 3] : [1];
  return Array.from({ length: high - low + 1 }, (_, i) => steps.map((step) => Number(`${step}e${low + i}`))).flat();
}

function boxes(axis, points) {
  return axis.choices.flatMap((_, place) => {
    const values = points.filter((point) => point.trials[0].places[axis.place] === place).map((point) => point.value);
    return values.length < BOXED ? [] : [{
      type: "box", orientation: "h", x: values, y: values.map(() => place), boxpoints: false, width: 0.6, hoverinfo: "skip",
      line: { color: GREY, width: 1.5 }, fillcolor: FAINT,
    }];
  });
}
