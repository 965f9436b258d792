// What the sweep costs: trials over images seen, the measure by cost, and the sessions of trials on their hosts.

import { BLUE, GREY, ORANGE, TEAL, draw, remove, shade } from "page/plot";
import { choices, costOf, sweep, view } from "page/store";
import { duration, number } from "page/text";

const FILL = "rgba(28,126,214,0.28)";
const OUTCOMES = {
  finished: { color: BLUE }, running: { color: TEAL }, stopped: { color: GREY }, interrupted: { color: GREY, shape: "/" },
  exploited: { color: TEAL, shape: "x" }, diverged: { color: ORANGE }, failed: { color: ORANGE, shape: "/" }, lost: { color: ORANGE, shape: "x" },
};

export function drawStops() {
  const ends = view.shown.filter((trial) => ["finished", "stopped", "diverged"].includes(trial.state)).map((trial) => trial.images);
  const holder = document.querySelector("#stops .holder");
  if (!sweep.hasStops || !ends.length) return remove("stops");
  const ages = [...new Set([0, ...ends])].sort((one, other) => one - other);
  const spent = ends.reduce((sum, images) => sum + images, 0), share = spent / (sweep.total * ends.length);
  draw("stops", holder, [
    {
      type: "scatter", mode: "lines", x: ages, y: ages.map((age) => ends.filter((images) => images > age).length), fill: "tozeroy",
      fillcolor: FILL, line: { shape: "hv", color: BLUE, width: 2 }, hovertemplate: "after %{x:,} images %{y} trials continue<extra></extra>",
    },
    { type: "scatter", mode: "lines", x: [0, sweep.total, sweep.total], y: [ends.length, ends.length, 0], hoverinfo: "skip", line: { color: GREY, width: 1.5, dash: "dash" } },
  ], {
    xaxis: { title: { text: "images seen" }, tickformat: ",", rangemode: "tozero" },
    yaxis: { title: { text: "trials that train" }, range: [0, 1.06 * ends.length], dtick: ends.length < 8 ? 1 : undefined },
    annotations: [
      { x: 0, y: 0, text: `spent: <b>${Math.round(100 * share)}%</b>`, showarrow: false, xanchor: "left", yanchor: "bottom", xshift: 10, yshift: 6 },
      ...(share < 0.97 ? [{ x: sweep.total, y: ends.length, text: `not spent: <b>${Math.round(100 * (1 - share))}%</b>`, showarrow: false, xanchor: "right", yanchor: "top", xshift: -10, yshift: -8 }] : []),
    ],
  }, { height: 320, brush: false, label: `${ends.length} trials that ended: ${Math.round(100 * share)} % of the images of full trainings were spent.` });
}

export function drawCosts() {
  const section = document.querySelector("#costs");
  const timed = view.groups.some((group) => group.trials.some((trial) => trial.seconds));
  const isMoney = timed && choices.price !== null;
  const spent = (trial) => (isMoney ? costOf(trial) : timed ? trial.seconds / 3600 : trial.images);
  const points = view.groups.filter((group) => group.found.n)
    .map((group) => ({ ...group, spent: group.trials.reduce((sum, trial) => sum + spent(trial), 0) }));
  const all = view.shown.reduce((sum, trial) => ({ images: sum.images + trial.images, seconds: sum.seconds + trial.seconds }), { images: 0, seconds: 0 });
  section.querySelector(".spent").textContent = `${view.shown.length} trials: ${number(all.images)} images`
    + (all.seconds ? `, ${duration(all.seconds)} of workers` : "") + (isMoney ? `, ${money(all.seconds / 3600 * choices.price)} in all` : "") + ".";
  if (!points.length) return remove("costs");
  draw("costs", section.querySelector(".holder"), [{
    type: "scatter", mode: "markers", x: points.map((point) => point.spent), y: points.map((point) => point.found.mean),
    marker: { size: points.length <= 50 ? 10 : 6, opacity: 0.8, color: points.map((point) => shade(point.place)) },
    customdata: points.map((point) => [point.numbers, point.name, isMoney ? money(point.spent) : timed ? duration(3600 * point.spent) : `${number(point.spent)} images`]),
    hovertemplate: "%{customdata[1]}: %{y:.4~g} for %{customdata[2]}<extra></extra>",
  }], {
    xaxis: { title: { text: isMoney ? "cost" : timed ? "hours of workers" : "images seen" }, rangemode: "tozero", nticks: 6 },
    yaxis: { title: { text: view.label } },
  }, { height: 300, label: `${view.label} by cost: ${points.length} points.` });
}

