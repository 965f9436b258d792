// Groups of trials that differ in the collapsed fields alone, as tuning/analysis/groups.py has them.

const STATES = ["finished", "stopped", "running", "waiting", "failed", "diverged"];

// Trials in groups, each with its key and its state: that of the trial furthest from finished.
export function grouped(trials, axes, collapsed) {
  const kept = axes.map((axis, place) => (collapsed.includes(axis.field) ? -1 : place)).filter((place) => place >= 0);
  const found = new Map();
  for (const trial of trials) {
    const key = collapsed.length ? JSON.stringify(kept.map((place) => trial.fields[place])) : String(trial.number);
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(trial);
  }
  return [...found].map(([key, members]) => ({ key, trials: members, state: worst(members) }));
}

// Best first: by state, then by the mean of the measure.
export function ranked(groups, value, isHigherBetter) {
  const sign = isHigherBetter ? -1 : 1;
  for (const group of groups) group.found = interval(group.trials.map(value));
  const mean = (group) => (group.found.n ? sign * group.found.mean : Infinity);
  return groups.sort((one, other) =>
    STATES.indexOf(one.state) - STATES.indexOf(other.state)
    || difference(mean(one), mean(other))
    || one.trials[0].number - other.trials[0].number);
}

let quantiles = [];
export function useQuantiles(found) { quantiles = found; }

// Mean of the known values with half of its 95 % interval, by Student's t; infinite for fewer than two.
export function interval(values) {
  const known = values.filter((value) => value !== null && value !== undefined);
  const n = known.length;
  const mean = n ? known.reduce((sum, value) => sum + value, 0) / n : null;
  if (n < 2) return { mean, margin: Infinity, n };
  const variance = known.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1);
  return { mean, margin: quantiles[Math.min(n - 1, quantiles.length) - 1] * Math.sqrt(variance / n), n };
}

function worst(trials) {
  return STATES[Math.max(...trials.map((trial) => STATES.indexOf(trial.state)))];
}

function difference(one, other) {
  return one === other ? 0 : one < other ? -1 : 1;
}
