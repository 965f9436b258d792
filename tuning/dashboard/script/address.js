// The reader's choices as the part of the address behind #, which can be bookmarked and sent.

export const DEFAULTS = {
  search: "", // words that a trial's row contains
  brush: null, // numbers of the trials inside a box that was dragged in a chart; null: all
  trials: [], // numbers of the trials that were clicked
  ranges: {}, // field -> ranges on its axis of the parallel coordinates
  collapse: null, // fields in which the trials of a group differ; null: the sweep's default
  metric: "score", at: "last", // the measure: which metric, which of its evaluations
  curve: null, // what the learning curves show; null: the metric
  x: null, y: null, // fields of the rank plot; null: the two that matter most
  a: null, b: null, images: null, // the pictures side by side, and how far training was
  sort: null, // a column of the ranking; null: by rank
  price: null, // of a worker for an hour
  target: null, // score of the comparison of several sweeps
};

export function read(hash) {
  const parts = new URLSearchParams(hash.replace(/^#/, ""));
  const choices = structuredClone(DEFAULTS);
  for (const [name, text] of parts) {
    if (!(name in DEFAULTS)) continue;
    if (name === "trials") choices[name] = numbers(text);
    else if (name === "brush") choices[name] = numbers(text).length ? numbers(text) : null;
    else if (name === "collapse") choices[name] = text ? text.split(",") : [];
    else if (name === "ranges") choices[name] = ranges(text);
    else if (["a", "b", "images", "price", "target"].includes(name)) choices[name] = finite(text);
    else choices[name] = text;
  }
  return choices;
}

export function write(choices) {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(choices)) {
    if (JSON.stringify(value) === JSON.stringify(DEFAULTS[name])) continue;
    if (name === "brush" || name === "trials") parts.set(name, runs(value));
    else if (name === "collapse") parts.set(name, value.join(","));
    else if (name === "ranges") parts.set(name, JSON.stringify(value));
    else parts.set(name, value);
  }
  return parts.toString();
}

// 1, 2, 3, 7 as "1-3,7", and back.
function runs(found) {
  const sorted = [...found].sort((one, other) => one - other);
  const texts = [];
  for (let first = 0; first < sorted.length; ) {
    let last = first;
    while (sorted[last + 1] === sorted[last] + 1) last += 1;
    texts.push(last > first ? `${sorted[first]}-${sorted[last]}` : `${sorted[first]}`);
    first = last + 1;
  }
  return texts.join(",");
}

function numbers(text) {
  return text.split(",").flatMap((part) => {
    const [first, last = first] = part.split("-").map(Number);
    const many = last - first + 1;
    return part && many >= 1 && many <= 1e5 ? Array.from({ length: many }, (_, i) => first + i) : [];
  });
}

function ranges(text) {
  try {
    const found = Object.entries(JSON.parse(text));
    return Object.fromEntries(found.filter(([, each]) => Array.isArray(each) && each.every((range) => range.length === 2)));
  } catch {
    return {}; // A link that was cut off shows everything.
  }
}

function finite(text) {
  const value = Number(text);
  return text !== "" && Number.isFinite(value) ? value : null;
}
