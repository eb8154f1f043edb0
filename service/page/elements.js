// Elements of the document. Text goes in as text alone: names of files and models are other people's.

/** properties: DOM properties; `aria-*`, `role`, `for` and the like as attributes; `data` as dataset; `on` as listeners. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) give(made, name, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function give(target, name, value) {
  if (value === undefined || value === null) return;
  if (name === "data") Object.assign(target.dataset, value);
  else if (name === "on") for (const [type, act] of Object.entries(value)) target.addEventListener(type, act);
  else if (name.includes("-") || ["role", "for", "list"].includes(name)) target.setAttribute(name, value);
  else target[name] = value;
}

export const byId = (id) => document.getElementById(id);

export function button(text, act, properties = {}) {
  return element("button", { type: "button", textContent: text, on: { click: act }, ...properties });
}

/** Sets only what differs, so that a screen reader is not told twice. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

export function progressBar(label) {
  const fill = element("span", { className: "progress-fill" });
  const bar = element("div", { className: "progress", role: "progressbar", "aria-label": label }, fill);
  bar.setAttribute("aria-valuemin", "0");
  bar.setAttribute("aria-valuemax", "100");
  return bar;
}

/** percent: 0..100, or null where it cannot be told. */
export function setProgress(bar, percent) {
  bar.classList.toggle("unknown", percent === null);
  if (percent === null) bar.removeAttribute("aria-valuenow");
  else bar.setAttribute("aria-valuenow", String(Math.round(percent)));
  bar.firstElementChild.style.setProperty("inline-size", percent === null ? "" : `${percent}%`);
}

/** A class's colour as a small square. */
export function swatch(color) {
  const made = element("span", { className: "swatch", "aria-hidden": "true" });
  made.style.setProperty("background-color", color);
  return made;
}

const MAX_WORDS = 600;

/** What went wrong, in the server's own words, where it went wrong. Nothing for null. */
export function showProblem(place, problem) {
  if (!problem) {
    place.replaceChildren();
    return;
  }
  const words = String(problem.detail ?? problem.message ?? problem).slice(0, MAX_WORDS);
  const code = problem.code ? element("code", { textContent: problem.code }) : null;
  place.replaceChildren(element("p", { className: "problem" }, element("span", { textContent: words }), code));
}

/** Tells those who listen instead of look. */
export function say(text) {
  setText(byId("said"), text);
}
