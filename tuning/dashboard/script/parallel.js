// Parallel coordinates: one line a group through its values, images seen and measure. Ranges on the axes select.

import { powers } from "page/fields";
import { FAINT, colorscale, draw, remove } from "page/plot";
import { choices, choose, view } from "page/store";

let dimensions = [];

export function drawParallel() {
  const section = document.querySelector("#parallel");
  // Worst first: plotly draws in this order.
  const lines = view.groups.filter((group) => group.found.n).toReversed();
  const all = view.everything.filter((group) => group.found.n);
  section.hidden = view.axes.length < 2 || all.length < 2 || !lines.length;
  if (section.hidden) return remove("parallel");
  const values = (read) => lines.map(read);
  dimensions = view.axes.map((axis) => ({ field: axis.field, ...coordinate(axis, values((line) => line.trials[0].places[axis.place]), all.map((group) => group.trials[0].places[axis.place])) }));
  const seen = (group) => Math.max(...group.trials.map((trial) => trial.images)), mean = (group) => group.found.mean;
  if (new Set(all.map(seen)).size > 1) dimensions.push({ label: "images", values: values(seen), range: ends(all.map(seen)), tickformat: ",~s" });
  dimensions.push({ label: view.label, values: values(mean), range: ends(all.map(mean)), tickformat: ".4~g" });
  const chart = draw("parallel", section.querySelector(".holder"), [{
    type: "parcoords", dimensions, labelfont: { size: 13 }, tickfont: { size: 12 }, rangefont: { size: 11 },
    line: { color: values((line) => -line.place), cmin: -1, cmax: 0, colorscale, reversescale: true },
    unselected: { line: { color: FAINT, opacity: 0.08 } },
  }], { margin: { l: 70, r: 60, t: 44, b: 24 } }, {
    height: 420, brush: false,
    label: `Parallel coordinates of ${lines.length} lines: ${dimensions.map((each) => each.label).join(", ")}.`,
  });
  if ("follows" in chart.dataset) return;
  chart.dataset.follows = "";
  chart.on("plotly_restyle", () => choose({ ranges: rangesOf(chart.data[0].dimensions) }));
}

// The ranges as values of the fields. Those of an axis that is no field select nothing elsewhere.
function rangesOf(drawn) {
  const found = {};
  drawn.forEach(({ label, constraintrange }) => {
    const dimension = dimensions.find((each) => each.label === label);
    if (!constraintrange?.length || !dimension?.field) return;
    const all = Array.isArray(constraintrange[0]) ? constraintrange : [constraintrange];
    found[dimension.field] = all.map((range) => range.map((end) => (dimension.isLog ? 10 ** end : end)));
  });
  return found;
}

const ends = (values) => [Math.min(...values), Math.max(...values)];

// An axis reaches over the values of all trials, so that it stays when some are selected.
function coordinate(axis, values, all) {
  const isLog = axis.scale === "log";
  const range = choices.ranges[axis.field]?.map((each) => each.map((end) => (isLog ? Math.log10(end) : end)));
  const base = { label: axis.label, isLog, ...(range ? { constraintrange: range } : {}) };
  if (axis.scale === "choice") {
    // The whole axis, also when the lines end at some of the choices.
    return { ...base, values, tickvals: axis.choices.map((_, place) => place), ticktext: axis.choices, range: [0, axis.choices.length - 1] };
  }
  if (axis.scale === "linear") return { ...base, values, range: ends(all), tickformat: ".3~g" };
  const [low, high] = ends(all.map(Math.log10)), edge = 0.07 * (high - low);
  const inside = powers(all).map(Math.log10).filter((power) => power > low + edge && power < high - edge);
  // Plotly draws an axis from its first mark to its last.
  const ticks = [low, ...inside, high];
  return { ...base, values: values.map(Math.log10), range: [low, high], tickvals: ticks, ticktext: ticks.map((tick) => String(Number((10 ** tick).toPrecision(3)))) };
}
