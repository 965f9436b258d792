// The ranking: a row a trial, or a row a group with its trials inside; sorted, selected and saved as a file.

import { interval } from "page/groups";
import { choices, choose, costOf, sweep, textOf, toggle, valueOf, view } from "page/store";
import { download, duration, element, find, money, number, sum } from "page/text";

const open = new Set(); // keys of the groups that show their trials

// Key, heading, value to sort by and to save, and in the table text: what tuning/analysis/rows.py has.
// Fields in which the trials do not differ are in the files alone.
function columns() {
  const total = (read) => (row) => sum(row.trials, read);
  const mean = (metric) => [metric.name, metric.label, (row) => interval(row.trials.map((trial) => valueOf(trial, metric, view.at))).mean, (value) => number(value)];
  const isGrouped = view.collapsed.length > 0, axes = new Map(view.axes.map((axis) => [axis.field, axis]));
  return [
    ["rank", "rank", (row) => row.rank],
    ...(isGrouped ? [["trials", "trials", (row) => row.numbers.join(" ")], ["n", "n", (row) => row.found.n]] : [["trial", "trial", (row) => row.numbers[0]]]),
    ["state", "state", (row) => row.state],
    ["images", "images", total((trial) => trial.images)],
    mean(view.metric),
    ...(isGrouped ? [["margin", "± 95 %", (row) => (Number.isFinite(row.found.margin) ? row.found.margin : null), (value) => number(value, 3)]] : []),
    ...sweep.fields.map((field, place) => [field, place]).filter(([field]) => !view.collapsed.includes(field)).map(([field, place]) => [
      field, axes.get(field)?.label, (row) => row.trials[0].plain[place], (_, row) => textOf(row.trials[0], axes.get(field)),
    ]),
    ["seconds", "time", total((trial) => trial.seconds), duration],
    ...(choices.price === null ? [] : [["cost", "cost", total(costOf), money]]),
    ...sweep.metrics.filter((metric) => metric.name !== view.metric.name).map(mean),
    ["reason", "reason", (row) => row.trials.find((trial) => trial.reason)?.reason ?? null],
  ].map(([key, label, value, text]) => ({ key, label, value, text, isNumber: view.rows.some((row) => typeof value(row) === "number") }));
}

export function drawRanking() {
  const section = find("#ranking"), all = columns().filter((column) => column.label !== undefined);
  section.hidden = !sweep.trials.length;
  const inside = (row) => (row.trials.length > 1 && open.has(row.key) ? row.trials.map((trial) => alone(row, trial)) : []);
  const rows = sorted(all).flatMap((row) => [row, ...inside(row)]).map((row) => line(row, all));
  // A button that has the focus has it again when its row is a new element.
  const label = section.contains(document.activeElement) && labelOf(document.activeElement);
  section.querySelector("thead").replaceChildren(element("tr", {}, ...all.map(heading)));
  section.querySelector("tbody").replaceChildren(...rows);
  if (label && !section.contains(document.activeElement)) {
    [...section.querySelectorAll("button")].find((button) => labelOf(button) === label)?.focus({ preventScroll: true });
  }
}

const labelOf = (button) => button.getAttribute("aria-label") ?? button.textContent;

// A trial as a row inside its group's.
const alone = (row, trial) => ({ ...row, rank: "", isInside: true, trials: [trial], numbers: [trial.number], state: trial.state, found: { n: "", margin: NaN } });

function heading({ key, label, isNumber }) {
  const order = { [`${key}:up`]: "ascending", [`${key}:down`]: "descending" }[choices.sort];
  const sort = () => choose({ sort: `${key}:${order === "ascending" ? "down" : "up"}` });
  return element("th", { class: isNumber ? "number" : null, scope: "col", "aria-sort": order }, element("button", { type: "button", onclick: sort }, label));
}

function line(row, all) {
  const chosen = row.numbers.every((each) => view.picked.has(each));
  const cells = all.map(({ key, value, text, isNumber }) => {
    const found = value(row);
    const content = key === "trial" || key === "trials" ? names(row, chosen)
      : key === "state" ? element("span", { class: `state ${found}` }, found)
      : found === null ? "–" : text ? text(found, row) : typeof found === "number" ? number(found) : found;
    return element("td", { class: isNumber ? "number" : key === "reason" ? "why" : null }, content);
  });
  return element("tr", {
    class: [chosen && "chosen", row.isInside && "inside"].filter(Boolean).join(" ") || null, "data-trial": row.numbers.join(" "),
    onclick: (event) => { if (!event.target.closest("button")) toggle(row.numbers); },
  }, ...cells);
}

// Buttons: one that selects, and of a group one that shows its trials.
function names(row, chosen) {
  const button = (name, act, attributes, text) => element("button", { type: "button", "aria-label": name, onclick: act, ...attributes }, text);
  const select = button(`Select trial ${row.numbers.join(", ")}`, () => toggle(row.numbers), { "aria-pressed": String(chosen) }, row.numbers.join(" "));
  if (row.trials.length < 2) return select;
  const isOpen = open.has(row.key), expand = () => { if (!open.delete(row.key)) open.add(row.key); drawRanking(); };
  return element("span", {}, button(`Trials of ${row.name}`, expand, { class: "expand", "aria-expanded": String(isOpen) }, isOpen ? "▾" : "▸"), " ", select);
}

// By a column: numbers before texts, and what is not known last, whichever way.
function sorted(all) {
  const [key, way] = (choices.sort ?? "").split(":");
  const column = all.find((each) => each.key === key);
  if (!column) return view.rows;
  const turn = way === "down" ? -1 : 1, isNone = (value) => value === null || value === undefined;
  return view.rows.toSorted((first, second) => {
    const [one, other] = [column.value(first), column.value(second)];
    if (isNone(one) || isNone(other)) return isNone(one) - isNone(other);
    return turn * (typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other), "en", { numeric: true }));
  });
}

// The rows that the ranking has, as `python -m tuning results --csv` and `--json` write them.
export function save(kind) {
  const all = columns(), rows = sorted(all).map((row) => all.map((column) => column.value(row) ?? null));
  const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = [all.map((column) => column.key), ...rows].map((cells) => cells.map((cell) => quoted(String(cell ?? ""))).join(","));
  const objects = rows.map((cells) => Object.fromEntries(cells.map((cell, place) => [all[place].key, cell])));
  download(`${sweep.name}.${kind}`, kind === "csv" ? "text/csv" : "application/json", kind === "csv" ? `${lines.join("\n")}\n` : JSON.stringify(objects, null, 1));
}
