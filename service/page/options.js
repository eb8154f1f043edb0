// The options of a job. What is left as it is is not sent, so that the service's own defaults hold.

import { byId } from "./elements.js";

const DEFAULTS = { resolution: "model", overlap: "none" };
const NUMBERS = ["pixel_size_um", "min_object_px"];

/** As `options` of POST /segment. Raises Error with the field where something is not a number. */
export function readOptions() {
  const options = {};
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    if (byId(name).value !== usual) options[name] = byId(name).value;
  }
  for (const name of NUMBERS) {
    const value = readNumber(byId(name));
    if (value !== null && value !== 0) options[name] = value;
  }
  if (byId("background").checked) options.background = "skip";
  if (byId("probabilities").checked) options.probabilities = true;
  const roi = byId("roi").value.trim();
  if (roi) options.roi = asRegion(roi);
  return options;
}

function readNumber(field) {
  if (field.validity.badInput || field.validity.rangeUnderflow || field.validity.stepMismatch) {
    field.focus();
    const label = document.querySelector(`label[for="${field.id}"]`).textContent;
    throw new Error(`${label}: ${field.validationMessage}`);
  }
  return field.value === "" ? null : Number(field.value);
}

/** GeoJSON as an object; anything else as it is, for the service to judge. */
function asRegion(text) {
  try {
    return text.startsWith("{") ? JSON.parse(text) : text;
  } catch {
    return text;
  }
}

export function clearRegion() {
  byId("roi").value = "";
}

/** A word for what differs from the defaults, beside the fold's title. */
export function optionCount() {
  try {
    return Object.keys(readOptions()).length;
  } catch {
    return 0;
  }
}
