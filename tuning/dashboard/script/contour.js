// The measure over two fields: a contour that is smoothed from the trials near each place, and the trials as points.

import { FEW, axisOf, context, placesOf } from "page/fields";
import { colorscale, draw, points, remove } from "page/plot";
import { choices, compared, isFiltered, sweep, textOf, view } from "page/store";
import { ends, find, number, options } from "page/text";

// Trials that a contour needs in all; and at a place by their weights: elsewhere it is left blank.
const FEWEST = 8, NEAR = 1.5;
const STEPS = 40; // of the grid, across an axis
const OPACITY = 0.55;

export function drawContour() {
  const [shown, all] = [view.groups, view.everything].map(compared);
  if (view.axes.length < 2 || all.length < 2) return remove("contour");
  const order = [choices.x, choices.y, ...sweep.importance.map((row) => row.axis.field), ...view.axes.map((axis) => axis.field)];
  const named = order.map((field) => view.axes.find((axis) => axis.field === field));
  const x = named[0] ?? named.slice(2).find((axis) => axis && axis !== named[1]);
  const y = named.slice(1).find((axis) => axis && axis !== x);
  for (const [name, axis] of [["x", x], ["y", y]]) options(find(`#contour [name=${name}]`), view.axes.map((each) => [each.field, each.label]), axis.field);
  const count = shown.reduce((sum, point) => sum + point.values.length, 0);
  const [cmin, cmax] = ends(all.map((point) => point.value)), scale = { cmin, cmax, colorscale, reversescale: view.metric.isHigherBetter };
  find("#contour .few").textContent = count < FEWEST ? `A contour needs ${FEWEST} trials; there are ${count}.` : "";
  draw("contour", [
    count >= FEWEST && surface(x, y, shown, all, scale),
    isFiltered() && context({ x: placesOf(x, all), y: placesOf(y, all) }, all),
    points(shown, (point) => [point.rank, number(point.value), textOf(point.trials[0], x), textOf(point.trials[0], y)], `rank %{customdata[2]}, %{customdata[3]}<br>${x.label} %{customdata[4]}, ${y.label} %{customdata[5]}`, {
      x: placesOf(x, shown), y: placesOf(y, shown),
      marker: {
        ...scale, size: shown.length <= FEW ? 12 : 7, color: shown.map((point) => point.value), line: { width: 1, color: "rgba(255,255,255,0.8)" },
        colorbar: { title: { text: view.label, side: "right", font: { size: 13 } }, thickness: 10, len: 0.8, outlinewidth: 0, nticks: 6 },
      },
    }),
  ], {
    xaxis: { ...axisOf(x, all), title: { text: x.label }, showgrid: false }, yaxis: { ...axisOf(y, all), title: { text: y.label }, showgrid: false },
  }, { height: 420, label: `${view.label} over ${x.label} and ${y.label}: ${shown.length} points.` });
}

// Mean of the trials' values by a Gaussian of their distance; trials of other values of a choice have no weight.
// Wand & Jones 1995: in two dimensions the width falls with the sixth root of the number.
function surface(x, y, shown, all, { cmin, cmax, ...scale }) {
  const [across, up] = [x, y].map((axis) => unit(axis, all));
  const width = 0.35 * shown.length ** (-1 / 6);
  const places = shown.map((point) => ({ x: across.of(point), y: up.of(point), value: point.value, n: point.values.length }));
  const kernel = (axis, one, other) => (axis.isChoice ? Number(one === other) : Math.exp(-(((one - other) / width) ** 2) / 2));
  const columns = across.steps.map((step) => places.map((point) => point.n * kernel(across, point.x, step)));
  const z = up.steps.map((step) => {
    const row = places.map((point) => kernel(up, point.y, step));
    return columns.map((column) => {
      let sum = 0, weight = 0;
      places.forEach(({ value }, i) => { sum += value * column[i] * row[i]; weight += column[i] * row[i]; });
      return weight >= NEAR ? sum / weight : null;
    });
  });
  const isSmooth = !across.isChoice && !up.isChoice;
  return {
    type: isSmooth ? "contour" : "heatmap", x: across.values, y: up.values, z, zmin: cmin, zmax: cmax, ...scale, opacity: OPACITY,
    showscale: false, hoverinfo: "skip", ...(isSmooth ? { ncontours: 12, line: { width: 0.5 }, connectgaps: false } : { xgap: across.isChoice ? 6 : 0, ygap: up.isChoice ? 6 : 0 }),
  };
}

// An axis from 0 to 1 over the values of all trials, on its scale, and the steps of the grid; of a choice its indices.
function unit(axis, all) {
  const place = (point) => point.trials[0].places[axis.place];
  if (axis.scale === "choice") {
    const steps = axis.choices.map((_, index) => index);
    return { isChoice: true, of: place, steps, values: steps };
  }
  const [there, back] = axis.scale === "log" ? [Math.log, Math.exp] : [(value) => value, (value) => value];
  const [low, high] = ends(all.map((point) => there(place(point)))), span = high - low || 1;
  const steps = Array.from({ length: STEPS + 1 }, (_, i) => i / STEPS);
  return { isChoice: false, of: (point) => (there(place(point)) - low) / span, steps, values: steps.map((step) => back(low + step * span)) };
}
