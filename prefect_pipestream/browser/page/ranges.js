// Many indices, as the ranges that they consist of: a million of them are one pair of numbers.

export class Ranges {
  constructor(ranges) {
    this.ranges = ranges;
    this.count = ranges.reduce((sum, [, length]) => sum + length, 0);
  }

  /** The indices from one place to another. */
  slice(from, to) {
    const found = [];
    let at = 0;
    for (const [first, length] of this.ranges) {
      for (let i = Math.max(from - at, 0); i < length && at + i < to; i += 1) found.push(first + i);
      at += length;
      if (at >= to) break;
    }
    return found;
  }

  /** The index before or after another one, in their order; null for none. */
  beside(idx, isAfter) {
    const at = this.ranges.findIndex(([first, length]) => idx >= first && idx < first + length);
    if (at < 0) return this.nearest(idx, isAfter);
    const [first, length] = this.ranges[at];
    const next = idx + (isAfter ? 1 : -1);
    if (next >= first && next < first + length) return next;
    const other = this.ranges[at + (isAfter ? 1 : -1)];
    if (!other) return null;
    return isAfter ? other[0] : other[0] + other[1] - 1;
  }

  /** Of one that is not among them, the next by its number. */
  nearest(idx, isAfter) {
    const ends = this.ranges.map(([first, length]) => (isAfter ? first : first + length - 1));
    const beyond = ends.filter((one) => (isAfter ? one > idx : one < idx));
    return beyond.length ? beyond.reduce((a, b) => (isAfter ? Math.min(a, b) : Math.max(a, b))) : null;
  }
}

/** The ranges that a set of indices consists of. */
export function rangesOf(indices) {
  const found = [];
  for (const idx of [...indices].sort((a, b) => a - b)) {
    const last = found.at(-1);
    if (last && last[0] + last[1] === idx) last[1] += 1;
    else found.push([idx, 1]);
  }
  return found;
}
