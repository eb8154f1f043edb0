// Single keys. They can be turned off (WCAG 2.1.4), and never act while something is typed.

import { byId, element } from "./elements.js";

const KEY = "gigamask.single-keys";
const TYPED = "input:not([type=checkbox]):not([type=radio]):not([type=range]):not([type=color]), textarea, select";

export class Shortcuts {
  #keys = new Map();
  #list = byId("shortcut-list");

  constructor() {
    const single = byId("single-keys");
    single.checked = localStorage.getItem(KEY) !== "off";
    single.addEventListener("change", () => localStorage.setItem(KEY, single.checked ? "on" : "off"));
    byId("help").addEventListener("click", () => this.#help());
    document.addEventListener("keydown", (event) => this.#press(event));
    this.add("?", "This list", () => this.#help());
  }

  /** words: as the list tells it. act returns false where the key means nothing now. */
  add(key, words, act) {
    this.#keys.set(key, act);
    if (words) this.tell(key, words);
  }

  tell(keys, words) {
    const marks = keys.split(" ").map((key) => element("kbd", { textContent: key }));
    this.#list.append(element("div", {}, element("dt", {}, ...marks), element("dd", { textContent: words })));
  }

  #help() {
    if (!byId("shortcuts").open) byId("shortcuts").showModal();
  }

  #press(event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest?.(TYPED) || document.querySelector("dialog[open]")) return;
    if (!byId("single-keys").checked && event.key !== "Escape") return;
    const act = this.#keys.get(event.key);
    if (act && act() !== false) event.preventDefault();
  }
}
