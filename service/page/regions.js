// Which parts of an image failed or were left out, and the way there.

import { readLink } from "./api.js";
import { button, element, setText, showProblem } from "./elements.js";
import { count } from "./figures.js";

const SHOWN = 100; // rows at a time: a large slide may have thousands

export class RegionList {
  #onGo;
  #limit = SHOWN;
  #told = null;
  #words = element("p", { className: "muted" });
  #list = element("ol", { className: "region-list" });
  #more = button("Show more", () => this.#showMore(), { className: "small", hidden: true });
  #problem = element("div");
  #regions = [];

  /** onGo(box): [y0, x0, y1, x1] was chosen. */
  constructor(onGo) {
    this.#onGo = onGo;
    const title = element("h2", { textContent: "Regions" });
    this.element = element("section", { className: "panel regions", "aria-label": "Regions" },
      element("div", { className: "panel-head" }, title), this.#words, this.#problem, this.#list, this.#more);
  }

  async show(job) {
    const { done, skipped, total } = job.regions;
    const state = [job.id, skipped, job.state].join();
    if (job.links.regions && state !== this.#told) {
      this.#told = state;
      await this.#read(job);
    }
    const failed = this.#regions.filter((region) => region.failed).length;
    const parts = [`${count(done)} of ${count(total)} done`];
    if (skipped) parts.push(`${count(skipped)} skipped`);
    if (failed) parts.push(`${count(failed)} failed`);
    setText(this.#words, total ? parts.join(", ") : "Told once the image has been read.");
  }

  async #read(job) {
    try {
      const found = await readLink(job.links.regions);
      const failed = found.failed.map((region) => ({ ...region, failed: true }));
      this.#regions = [...failed, ...found.skipped.map((region) => ({ ...region, failed: false }))];
      showProblem(this.#problem, null);
      this.#fill();
    } catch (problem) {
      this.#told = null;
      if (problem.code !== "conflict") showProblem(this.#problem, problem);
    }
  }

  #fill() {
    this.#list.replaceChildren(...this.#regions.slice(0, this.#limit).map((region) => this.#row(region)));
    this.#more.hidden = this.#regions.length <= this.#limit;
  }

  #showMore() {
    this.#limit += SHOWN;
    this.#fill();
  }

  #row(region) {
    const [y0, x0, y1, x1] = region.box;
    const words = `${region.failed ? "Failed" : "Skipped"}: ${region.reason ?? region.detail ?? "no reason told"}`;
    const place = `x ${count(x0)} to ${count(x1)}, y ${count(y0)} to ${count(y1)}`;
    const go = button("", () => this.#onGo(region.box), { className: "region", data: { failed: String(region.failed) } });
    go.append(element("span", { textContent: `Region ${region.index}` }), element("span", { className: "muted", textContent: place }), element("span", { className: "region-why", textContent: words }));
    return element("li", {}, go);
  }
}