export const money = (value) => value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

export function drawTimeline() {
  const section = document.querySelector("#timeline");
  const inside = new Set(view.shown.map((trial) => trial.number));
  const bars = sweep.timeline.filter((bar) => inside.has(bar.trial));
  section.hidden = !sweep.timeline.length;
  if (!bars.length) return remove("timeline");
  const lanes = [...new Set(bars.map((bar) => bar.lane))].sort((one, other) => one.localeCompare(other, "en", { numeric: true })).reverse();
  const places = new Map(view.groups.flatMap((group) => group.numbers.map((each) => [each, group])));
  const traces = Object.entries(OUTCOMES).map(([outcome, { color, shape }]) => {
    const found = bars.filter((bar) => bar.outcome === outcome);
    return found.length && {
      type: "bar", orientation: "h", name: outcome, y: found.map((bar) => bar.lane), base: found.map((bar) => 1000 * bar.start),
      x: found.map((bar) => Math.max(1, 1000 * (bar.end - bar.start))), width: 0.72,
      marker: { color, opacity: found.map((bar) => (bar.is_estimated ? 0.55 : 0.9)), line: { width: 1, color: "rgba(255,255,255,0.5)" }, pattern: shape ? { shape, fgcolor: "#fff", size: 6 } : undefined },
      text: bars.length <= 60 ? found.map((bar) => String(bar.trial)) : undefined, textposition: "inside", insidetextanchor: "middle", textangle: 0,
      textfont: { color: "#fff" },
      customdata: found.map((bar) => [[bar.trial], bar.outcome + (bar.is_estimated ? " (estimated)" : ""), duration(bar.end - bar.start), number(places.get(bar.trial)?.found.mean)]),
      hovertemplate: "trial %{customdata[0][0]}, %{customdata[1]} after %{customdata[2]}; score %{customdata[3]}<extra></extra>",
    };
  }).filter(Boolean);
  draw("timeline", section.querySelector(".holder"), [...traces, ...again(bars)], {
    barmode: "overlay", showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    xaxis: { type: "date" }, yaxis: { type: "category", categoryorder: "array", categoryarray: lanes, showgrid: false, ticklabelstandoff: 6 },
  }, {
    height: 110 + Math.min(900, Math.max(120, 26 * lanes.length)),
    label: `Timeline of ${bars.length} sessions on ${lanes.length} lanes: ${traces.map((trace) => `${trace.y.length} ${trace.name}`).join(", ")}.`,
  });
}

// Where trials began again: after a loss, or from another trial's checkpoint.
function again(bars) {
  const before = new Map();
  const found = { resumed: [], exploit: [], restart: [] };
  for (const bar of bars) {
    const last = before.get(bar.trial);
    if (last) found[last.outcome === "exploited" ? "exploit" : "resumed"].push({ ...bar, why: `after it was ${last.outcome}` });
    before.set(bar.trial, bar);
  }
  // Of its workers within a session.
  for (const [trial, start, why] of sweep.restarts) {
    const bar = bars.find((each) => each.trial === trial && each.start <= start && start <= each.end);
    if (bar) found.restart.push({ ...bar, start, why });
  }
  const symbols = { resumed: ["triangle-right", ORANGE], exploit: ["diamond", TEAL], restart: ["triangle-up", ORANGE] };
  return Object.entries(found).filter(([, each]) => each.length).map(([name, each]) => ({
    type: "scatter", mode: "markers", name, x: each.map((bar) => 1000 * bar.start), y: each.map((bar) => bar.lane),
    marker: { symbol: symbols[name][0], size: 11, color: symbols[name][1], line: { width: 1.5, color: "#fff" } },
    customdata: each.map((bar) => [[bar.trial], bar.why]), hovertemplate: `trial %{customdata[0][0]}: ${name}, %{customdata[1]}<extra></extra>`,
  }));
}
