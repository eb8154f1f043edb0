// Two panes that show the same place. Whichever was touched last leads, the other follows; of two images of different
// size the same share of each is shown.

const LEADING = ["pointerdown", "wheel", "keydown", "focusin"];
const NEAR = 1e-9;

export class Together {
  #panes;
  #leader;

  constructor(first, second) {
    this.#panes = [first, second];
    this.#leader = first;
    for (const pane of this.#panes) {
      for (const type of LEADING) {
        pane.element.addEventListener(type, () => (this.#leader = pane), { capture: true, passive: true });
      }
    }
  }

  lead(pane) {
    this.#leader = pane;
  }

  /** To be called whenever a pane moved. */
  follow(moved) {
    const [first, second] = this.#panes;
    if (moved !== this.#leader || !first.isOpen || !second.isOpen) return;
    this.align();
  }

  align() {
    const other = this.#panes.find((pane) => pane !== this.#leader);
    const from = this.#leader.viewport;
    const to = other.viewport;
    const zoom = from.getZoom(true);
    const centre = from.getCenter(true);
    if (Math.abs(to.getZoom(true) - zoom) > NEAR * zoom) to.zoomTo(zoom, null, true);
    if (to.getCenter(true).distanceTo(centre) > NEAR) to.panTo(centre, true);
  }
}
