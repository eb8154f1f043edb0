// The mask over the image. When its colours or regions change, the new tiles are loaded behind the old ones and take
// their place when they are whole, so that nothing flickers.

import { tileSource } from "./pyramid.js";

const PATIENCE_MS = 8000; // then the new layer is shown with what it has

export class MaskLayer {
  #viewer;
  #pyramid;
  #opacity;
  #shown = null;
  #query = null;
  #loading = false;
  #closed = false;

  constructor(viewer, pyramid, opacity) {
    this.#viewer = viewer;
    this.#pyramid = pyramid;
    this.#opacity = opacity;
  }

  /** 0..1 */
  set opacity(value) {
    this.#opacity = value;
    this.#shown?.setOpacity(value);
  }

  /** query: the tiles' `?colors=...&hide=...`. While one is loading, only the last one asked for comes next. */
  async show(query) {
    if (query === this.#query) return;
    this.#query = query;
    if (this.#loading) return;
    this.#loading = true;
    try {
      while (query !== null && !this.#closed) {
        await this.#replace(query);
        query = query === this.#query ? null : this.#query;
      }
    } finally {
      this.#loading = false;
    }
  }

  close() {
    this.#closed = true;
  }

  async #replace(query) {
    const item = await this.#add(query);
    if (this.#shown) await whole(item);
    if (this.#closed) return;
    item.setOpacity(this.#opacity);
    if (this.#shown) this.#viewer.world.removeItem(this.#shown);
    this.#shown = item;
  }

  #add(query) {
    return new Promise((resolve, reject) => {
      this.#viewer.addTiledImage({
        tileSource: tileSource(this.#pyramid, query),
        opacity: this.#shown ? 0 : this.#opacity,
        preload: true,
        success: (event) => resolve(event.item),
        error: (event) => reject(new Error(event.message)),
      });
    });
  }
}

/** Until every tile in view is there. */
function whole(item) {
  return new Promise((resolve) => {
    const look = () => item.getFullyLoaded() && resolve();
    item.addHandler("fully-loaded-change", look);
    setTimeout(resolve, PATIENCE_MS);
    look();
  });
}
