// Parallel coordinates: one line a group through its values, images seen and measure. Ranges on the axes select.

import { FAINT, colorscale, draw, remove } from "page/plot";
import { choices, choose, view } from "page/store";
import { ends } from "page/text";

const MANY = 200;

let dimensions = [];

export function drawParallel() {
  // Worst first: plotly draws in this order.
  const lines = view.groups.filter((group) => group.found.n).toReversed();
  const all = view.everything.filter((group) => group.found.n);
  if (view.axes.length < 2 || all.length < 2 || !lines.length) return remove("parallel");
  // An axis reaches over the values of all trials, so that it stays when some are selected.
  const dimension = (read, label, more = {}) => ({ label, values: lines.map(read), range: ends(all.map(read)), ...more });
  const seen = (group) => Math.max(...group.trials.map((trial) => trial.images));
  dimensions = [
    ...view.axes.map((axis) => coordinate(axis, all, dimension)),
    ...(new Set(all.map(seen)).size > 1 ? [dimension(seen, "images", { tickformat: ",~s" })] : []),
    dimension((group) => group.found.mean, view.label, { tickformat: ".4~g" }),
  ];
  const chart = draw("parallel", [{
    type: "parcoords", dimensions, labelfont: { size: 13 }, tickfont: { size: 12 }, rangefont: { size: 11 },
    line: { color: lines.map((line) => -line.place), cmin: -1, cmax: 0, colorscale, reversescale: true },
    unselected: { line: { color: FAINT, opacity: 0.08 } },
  }], { margin: { l: 70, r: 60, t: 44, b: 24 } }, {
    // Plotly draws these lines at twice the resolution of the screen, which takes seconds without a graphics card.
    height: 420, brush: false, config: { plotGlPixelRatio: all.length > MANY ? 1 : 2 },
    label: `Parallel coordinates of ${lines.length} lines: ${dimensions.map((each) => each.label).join(", ")}.`,
  });
  if ("follows" in chart.dataset) return;
  chart.dataset.follows = "";
  chart.on("plotly_restyle", () => choose({ ranges: rangesOf(chart.data[0].dimensions) }));
}

function coordinate(axis, all, dimension) {
  const isLog = axis.scale === "log", turn = isLog ? Math.log10 : (value) => value;
  const read = (group) => turn(group.trials[0].places[axis.place]);
  const range = choices.ranges[axis.field]?.map((each) => each.map(turn));
  const base = dimension(read, axis.label, { field: axis.field, isLog, ...(range ? { constraintrange: range } : {}) });
  if (axis.scale === "choice") return { ...base, tickvals: axis.choices.map((_, place) => place), ticktext: axis.choices, range: [0, axis.choices.length - 1] };
  if (!isLog) return { ...base, tickformat: ".3~g" };
  const [low, high] = base.range, edge = 0.07 * (high - low), powers = Array.from({ length: Math.ceil(high - low) }, (_, i) => Math.ceil(low) + i);
  // Plotly draws an axis from its first mark to its last.
  const ticks = [low, ...powers.filter((power) => power > low + edge && power < high - edge), high];
  return { ...base, tickvals: ticks, ticktext: ticks.map((tick) => String(Number((10 ** tick).toPrecision(3)))) };
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
