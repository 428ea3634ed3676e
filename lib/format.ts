/** Numbers as people read them: short, with a unit. */

/** Seconds: `0.35 s`, `42 s`, `3 min 20 s`, `5 h 02 min`, `3 d 4 h`; `–` when not finite. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return '–';
  if (seconds < 9.995) return `${Number(seconds.toPrecision(2))} s`;
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60);
  const hours = Math.floor(minutes / 60);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${minutes} min ${twoDigits(whole % 60)} s`;
  if (hours < 48) return `${hours} h ${twoDigits(minutes % 60)} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** `950`, `12.3 k`, `111.7 M`, `1.2 G`: decimal thousands, one digit after the point. */
export function formatCount(count: number, unit = ''): string {
  return scaled(count, 1000, ['', 'k', 'M', 'G', 'T', 'P'], unit);
}

/** `512 B`, `1.5 KiB`, `5.2 GiB`: binary thousands. */
export function formatBytes(bytes: number): string {
  return scaled(bytes, 1024, ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi'], 'B');
}

/** Something per second: `1 234 img/s`, `8.4 img/s`. */
export function formatRate(perSecond: number, unit: string): string {
  if (!Number.isFinite(perSecond)) return '–';
  return `${perSecond < 100 ? perSecond.toFixed(1) : groupDigits(perSecond)} ${unit}/s`;
}

/** A whole number with thin groups of three: `1 281 167` (with no-break spaces). */
export function groupDigits(value: number): string {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, '\u00a0');
}

/** A learning rate: `1.5e-4`, three significant digits; `0`. */
export function formatLearningRate(lr: number): string {
  return lr === 0 ? '0' : lr.toExponential(2).replace(/\.?0+e/, 'e');
}

/** A share of one: `3 %`, `0.4 %`. */
export function formatPercent(share: number): string {
  if (!Number.isFinite(share)) return '–';
  const percent = share * 100;
  return `${percent !== 0 && Math.abs(percent) < 1 ? percent.toFixed(1) : percent.toFixed(0)} %`;
}

function scaled(value: number, base: number, prefixes: readonly string[], unit: string): string {
  if (!Number.isFinite(value)) return '–';
  let power = 0;
  // 999.95 would be printed as 1000.0
  while (Math.abs(value) >= base - (power > 0 ? 0.05 : 0.5) && power < prefixes.length - 1) {
    value /= base;
    power++;
  }
  const digits = power === 0 ? String(Math.round(value)) : value.toFixed(1);
  return `${digits} ${prefixes[power]}${unit}`.trim();
}

function twoDigits(value: number): string {
  return String(value).padStart(2, '0');
}
