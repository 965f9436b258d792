// What the sweep costs: the measure by cost, and the trials that train over images seen.

import { BLUE, GREY, draw, remove, shade } from "page/plot";
import { choices, costOf, sweep, view } from "page/store";
import { duration, money, number } from "page/text";

export function drawCosts() {
  const sum = (trials, read) => trials.reduce((all, trial) => all + read(trial), 0);
  const seconds = (trial) => trial.seconds, images = (trial) => trial.images;
  const [unit, spent, text] = !sum(view.shown, seconds) ? ["images seen", images, (value) => `${number(value)} images`]
    : choices.price === null ? ["hours of workers", (trial) => trial.seconds / 3600, (value) => duration(3600 * value)]
      : ["cost", costOf, money];
  const all = [[images, (value) => `${number(value)} images`], [seconds, (value) => `${duration(value)} of workers`], [costOf, (value) => `${money(value)} in all`]]
    .map(([read, write]) => [sum(view.shown, read), write]).filter(([value]) => value);
  document.querySelector("#costs .spent").textContent = `${view.shown.length} trials: ${all.map(([value, write]) => write(value)).join(", ")}.`;
  const points = view.groups.filter((group) => group.found.n).map((group) => ({ ...group, spent: sum(group.trials, spent) }));
  if (!points.length) return remove("costs");
  draw("costs", [{
    type: "scatter", mode: "markers", x: points.map((point) => point.spent), y: points.map((point) => point.found.mean),
    marker: { size: points.length <= 50 ? 10 : 6, opacity: 0.8, color: points.map((point) => shade(point.place)) },
    customdata: points.map((point) => [point.numbers, point.name, text(point.spent)]),
    hovertemplate: "%{customdata[1]}: %{y:.4~g} for %{customdata[2]}<extra></extra>",
  }], {
    xaxis: { title: { text: unit }, rangemode: "tozero", nticks: 6 }, yaxis: { title: { text: view.label } },
  }, { height: 300, label: `${view.label} by cost: ${points.length} points.` });
}

export function drawStops() {
  const ends = view.shown.filter((trial) => ["finished", "stopped", "diverged"].includes(trial.state)).map((trial) => trial.images);
  if (!sweep.hasStops || !ends.length) return remove("stops");
  const ages = [...new Set([0, ...ends])].sort((one, other) => one - other);
  const share = ends.reduce((sum, images) => sum + images, 0) / (sweep.total * ends.length);
  const percent = (part) => `${Math.round(100 * part)} %`;
  const corner = (text, x, y, sign) => ({
    x, y, text, showarrow: false, xanchor: sign > 0 ? "left" : "right", yanchor: sign > 0 ? "bottom" : "top", xshift: 10 * sign, yshift: 6 * sign,
  });
  draw("stops", [{
    type: "scatter", mode: "lines", x: ages, y: ages.map((age) => ends.filter((images) => images > age).length), fill: "tozeroy",
    fillcolor: shade(0, 0.28), line: { shape: "hv", color: BLUE, width: 2 }, hovertemplate: "after %{x:,} images %{y} trials continue<extra></extra>",
  }, {
    type: "scatter", mode: "lines", x: [0, sweep.total, sweep.total], y: [ends.length, ends.length, 0], hoverinfo: "skip", line: { color: GREY, width: 1.5, dash: "dash" },
  }], {
    xaxis: { title: { text: "images seen" }, tickformat: ",", rangemode: "tozero" },
    yaxis: { title: { text: "trials that train" }, range: [0, 1.06 * ends.length], dtick: ends.length < 8 ? 1 : undefined },
    annotations: [
      corner(`spent: <b>${percent(share)}</b>`, 0, 0, 1),
      ...(share < 0.97 ? [corner(`not spent: <b>${percent(1 - share)}</b>`, sweep.total, ends.length, -1)] : []),
    ],
  }, { height: 320, brush: false, label: `${ends.length} trials that ended: ${percent(share)} of the images of full trainings were spent.` });
}
