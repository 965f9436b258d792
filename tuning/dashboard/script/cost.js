// What the sweep costs: the measure by cost, and the trials that train over images seen.

import { BLUE, GREY, draw, points, remove, shade } from "page/plot";
import { choices, costOf, sweep, view } from "page/store";
import { duration, find, money, number, sum } from "page/text";

export function drawCosts() {
  const seconds = sum(view.shown, (trial) => trial.seconds), images = sum(view.shown, (trial) => trial.images);
  const spent = [`${number(images)} images`, seconds && `${duration(seconds)} of worker time`, choices.price !== null && `${money(sum(view.shown, costOf))} in all`];
  find("#costs .spent").textContent = `${view.shown.length} trials: ${spent.filter(Boolean).join(", ")}.`;
  const groups = view.groups.filter((group) => group.found.n);
  if (!groups.length) return remove("costs");
  const secondsOf = (group) => sum(group.trials, (trial) => trial.seconds), [part, unit] = Math.max(...groups.map(secondsOf)) < 5400 ? [60, "minutes"] : [3600, "hours"];
  const [title, read, text] = !seconds ? ["images seen", (group) => sum(group.trials, (trial) => trial.images), (value) => `${number(value)} images`]
    : choices.price === null ? [`worker ${unit}`, (group) => secondsOf(group) / part, (value) => duration(part * value)]
      : ["cost", (group) => sum(group.trials, costOf), money];
  draw("costs", [points(groups, (group) => [text(read(group))], "%{y:.4~g} for %{customdata[2]}", {
    x: groups.map(read), y: groups.map((group) => group.found.mean),
    marker: { size: groups.length <= 50 ? 10 : 6, opacity: 0.8, color: groups.map((group) => shade(group.place)) },
  })], {
    xaxis: { title: { text: title }, rangemode: "tozero", nticks: 6 }, yaxis: { title: { text: view.label } },
  }, { height: 300, label: `${view.label} by cost: ${groups.length} points.` });
}

// What it saved to end trials early.
export function drawStops() {
  const ended = view.shown.filter((trial) => ["finished", "stopped", "diverged"].includes(trial.state));
  const spent = sum(ended, (trial) => trial.images), full = sweep.total * ended.length;
  const saved = sum(ended.filter((trial) => trial.state === "stopped"), (trial) => Math.max(0, sweep.total - trial.images));
  const percent = (part) => `${Math.round(100 * part / full)} %`;
  const text = ended.length ? `The ${ended.length} trials that ended have seen ${number(spent)} images; trained to the end it would have been ${number(full)}.`
    + (saved ? ` The scheduler saved ${number(saved)} of them (${percent(saved)}).` : "") : "None of these trials has ended yet.";
  find("#stops .note").textContent = text;
  // All that ended may have diverged before their first evaluation.
  if (!full || ended.every((trial) => trial.state === "finished")) return remove("stops");
  const ages = [...new Set([0, ...ended.map((trial) => trial.images)])].sort((one, other) => one - other);
  const count = (age, state) => ended.filter((trial) => trial.images === age && trial.state === state).length;
  draw("stops", [{
    type: "scatter", mode: "lines", x: ages, y: ages.map((age) => ended.filter((trial) => trial.images > age).length), fill: "tozeroy",
    fillcolor: shade(0, 0.28), line: { shape: "hv", color: BLUE, width: 2 },
    customdata: ages.map((age) => [[], count(age, "stopped"), count(age, "diverged")]),
    hovertemplate: "after %{x:,} images: %{customdata[1]} stopped, %{customdata[2]} diverged, %{y} went on<extra></extra>",
  }, {
    type: "scatter", mode: "lines", x: [0, sweep.total, sweep.total], y: [ended.length, ended.length, 0], hoverinfo: "skip", line: { color: GREY, width: 1.5, dash: "dash" },
  }], {
    xaxis: { title: { text: "images seen" }, tickformat: ",", rangemode: "tozero", nticks: 6 },
    yaxis: { title: { text: "trials that train" }, range: [0, 1.06 * ended.length], dtick: ended.length < 8 ? 1 : undefined },
    annotations: [{ x: 0, y: 0, text: `spent: <b>${percent(spent)}</b>`, showarrow: false, xanchor: "left", yanchor: "bottom", xshift: 10, yshift: 6 }],
  }, { height: 320, brush: false, label: text });
}
