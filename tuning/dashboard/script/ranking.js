// The ranking: a row a trial, or a row a group with its trials inside; sorted, selected and saved as a file.

import { interval } from "page/groups";
import { money } from "page/cost";
import { choices, choose, costOf, sweep, toggle, valueOf, view } from "page/store";
import { download, duration, element, number } from "page/text";

const open = new Set(); // keys of the groups that show their trials

const mean = (row, metric) => interval(row.trials.map((trial) => valueOf(trial, metric, view.at))).mean;
const sum = (row, read) => row.trials.reduce((all, trial) => all + read(trial), 0);

// The columns of the page: key, heading, value to sort by and to save, text, whether it is a number.
function columns() {
  const isGrouped = view.collapsed.length > 0;
  const others = sweep.metrics.filter((metric) => metric.name !== view.metric.name);
  const metricColumn = (metric) => ({
    key: metric.name, label: metric.label, isNumber: true, value: (row) => mean(row, metric),
    text: (value) => number(value),
  });
  return [
    { key: "rank", label: "rank", isNumber: true, value: (row) => row.rank },
    ...(isGrouped
      ? [{ key: "trials", label: "trials", value: (row) => row.numbers.join(" ") }, { key: "n", label: "n", isNumber: true, value: (row) => row.found.n }]
      : [{ key: "trial", label: "trial", isNumber: true, value: (row) => row.numbers[0] }]),
    { key: "state", label: "state", value: (row) => row.state },
    { key: "images", label: "images", isNumber: true, value: (row) => sum(row, (trial) => trial.images) },
    metricColumn(view.metric),
    ...(isGrouped ? [{
      key: "margin", label: "± 95 %", isNumber: true, value: (row) => (Number.isFinite(row.found.margin) ? row.found.margin : null), text: (value) => number(value, 3),
    }] : []),
    ...view.axes.map((axis) => ({
      key: axis.field, label: axis.label, isNumber: axis.scale !== "choice", value: (row) => row.trials[0].plain[axis.place], text: (_, row) => row.trials[0].texts[axis.place],
    })),
    { key: "seconds", label: "time", isNumber: true, value: (row) => sum(row, (trial) => trial.seconds), text: (value) => duration(value) },
    ...(choices.price === null ? [] : [{ key: "cost", label: "cost", isNumber: true, value: (row) => sum(row, costOf), text: money }]),
    ...others.map(metricColumn),
    { key: "reason", label: "reason", value: (row) => row.trials.find((trial) => trial.reason)?.reason ?? null },
  ];
}

export function drawRanking() {
  const section = document.querySelector("#ranking");
  section.hidden = !sweep.trials.length;
  const all = columns();
  keepFocus(section, () => section.querySelector("thead").replaceChildren(element("tr", {}, ...all.map(heading))));
  const body = document.createDocumentFragment();
  for (const row of sorted(all)) {
    body.append(line(row, all));
    if (row.trials.length > 1 && open.has(row.key)) body.append(...row.trials.map((trial) => line(alone(row, trial), all, true)));
  }
  keepFocus(section, () => section.querySelector("tbody").replaceChildren(body));
}

// The button that has the focus has it again when its row is a new element.
function keepFocus(section, replace) {
  const label = section.contains(document.activeElement) && document.activeElement.matches("button") && labelOf(document.activeElement);
  replace();
  if (label && !section.contains(document.activeElement)) {
    [...section.querySelectorAll("button")].find((button) => labelOf(button) === label)?.focus({ preventScroll: true });
  }
}

const labelOf = (button) => button.getAttribute("aria-label") ?? button.textContent;

const alone = (row, trial) => ({
  ...row, key: `${row.key} ${trial.number}`, trials: [trial], numbers: [trial.number], state: trial.state, found: interval([view.value(trial)]),
});

function heading(column) {
  const [key, way] = (choices.sort ?? "").split(":");
  const order = key === column.key ? (way === "down" ? "descending" : "ascending") : null;
  const sort = () => choose({ sort: order === "ascending" ? `${column.key}:down` : `${column.key}:up` });
  return element("th", { class: column.isNumber ? "number" : null, scope: "col", "aria-sort": order }, element("button", { type: "button", onclick: sort }, column.label));
}

function line(row, all, isInside = false) {
  const chosen = row.numbers.every((each) => view.picked.has(each));
  const cells = all.map((column) => {
    const value = column.value(row);
    const content = column.key === "trial" || column.key === "trials" ? names(row, isInside, chosen)
      : column.key === "state" ? element("span", { class: `state ${value}` }, value)
      : isInside && ["rank", "n"].includes(column.key) ? ""
      : column.text ? column.text(value, row) : typeof value === "number" ? number(value) : value ?? "";
    return element("td", { class: column.isNumber ? "number" : column.key === "reason" ? "why" : null }, content);
  });
  const isButton = (target) => target.closest("button");
  return element("tr", {
    class: [chosen && "chosen", isInside && "inside"].filter(Boolean).join(" ") || null, "data-trial": row.numbers.join(" "),
    onclick: (event) => { if (!isButton(event.target)) toggle(row.numbers); },
  }, ...cells);
}

// Buttons: one that selects, and of a group one that shows its trials.
function names(row, isInside, chosen) {
  const select = element("button", {
    type: "button", "aria-pressed": String(chosen), "aria-label": `Select trial ${row.numbers.join(", ")}`, onclick: () => toggle(row.numbers),
  }, row.numbers.join(" "));
  if (row.trials.length < 2) return select;
  const isOpen = open.has(row.key);
  const expand = element("button", {
    type: "button", class: "expand", "aria-expanded": String(isOpen), "aria-label": `Trials of ${row.name}`,
    onclick: () => { if (isOpen) open.delete(row.key); else open.add(row.key); drawRanking(); },
  }, isOpen ? "▾" : "▸");
  return element("span", {}, expand, " ", select);
}

function sorted(all) {
  const [key, way] = (choices.sort ?? "").split(":");
  const column = all.find((each) => each.key === key);
  if (!column) return view.rows;
  const turn = way === "down" ? -1 : 1;
  return [...view.rows].sort((one, other) => compare(column.value(one), column.value(other), turn));
}

// Numbers before texts; what is not known is last, whichever way.
function compare(one, other, turn) {
  const isNone = (value) => value === null || value === undefined;
  if (isNone(one) || isNone(other)) return isNone(one) - isNone(other);
  if (typeof one === "number" && typeof other === "number") return turn * (one - other);
  return turn * String(one).localeCompare(String(other), "en", { numeric: true });
}

// The rows that the ranking has, as `python -m tuning results --csv` writes them.
export function saveCsv() {
  const all = columns();
  const quoted = (value) => (/[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const lines = [all.map((column) => column.key), ...sorted(all).map((row) => all.map((column) => column.value(row) ?? ""))];
  download(`${sweep.name}.csv`, "text/csv", lines.map((cells) => `${cells.map((cell) => quoted(String(cell))).join(",")}\n`).join(""));
}

export function saveJson() {
  const all = columns();
  const rows = sorted(all).map((row) => Object.fromEntries(all.map((column) => [column.key, column.value(row) ?? null])));
  download(`${sweep.name}.json`, "application/json", JSON.stringify(rows, null, 1));
}
