// When the trials trained, on which host: one bar a session, and where trials began again.

import { BLUE, GREY, ORANGE, TEAL, draw, remove } from "page/plot";
import { sweep, view } from "page/store";
import { duration, find, number } from "page/text";

const TEXTS = 60; // more bars have no number inside
// Colour and hatching of a session's outcome; symbol and colour of a beginning.
const OUTCOMES = {
  finished: [BLUE], running: [TEAL], stopped: [GREY], interrupted: [GREY, "/"],
  exploited: [TEAL, "x"], diverged: [ORANGE], failed: [ORANGE, "/"], lost: [ORANGE, "x"],
};
const BEGINNINGS = { resumed: ["triangle-right", ORANGE], exploit: ["diamond", TEAL], restart: ["triangle-up", ORANGE] };
const WHITE = "rgba(255,255,255,0.6)";

export function drawTimeline() {
  const shown = new Map(view.shown.map((trial) => [trial.number, trial]));
  const bars = sweep.timeline.filter((bar) => shown.has(bar.trial));
  if (!bars.length) return remove("timeline");
  const lanes = [...new Set(bars.map((bar) => bar.lane))].sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
  const traces = Object.entries(Object.groupBy(bars, (bar) => bar.outcome)).map(([outcome, found]) => {
    const [color, shape] = OUTCOMES[outcome];
    return {
      type: "bar", orientation: "h", name: outcome, y: found.map((bar) => bar.lane), base: found.map((bar) => 1000 * bar.start),
      x: found.map((bar) => Math.max(1, 1000 * (bar.end - bar.start))), width: 0.72,
      marker: { color, opacity: found.map((bar) => (bar.is_estimated ? 0.55 : 0.9)), line: { width: 1, color: WHITE }, pattern: shape && { shape, bgcolor: color, fgcolor: "#fff", fgopacity: 0.45, size: 6 } },
      text: bars.length <= TEXTS ? found.map((bar) => String(bar.trial)) : undefined, textposition: "inside", insidetextanchor: "middle", textangle: 0,
      textfont: { color: "#fff" },
      customdata: found.map((bar) => [[bar.trial], bar.outcome + (bar.is_estimated ? " (estimated)" : ""), duration(bar.end - bar.start), number(view.value(shown.get(bar.trial)))]),
      hovertemplate: `trial %{customdata[0][0]}, %{customdata[1]} after %{customdata[2]}; ${view.label} %{customdata[3]}<extra></extra>`,
    };
  });
  const again = Object.entries(Object.groupBy(beginnings(bars), (each) => each.kind)).map(([kind, found]) => ({
    type: "scatter", mode: "markers", name: kind, x: found.map((bar) => 1000 * bar.start), y: found.map((bar) => bar.lane),
    marker: { symbol: BEGINNINGS[kind][0], size: 11, color: BEGINNINGS[kind][1], line: { width: 1.5, color: "#fff" } },
    customdata: found.map((bar) => [[bar.trial], bar.why]), hovertemplate: `trial %{customdata[0][0]}: ${kind}, %{customdata[1]}<extra></extra>`,
  }));
  const width = find("main").clientWidth, legendRows = Math.ceil((traces.length + again.length) * 130 / width);
  draw("timeline", [...traces, ...again], {
    barmode: "overlay", showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    xaxis: { type: "date", title: { text: "UTC" }, nticks: Math.ceil(width / 100), tickangle: 0 }, yaxis: { type: "category", categoryorder: "array", categoryarray: lanes.toReversed(), showgrid: false, ticklabelstandoff: 6 },
  }, {
    height: 110 + 20 * legendRows + Math.min(900, Math.max(120, 26 * lanes.length)),
    label: `Timeline of ${bars.length} sessions on ${lanes.length} lanes: ${traces.map((trace) => `${trace.y.length} ${trace.name}`).join(", ")}.`,
  });
}

// Where trials began again: after a loss, from another trial's checkpoint, or with new workers within a session.
function beginnings(bars) {
  const again = Object.values(Object.groupBy(bars, (bar) => bar.trial)).flatMap((found) => found.slice(1).map((bar, i) => (
    { ...bar, kind: found[i].outcome === "exploited" ? "exploit" : "resumed", why: `after it was ${found[i].outcome}` })));
  const within = sweep.restarts.flatMap(([trial, start, why]) => bars
    .filter((bar) => bar.trial === trial && bar.start <= start && start <= bar.end).slice(0, 1).map((bar) => ({ ...bar, start, why, kind: "restart" })));
  return [...again, ...within];
}
