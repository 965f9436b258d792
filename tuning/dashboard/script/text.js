// Numbers as texts, and elements from texts. No string of the records becomes HTML.

const grouped = new Intl.NumberFormat("en-US");

export function number(value, digits = 4) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (Number.isInteger(value)) return grouped.format(value);
  const size = Math.abs(value);
  return size >= 0.001 && size < 1e6 ? String(Number(value.toPrecision(digits))) : value.toExponential(Math.max(0, digits - 2));
}

// The value of a field: long numbers in three digits.
export const value = (found) => (typeof found === "number" && !Number.isInteger(found) ? String(Number(found.toPrecision(3))) : String(found));

export function duration(seconds) {
  if (!seconds) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export const ends = (values) => [Math.min(...values), Math.max(...values)];
export const sum = (found, read) => found.reduce((total, each) => total + read(each), 0);

export const money = (value) => value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

// The first element of the page that a selector matches.
export const find = (selector) => document.querySelector(selector);

// element("td", { class: "number" }, "3", other)
export function element(tag, attributes = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") made.toggleAttribute(name, value);
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...inside.filter((each) => each !== null && each !== undefined));
  return made;
}

// The options of a select; the value that is chosen stays.
export function options(select, pairs, value) {
  const wanted = JSON.stringify(pairs);
  if (select.dataset.options !== wanted) {
    select.replaceChildren(...pairs.map(([name, label]) => element("option", { value: name }, label)));
    select.dataset.options = wanted;
  }
  select.value = value ?? "";
}

export function download(name, type, content) {
  const link = element("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
