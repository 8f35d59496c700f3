// The slide on the screen: OpenSeadragon, and how its screen px lie on level 0.

import OpenSeadragon from "openseadragon";
import type { Api, OpenSlide } from "./api";
import type { Bounds } from "./geometry";
import type { State } from "./state";

/** screen = level0 * scale + (x, y), in CSS px of the stage */
export interface Placement {
  scale: number;
  x: number;
  y: number;
  width: number;
  height: number;
}

export class Stage {
  readonly viewer: OpenSeadragon.Viewer;
  private rest: ReturnType<typeof setTimeout> | undefined;

  /** `element` and `minimap` must be on the page. */
  constructor(
    readonly element: HTMLElement,
    minimap: HTMLElement,
    private readonly state: State,
    private readonly api: Api,
  ) {
    withoutStyleSheet();
    this.viewer = OpenSeadragon({
      element,
      drawer: "canvas",
      crossOriginPolicy: false,
      showNavigationControl: false,
      showNavigator: true,
      navigatorElement: minimap,
      navigatorOpacity: 1,
      navigatorDisplayRegionColor: "#4fd0c0",
      animationTime: 0.4,
      springStiffness: 9,
      visibilityRatio: 0.2,
      minZoomImageRatio: 0.6,
      maxZoomPixelRatio: 8,
      zoomPerScroll: 1.25,
      maxImageCacheCount: 400,
      imageLoaderLimit: 6,
      placeholderFillStyle: null as unknown as string,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: false, flickEnabled: false },
      gestureSettingsPen: { clickToZoom: false, dblClickToZoom: false },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: false, pinchRotate: false },
      gestureSettingsUnknown: { clickToZoom: false, dblClickToZoom: false },
      tabIndex: 0,
    });
    this.viewer.addHandler("canvas-key", (event) => {
      event.preventDefaultAction = true; // our own keys, see keyboard
    });
    this.viewer.addHandler("update-viewport", () => this.look());
    this.viewer.addHandler("resize", () => this.look());
  }

  /** Show a slide, at the view that it had when it was last seen in this tab. */
  open(slide: OpenSlide): void {
    this.viewer.open({
      width: slide.width,
      height: slide.height,
      tileSize: slide.tile_size,
      tileOverlap: slide.overlap,
      maxLevel: slide.max_level,
      getTileUrl: (level: number, x: number, y: number) => this.api.tile(slide.id, level, x, y),
    } as unknown as OpenSeadragon.TileSourceSpecifier);
    this.viewer.addOnceHandler("open", () => {
      const seen = remembered(slide.id);
      const [x, y, width, height] = slide.bounds;
      this.show(seen ?? { x0: x, y0: y, x1: x + width, y1: y + height }, seen ? 0 : 0.02, true);
    });
  }

  close(): void {
    this.viewer.close();
  }

  get placement(): Placement | null {
    const image = this.viewer.world.getItemAt(0);
    if (!image || !this.viewer.viewport) return null;
    const size = this.viewer.viewport.getContainerSize();
    const width = image.getContentSize().x;
    const view = this.viewer.viewport.getBoundsNoRotate(true);
    const across = size.x / view.width; // screen px per width of the slide
    return {
      scale: across / width,
      x: -view.x * across,
      y: -view.y * across,
      width: size.x,
      height: size.y,
    };
  }

  /** Screen px of the stage to px of level 0. */
  toSlide(x: number, y: number): [number, number] | null {
    const at = this.placement;
    return at && [(x - at.x) / at.scale, (y - at.y) / at.scale];
  }

  /** Px of level 0 to screen px of the stage. */
  toScreen(x: number, y: number): [number, number] | null {
    const at = this.placement;
    return at && [x * at.scale + at.x, y * at.scale + at.y];
  }

  /** Bring a part of level 0 into view, with a margin (share of its size). */
  show(part: Bounds, margin = 0.35, immediately = false): void {
    const image = this.viewer.world.getItemAt(0);
    if (!image) return;
    const width = image.getContentSize().x;
    const [w, h] = [Math.max(part.x1 - part.x0, 1), Math.max(part.y1 - part.y0, 1)];
    const rect = new OpenSeadragon.Rect(
      (part.x0 - w * margin) / width,
      (part.y0 - h * margin) / width,
      (w * (1 + 2 * margin)) / width,
      (h * (1 + 2 * margin)) / width,
    );
    this.viewer.viewport.fitBounds(rect, immediately);
  }

  home(): void {
    const { slide } = this.state.now;
    if (!slide) return;
    const [x, y, width, height] = slide.bounds;
    this.show({ x0: x, y0: y, x1: x + width, y1: y + height }, 0.02);
  }

  zoom(factor: number): void {
    this.viewer.viewport?.zoomBy(factor).applyConstraints();
  }

  /** Zoom so that a screen px is `mpp` um, about the middle of the view. */
  zoomTo(mpp: number): void {
    const { view } = this.state.now;
    if (view) this.zoom(view.mpp / mpp);
  }

  pan(x: number, y: number): void {
    const { viewport } = this.viewer;
    viewport?.panBy(viewport.deltaPointsFromPixels(new OpenSeadragon.Point(x, y))).applyConstraints();
  }

  private look(): void {
    const at = this.placement;
    const { slide, view } = this.state.now;
    if (!at || !slide) return;
    const next = {
      mpp: (slide.mpp ?? 1) / at.scale,
      x0: -at.x / at.scale,
      y0: -at.y / at.scale,
      x1: (at.width - at.x) / at.scale,
      y1: (at.height - at.y) / at.scale,
    };
    if (view && Object.entries(next).every(([key, value]) => view[key as keyof typeof next] === value))
      return;
    this.state.set({ view: next });
    clearTimeout(this.rest);
    this.rest = setTimeout(() => remember(slide.id, next), 200);
  }
}

/**
 * OpenSeadragon writes a style sheet into the page unless it finds one with this mark. The page
 * allows none; an element that only bears the name does as well.
 */
function withoutStyleSheet(): void {
  const mark = document.createElementNS("urn:histoclick", "style");
  mark.setAttribute("data-openseadragon-mobile-css", "");
  document.head.append(mark);
}

const viewKey = (id: string) => `histoclick.view.${id}`;

function remember(id: string, { x0, y0, x1, y1 }: Bounds): void {
  try {
    sessionStorage.setItem(viewKey(id), JSON.stringify({ x0, y0, x1, y1 }));
  } catch {
    // then the slide opens as a whole
  }
}

function remembered(id: string): Bounds | null {
  try {
    return JSON.parse(sessionStorage.getItem(viewKey(id)) ?? "null") as Bounds | null;
  } catch {
    return null;
  }
}
