// Groups of trials that differ in the collapsed fields alone, as tuning/analysis/groups.py has them.

const STATES = ["finished", "stopped", "running", "waiting", "failed", "diverged"];

// Best first, by state and by the mean of the measure. A group's state is that of its trial furthest from finished.
export function ranked(trials, fields, collapsed, value, isHigherBetter) {
  const kept = fields.map((_, place) => place).filter((place) => !collapsed.includes(fields[place]));
  const keyOf = (trial) => (collapsed.length ? kept.map((place) => `${place}=${trial.codes[place]}`).join() : String(trial.number));
  const groups = [...Map.groupBy(trials, keyOf)].map(([key, members]) => {
    const state = Math.max(...members.map((trial) => STATES.indexOf(trial.state)));
    const all = interval(members.map(value));
    const order = [state, all.n ? (isHigherBetter ? -1 : 1) * all.mean : Infinity, members[0].number];
    return { key, trials: members, state: STATES[state], found: all, order };
  });
  return groups.sort(({ order: one }, { order: other }) => {
    const place = one.findIndex((each, i) => each !== other[i]);
    return place < 0 ? 0 : one[place] < other[place] ? -1 : 1;
  });
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
