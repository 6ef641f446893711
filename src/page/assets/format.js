// Numbers and times as people read them.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const day = new Intl.DateTimeFormat('en-GB', { year: 'numeric', month: 'short', day: 'numeric' });

const MINUTE = 60_000, HOUR = 3_600_000, DAY = 86_400_000;

export const known = (value) => value !== null && value !== undefined;
export const count = (value) => (known(value) ? whole.format(value) : '–');
export const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** A count that must fit into a small place. */
export const compact = (value) => (!known(value) ? '–' : Math.abs(value) < 10_000 ? whole.format(value) : short.format(value));

/** A measured value: four figures are what a glance takes in. */
export function value(number) {
  if (typeof number !== 'number' || !Number.isFinite(number)) return number === undefined || number === null ? '–' : String(number);
  const size = Math.abs(number);
  if (Number.isInteger(number) && size < 1e6) return whole.format(number);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return number.toExponential(2);
  return number.toLocaleString('en', { maximumFractionDigits: size < 1 ? 4 : size < 100 ? 2 : size < 1000 ? 1 : 0 });
}

export function rate(perSecond) {
  if (!known(perSecond)) return '–';
  return perSecond > 0 && perSecond < 10 ? perSecond.toFixed(1) : compact(perSecond);
}

/** A length of time in one unit, two where that helps. */
export function span(ms) {
  if (!known(ms)) return '–';
  const size = Math.abs(ms);
  if (size < 10_000) return `${(size / 1000).toFixed(1)} s`;
  if (size < MINUTE) return `${Math.round(size / 1000)} s`;
  if (size < HOUR) return `${Math.floor(size / MINUTE)} min`;
  if (size < 2 * DAY) return `${Math.floor(size / HOUR)} h`;
  return `${whole.format(Math.floor(size / DAY))} days`;
}

export const time = (ms) => (known(ms) ? clock.format(ms) : '–');

/** Date and time, the date left out when it is today. */
export function moment(ms, now) {
  if (!known(ms)) return '–';
  return Math.abs(now - ms) < DAY ? clock.format(ms) : `${day.format(ms)} ${clock.format(ms)}`;
}

export function bytes(size) {
  if (!known(size)) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const at = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(1, size)) / 10)));
  const scaled = size / 2 ** (10 * at);
  return `${scaled.toFixed(at > 0 && scaled < 100 ? 1 : 0)} ${units[at]}`;
}

/** The values of a series' tags: what it is called. */
export const label = (tags) => Object.values(tags).join(' · ') || 'all';
