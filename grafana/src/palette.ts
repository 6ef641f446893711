// The colours and limits that all three dashboards share: the same thing looks the same everywhere.

export const colour = {
  /** Ways of a reading, in the ledger. */
  used: 'green',
  late: 'orange',
  dead: 'red',
  filtered: '#7b8a9a',
  /** The parts that a reading passes. */
  producer: 'blue',
  processor: 'purple',
  results: 'super-light-purple',
  sink: '#33b5aa',
  /** A sensor's values: the average, and the band between minimum and maximum. */
  average: 'blue',
  band: 'super-light-blue',
  /** Verdicts. */
  good: 'green',
  notice: 'yellow',
  warning: 'orange',
  bad: 'red',
  plain: 'text',
} as const;

/** Of readings, rows and points alike; the panel's title says of what. */
export const PER_SECOND = 'count:/s';

/** A count that is read to the last digit, with separators: 11,978 and not 12 K. */
export const EXACT = 'locale';

export interface Step {
  value: number | null;
  color: string;
}

/** `good` below the first limit, then one colour for each limit. */
export function above(limits: [number, string][], base: string = colour.good): Step[] {
  return [{ value: null, color: base }, ...limits.map(([value, color]) => ({ value, color }))];
}

/** How far a sensor is from its usual, in standard deviations. */
export const strength = above([
  [2, colour.notice],
  [3, colour.warning],
  [4, colour.bad],
]);

/** The same with a sign. */
export const deviation: Step[] = [
  { value: null, color: colour.bad },
  { value: -4, color: colour.warning },
  { value: -3, color: colour.notice },
  { value: -2, color: colour.good },
  { value: 2, color: colour.notice },
  { value: 3, color: colour.warning },
  { value: 4, color: colour.bad },
];

/** From here on a sensor counts as strange. */
export const STRANGE = 3;

/** Seconds that a watermark may be behind: the alert's limit is the last one. */
export const watermarkLag = above([
  [30, colour.notice],
  [120, colour.bad],
]);

/** Share of the disk that is free: below 10 % there is an alert. */
export const diskFree: Step[] = [
  { value: null, color: colour.bad },
  { value: 0.1, color: colour.notice },
  { value: 0.2, color: colour.good },
];
