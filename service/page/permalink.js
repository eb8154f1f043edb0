// A view as the address's fragment: which job, where, how near, what is shown.
//
//     #job=6f1c...&x=1200&y=800&z=0.5&o=0.6&hide=1,3&colors=0:ff8800&with=0b0c...
//
// x, y: the centre in level-0 pixels. z: screen pixels to one of the image's. with: the job beside it.

const ID = /^[\w-]{1,64}$/;
const COLORS = /^\d{1,3}:[0-9a-f]{6}$/;

const number = (text) => (text !== null && text !== "" && Number.isFinite(Number(text)) ? Number(text) : null);
const id = (text) => (text && ID.test(text) ? text : null);

/** {job, x, y, zoom, opacity, hidden: Set, colors: Map, compared}; what is absent or makes no sense is null or empty. */
export function parseView(hash) {
  const values = new URLSearchParams(hash.replace(/^#/, ""));
  const hidden = (values.get("hide") ?? "").split(",").filter((part) => /^\d{1,3}$/.test(part)).map(Number);
  const colors = (values.get("colors") ?? "").split(",").filter((part) => COLORS.test(part)).map((part) => part.split(":"));
  return {
    job: id(values.get("job")),
    x: number(values.get("x")),
    y: number(values.get("y")),
    zoom: number(values.get("z")),
    opacity: number(values.get("o")),
    hidden: new Set(hidden),
    colors: new Map(colors.map(([label, color]) => [Number(label), `#${color}`])),
    compared: id(values.get("with")),
  };
}

const round = (value, digits) => String(Number(value.toPrecision(digits)));

export function formatView(view) {
  const parts = [`job=${view.job}`];
  if (view.x !== null && view.zoom !== null) {
    parts.push(`x=${round(view.x, 7)}`, `y=${round(view.y, 7)}`, `z=${round(view.zoom, 4)}`);
  }
  if (view.opacity !== null) parts.push(`o=${round(view.opacity, 2)}`);
  if (view.hidden.size) parts.push(`hide=${[...view.hidden].sort((a, b) => a - b).join(",")}`);
  if (view.colors.size) parts.push(`colors=${formatColors(view.colors)}`);
  if (view.compared) parts.push(`with=${view.compared}`);
  return `#${parts.join("&")}`;
}

/** As `colors=` of the service's tiles takes them: `0:ff8800,3:00ff00`. */
export function formatColors(colors) {
  return [...colors].map(([label, color]) => `${label}:${color.replace("#", "")}`).join(",");
}
