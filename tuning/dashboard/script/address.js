// The reader's choices as the part of the address behind #, which can be bookmarked and sent.

// How choices are written, and read again; what cannot be read is left at its default.
const text = { write: String, read: (found) => found };
const number = { write: String, read: (found) => (found !== "" && Number.isFinite(Number(found)) ? Number(found) : undefined) };
const numbers = { write: (found) => found.join("."), read: readNumbers };
const names = { write: (found) => found.join(","), read: (found) => found.split(",").filter(Boolean) };
const ranges = { write: JSON.stringify, read: readRanges };

const CHOICES = {
  search: ["", text], // words that a trial's row contains
  brush: [null, numbers], // numbers of the trials inside a box that was dragged in a chart; null: all
  trials: [[], numbers], // numbers of the trials that were clicked
  ranges: [{}, ranges], // field -> ranges on its axis of the parallel coordinates
  collapse: [null, names], // fields in which the trials of a group differ; null: the sweep's default
  metric: ["score", text], at: ["last", text], // the measure: which metric, which of its evaluations
  curve: [null, text], // what the learning curves show; null: the metric
  x: [null, text], y: [null, text], // fields of the contour; null: the two that matter most
  a: [null, number], b: [null, number], images: [null, number], // the pictures side by side, and how far training was
  sort: [null, text], // a column of the ranking and `up` or `down`; null: by rank
  price: [null, number], // of a worker for an hour
  spent: ["images", text], target: [null, number], // what several sweeps are compared by, and the score to reach
};

// A choice as it is written in the address, and in a control of its name.
export function parse(name, written) {
  const [usual, kind] = CHOICES[name];
  return (written === null ? undefined : kind.read(written)) ?? structuredClone(usual);
}

export function read(hash) {
  const parts = new URLSearchParams(hash.replace(/^#/, ""));
  return Object.fromEntries(Object.keys(CHOICES).map((name) => [name, parse(name, parts.get(name))]));
}

export function write(choices) {
  const changed = Object.entries(CHOICES).filter(([name, [usual]]) => JSON.stringify(choices[name]) !== JSON.stringify(usual));
  return new URLSearchParams(changed.map(([name, [, kind]]) => [name, kind.write(choices[name])])).toString();
}

function readNumbers(found) {
  const all = found.split(/[.,]/).filter(Boolean).map(Number).filter(Number.isInteger);
  return all.length ? all : undefined;
}

function readRanges(found) {
  try {
    const isRange = (each) => Array.isArray(each) && each.length === 2 && each.every(Number.isFinite);
    return Object.fromEntries(Object.entries(JSON.parse(found)).filter(([, all]) => Array.isArray(all) && all.every(isRange)));
  } catch {
    return undefined; // A link that was cut off.
  }
}
