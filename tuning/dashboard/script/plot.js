// Charts: plotly in the page's colours, with a label for screen readers and a box that selects trials.

import { choices, choose, toggle } from "page/store";
import { element, find } from "page/text";

const CONFIG = { responsive: true, displaylogo: false, displayModeBar: false };
const dark = matchMedia("(prefers-color-scheme: dark)");
// With a finger a drag scrolls the page; a tap selects.
const coarse = matchMedia("(pointer: coarse)");
const SCALE = [[0, [28, 126, 214]], [0.5, [134, 142, 150]], [1, [232, 110, 32]]];
export const GREY = "rgb(134,142,150)", FAINT = "rgba(134,142,150,0.25)";
export const ORANGE = "rgb(232,110,32)", BLUE = "rgb(28,126,214)", TEAL = "rgb(18,150,120)", VIOLET = "rgb(132,94,247)";

// The colour of a rank, from 0 for the best to 1.
export function shade(place, opacity = 1) {
  const half = place <= 0.5 ? 0 : 1;
  const [[left, one], [right, other]] = [SCALE[half], SCALE[half + 1]];
  const mixed = one.map((part, i) => Math.round(part + ((other[i] - part) * (place - left)) / (right - left)));
  return `rgba(${mixed.join(",")},${opacity})`;
}

export const colorscale = SCALE.map(([place]) => [place, shade(place)]);

// Text and grid in the colours of the style sheet.
function template() {
  const styles = getComputedStyle(document.body), grid = FAINT;
  const font = { family: styles.fontFamily, size: 13, color: styles.color };
  const axis = { gridcolor: grid, zerolinecolor: grid, linecolor: grid, automargin: true, title: { standoff: 8, font: { size: 13 } } };
  const clear = "rgba(0,0,0,0)", hoverlabel = { font, bgcolor: getComputedStyle(find(".card")).backgroundColor, bordercolor: grid };
  return { layout: { font, paper_bgcolor: clear, plot_bgcolor: clear, colorway: [styles.color], xaxis: axis, yaxis: axis, hoverlabel } };
}

// Points of groups, with their names and other texts beside the pointer: "%{customdata[2]}" is the first of these.
export const points = (groups, texts, shown, more) => ({
  type: "scatter", mode: "markers", customdata: groups.map((group) => [group.numbers, group.name, ...texts(group)]),
  hovertemplate: `%{customdata[1]}: ${shown}<extra></extra>`, ...more,
});

// Draw the chart of a section, or change what it shows. `config`: plotly's; `brush`: a dragged box selects the trials of the points inside.
export function draw(id, traces, layout, { label, height, brush = true, config = {} }) {
  const chart = document.getElementById(`chart-${id}`)
    ?? find(`#${id} .holder`).appendChild(element("div", { id: `chart-${id}`, class: "chart", role: "img" }));
  chart.setAttribute("aria-label", label);
  chart.style.height = `${height}px`;
  const common = {
    autosize: true, showlegend: false, margin: { l: 8, r: 12, t: 12, b: 8 }, height,
    dragmode: brush && !coarse.matches ? "select" : false, selections: [], selectdirection: "any", hovermode: "closest",
  };
  Plotly.react(chart, traces.filter(Boolean), { ...common, ...layout, template: template() }, { ...CONFIG, ...config });
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

// Remove the chart of a section, which is hidden without one.
export function remove(id) {
  const chart = document.getElementById(`chart-${id}`);
  if (chart) Plotly.purge(chart);
  chart?.remove();
}

// Each point's customdata begins with the numbers of its trials.
const trialsOf = (points) => [...new Set(points.flatMap((point) => point.customdata?.[0] ?? []))];

dark.addEventListener("change", () => {
  for (const chart of document.querySelectorAll("[data-drawn]")) Plotly.relayout(chart, { template: template() });
});
