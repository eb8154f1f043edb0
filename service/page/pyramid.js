// A deep-zoom image of the service: its DZI, and the addresses of its tiles.

import { ask, urlOf } from "./api.js";

/** What the image's tiles are to be: JPEG knows no pixels without data. image: JobView.image */
export const imageFormat = (image) => (image.channels === 4 ? "webp" : "jpg");

/** link: `image_dzi` or `mask_dzi` of a job. Raises Problem. */
export async function readPyramid(link, wanted, signal) {
  const answer = await ask(`${link}?format=${wanted}`, { signal, headers: { Accept: "application/xml" } });
  const root = new DOMParser().parseFromString(await answer.text(), "application/xml").documentElement;
  const extent = root.getElementsByTagNameNS("*", "Size")[0];
  const value = (owner, name) => Number(owner.getAttribute(name));
  return {
    width: value(extent, "Width"),
    height: value(extent, "Height"),
    tileSize: value(root, "TileSize"),
    tileOverlap: value(root, "Overlap"),
    format: root.getAttribute("Format"),
    folder: tileFolder(link),
  };
}

export const tileFolder = (link) => urlOf(link.replace(/\.dzi$/, "_files/")).href;

export const topLevel = (width, height) => Math.ceil(Math.log2(Math.max(width, height, 1)));

/** For OpenSeadragon. query: appended to each tile's address. */
export function tileSource(pyramid, query = "") {
  const { width, height, tileSize, tileOverlap, format, folder } = pyramid;
  const getTileUrl = (level, x, y) => `${folder}${level}/${x}_${y}.${format}${query}`;
  const maxLevel = topLevel(width, height);
  const hasTransparency = () => format !== "jpg";
  return { width, height, tileSize, tileOverlap, minLevel: 0, maxLevel, getTileUrl, hasTransparency };
}

const THUMBNAIL_LEVEL = 7; // at most 128 px a side: always one tile

/** The address of one small picture of the whole, at most 2^level pixels a side. */
export function thumbnail(link, image, format, query = "", most = THUMBNAIL_LEVEL) {
  const level = Math.min(most, topLevel(image.width, image.height));
  return `${tileFolder(link)}${level}/0_0.${format}${query}`;
}
