// Figures as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const NARROW = "\u202f";

export const count = (value) => whole.format(value);

/** Three significant digits at most, without needless zeros. */
export function figure(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 100) return whole.format(value);
  if (size < 0.001) return value.toExponential(1);
  return new Intl.NumberFormat("en", { maximumSignificantDigits: 3 }).format(value);
}

const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB"];

export function bytes(value) {
  const power = value < 1000 ? 0 : Math.min(BYTE_UNITS.length - 1, Math.floor(Math.log10(value) / 3));
  return `${figure(value / 1000 ** power)}${NARROW}${BYTE_UNITS[power]}`;
}

export function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))}${NARROW}s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)}${NARROW}min`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)}${NARROW}h ${minutes % 60}${NARROW}min`;
}

const LENGTHS = {
  micrometer: [[1e6, "m"], [1e3, "mm"], [1, "µm"], [1e-3, "nm"]],
  meter: [[1e3, "km"], [1, "m"], [1e-2, "cm"]],
};

/** unit: "micrometer" or "meter", as in JobView.image.unit. */
export function length(value, unit) {
  const [size, name] = LENGTHS[unit].find(([least]) => value >= least * 0.9999) ?? LENGTHS[unit].at(-1);
  return `${figure(value / size)}${NARROW}${name}`;
}

const AREAS = {
  "um^2": [[1e8, "cm²"], [1e4, "mm²"], [0, "µm²"]],
  "m^2": [[1e4, "km²"], [0, "m²"]],
};
const AREA_SIZES = { "µm²": 1, "mm²": 1e6, "cm²": 1e8, "m²": 1, "km²": 1e6 };

/** unit: "um^2" or "m^2", as in JobView.areas. Large areas in mm² and km². */
export function area(value, unit) {
  const [, name] = AREAS[unit].find(([least]) => value >= least);
  return `${figure(value / AREA_SIZES[name])}${NARROW}${name}`;
}

export function share(part, sum) {
  if (!sum || !part) return "0%";
  const percent = (100 * part) / sum;
  return percent < 0.1 ? "<0.1%" : `${percent.toFixed(1)}%`;
}

export function ago(date, now = Date.now()) {
  const seconds = (now - new Date(date).getTime()) / 1000;
  if (seconds < 45) return "just now";
  if (seconds < 3600) return `${Math.max(1, Math.round(seconds / 60))}${NARROW}min ago`;
  if (seconds < 86400) return `${Math.round(seconds / 3600)}${NARROW}h ago`;
  return new Date(date).toLocaleDateString("en", { year: "numeric", month: "short", day: "numeric" });
}

export const size = (image) => `${count(image.width)} × ${count(image.height)} px`;
