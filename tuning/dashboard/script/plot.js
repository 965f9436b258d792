// Charts: plotly with the page's theme, a label for screen readers, and a box that selects trials.

import { choose, page, toggle, choices } from "page/store";
import { element } from "page/text";

const CONFIG = { responsive: true, displaylogo: false, displayModeBar: false };
const dark = matchMedia("(prefers-color-scheme: dark)");
// With a finger a drag scrolls the page; a tap selects.
const coarse = matchMedia("(pointer: coarse)");
const SCALE = [[0, [28, 126, 214]], [0.5, [134, 142, 150]], [1, [232, 110, 32]]];
export const GREY = "rgb(134,142,150)", FAINT = "rgba(134,142,150,0.25)";
export const ORANGE = "rgb(232,110,32)", BLUE = "rgb(28,126,214)", TEAL = "rgb(18,150,120)";

// The colour of a rank, from 0 for the best to 1.
export function shade(place, opacity = 1) {
  const half = place <= 0.5 ? 0 : 1;
  const [[left, one], [right, other]] = [SCALE[half], SCALE[half + 1]];
  const mixed = one.map((part, i) => Math.round(part + ((other[i] - part) * (place - left)) / (right - left)));
  return `rgba(${mixed.join(",")},${opacity})`;
}

export const colorscale = SCALE.map(([place]) => [place, shade(place)]);

const theme = () => page.templates[dark.matches ? "dark" : "light"];

// Draw a chart in an element, or change what it shows. `brush`: a dragged box selects the trials of the points inside.
export function draw(id, holder, traces, layout, { label, height, brush = true }) {
  const chart = document.getElementById(`chart-${id}`)
    ?? holder.appendChild(element("div", { id: `chart-${id}`, class: "chart", role: "img" }));
  if (chart.parentElement !== holder) holder.append(chart);
  chart.setAttribute("aria-label", label);
  chart.style.height = `${height}px`;
  const common = {
    autosize: true, showlegend: false, margin: { l: 8, r: 12, t: 12, b: 8 }, height,
    dragmode: brush && !coarse.matches ? "select" : false, selections: [], selectdirection: "any", hovermode: "closest",
  };
  Plotly.react(chart, traces, { ...common, ...layout, template: theme() }, CONFIG);
  if ("drawn" in chart.dataset) return chart;
  chart.dataset.drawn = "";
  chart.on("plotly_click", (event) => {
    const found = trialsOf(event.points.slice(0, 1));
    if (found.length) toggle(found);
  });
  chart.on("plotly_selected", (event) => {
    const found = event ? trialsOf(event.points) : [];
    if (found.length) choose({ brush: found });
  });
  chart.on("plotly_deselect", () => { if (choices.brush) choose({ brush: null }); });
  return chart;
}

export function remove(id) {
  const chart = document.getElementById(`chart-${id}`);
  if (!chart) return;
  Plotly.purge(chart);
  chart.remove();
}

// Each point's customdata begins with the numbers of its trials.
function trialsOf(points) {
  return [...new Set(points.flatMap((point) => point.customdata?.[0] ?? []))];
}

dark.addEventListener("change", () => {
  for (const chart of document.querySelectorAll("[data-drawn]")) Plotly.relayout(chart, { template: theme() });
});
