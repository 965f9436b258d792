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

// What it saved to end trials early.
export function drawStops() {
  const ended = view.shown.filter((trial) => ["finished", "stopped", "diverged"].includes(trial.state));
  const seen = ended.map((trial) => trial.images), spent = seen.reduce((sum, images) => sum + images, 0), full = sweep.total * ended.length;
  const saved = ended.filter((trial) => trial.state === "stopped").reduce((sum, trial) => sum + Math.max(0, sweep.total - trial.images), 0);
  const percent = (part) => `${Math.round(100 * part / full)} %`;
  const text = ended.length ? `The ${ended.length} trials that ended have seen ${number(spent)} images; trained to the end it would have been ${number(full)}.`
    + (saved ? ` The scheduler saved ${number(saved)} of them (${percent(saved)}).` : "") : "No trial has ended yet.";
  document.querySelector("#stops .note").textContent = text;
  if (ended.every((trial) => trial.state === "finished")) return remove("stops");
  const ages = [...new Set([0, ...seen])].sort((one, other) => one - other);
  const count = (age, state) => ended.filter((trial) => trial.images === age && trial.state === state).length;
  draw("stops", [{
    type: "scatter", mode: "lines", x: ages, y: ages.map((age) => seen.filter((images) => images > age).length), fill: "tozeroy",
    fillcolor: shade(0, 0.28), line: { shape: "hv", color: BLUE, width: 2 },
    customdata: ages.map((age) => [[], count(age, "stopped"), count(age, "diverged")]),
    hovertemplate: "after %{x:,} images: %{customdata[1]} stopped, %{customdata[2]} diverged, %{y} went on<extra></extra>",
  }, {
    type: "scatter", mode: "lines", x: [0, sweep.total, sweep.total], y: [ended.length, ended.length, 0], hoverinfo: "skip", line: { color: GREY, width: 1.5, dash: "dash" },
  }], {
    xaxis: { title: { text: "images seen" }, tickformat: ",", rangemode: "tozero" },
    yaxis: { title: { text: "trials that train" }, range: [0, 1.06 * ended.length], dtick: ended.length < 8 ? 1 : undefined },
    annotations: [{ x: 0, y: 0, text: `spent: <b>${percent(spent)}</b>`, showarrow: false, xanchor: "left", yanchor: "bottom", xshift: 10, yshift: 6 }],
  }, { height: 320, brush: false, label: text });
}
