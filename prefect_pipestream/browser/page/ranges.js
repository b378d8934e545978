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

  /** The index before or after another one, which need not be among them; null for none. */
  beside(idx, isAfter) {
    let best = null;
    for (const [first, length] of this.ranges) {
      const last = first + length - 1;
      if (isAfter && last > idx) return Math.max(first, idx + 1);
      if (!isAfter && first < idx) best = Math.min(last, idx - 1);
    }
    return best;
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
