"use strict";
const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = (page) => page.templates[dark.matches ? "dark" : "light"];
const chart = (id) => document.getElementById("chart-" + id);
// State of the reader's controls, kept across refreshes.
const reader = { search: "", column: null, up: true, trial: null, scrolled: 0 };
let page;

function draw() {
  page = JSON.parse(document.getElementById("data").textContent);
  for (const [id, figure] of Object.entries(page.figures)) {
    const layout = { ...figure.layout, template: theme(page) };
    Plotly.newPlot(chart(id), figure.data, layout, { responsive: true, displaylogo: false, displayModeBar: false })
      .then((drawn) => { drawn.dataset.drawn = ""; });
  }
  const table = document.querySelector("table.ranking");
  if (table) rank(table);
}

// The ranking: sorting, searching, and the curve of the chosen trial.
function rank(table) {
  const headings = [...table.tHead.rows[0].cells];
  const rows = [...table.tBodies[0].rows];
  const text = (row) => headings.map((heading, i) => heading.textContent.trim() + " " + row.cells[i].textContent).join(" ").toLowerCase();
  const texts = new Map(rows.map((row) => [row, text(row)]));
  const search = document.getElementById("search");
  const box = table.parentElement;

  function show() {
    headings.forEach((heading, i) => {
      if (i === reader.column) heading.setAttribute("aria-sort", reader.up ? "ascending" : "descending");
      else heading.removeAttribute("aria-sort");
    });
    if (reader.column !== null) {
      const key = (row) => row.cells[reader.column].dataset.v ?? row.cells[reader.column].textContent;
      const keys = new Map(rows.map((row) => [row, key(row)]));
      table.tBodies[0].append(...rows.sort((a, b) => (reader.up ? 1 : -1) * compare(keys.get(a), keys.get(b))));
    }
    for (const row of rows) {
      row.hidden = !texts.get(row).includes(reader.search.toLowerCase().trim());
      row.classList.toggle("chosen", Number(row.dataset.trial) === reader.trial);
    }
  }

  headings.forEach((heading, i) => heading.addEventListener("click", () => {
    reader.up = reader.column === i ? !reader.up : true;
    reader.column = i;
    show();
  }));
  search.value = reader.search;
  search.addEventListener("input", () => { reader.search = search.value; show(); });
  box.scrollTop = reader.scrolled;
  box.addEventListener("scroll", () => { reader.scrolled = box.scrollTop; });
  table.tBodies[0].addEventListener("click", (event) => {
    const trial = Number(event.target.closest("tr").dataset.trial);
    reader.trial = trial === reader.trial ? null : trial;
    show();
    showCurve();
  });
  show();
  if (reader.trial !== null) showCurve();
}

function compare(a, b) {
  const [x, y] = [Number(a), Number(b)];
  if (!isNaN(x) && !isNaN(y)) return x - y;
  return isNaN(x) === isNaN(y) ? a.localeCompare(b) : isNaN(x) ? 1 : -1;
}

// The last trace of the learning curves is the chosen trial's.
function showCurve() {
  const curves = chart("curves");
  if (!curves) return;
  const [x, y, last] = [[], [], curves.data.length - 1];
  for (const trace of curves.data.slice(0, last)) {
    if (trace.mode !== "lines+markers") continue;
    trace.customdata.forEach((trial, i) => {
      if (trial === reader.trial) { x.push(trace.x[i]); y.push(trace.y[i]); }
    });
  }
  Plotly.restyle(curves, { x: [x], y: [y] }, [last]);
}

// While the sweep runs: poll the server's version and replace this page by a newer one.
async function refresh() {
  const version = await fetch("version").then((answer) => answer.text());
  if (version === page.version) return;
  const text = await fetch("./").then((answer) => answer.text());
  const newer = new DOMParser().parseFromString(text, "text/html");
  for (const id of Object.keys(page.figures)) Plotly.purge(chart(id));
  for (const part of ["header", "main", "#data"]) document.querySelector(part).replaceWith(newer.querySelector(part));
  draw();
}

draw();
dark.addEventListener("change", () => {
  for (const id of Object.keys(page.figures)) Plotly.relayout(chart(id), { template: theme(page) });
});
if (page.version) {
  const again = () => setTimeout(() => refresh().catch(() => {}).then(again), 2000);
  again();
}
