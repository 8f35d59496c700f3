// Elements and icons, made by hand.

type Child = Node | string | null | undefined | false;
type Handlers = { [K in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[K]) => void };

export interface Props {
  class?: string;
  testid?: string;
  on?: Handlers;
  [attribute: string]: unknown;
}

/** An element; attributes that are `null`, `false` or missing are left out. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  const { testid, on, ...attributes } = props;
  if (testid) element.dataset["testid"] = testid;
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const [name, handler] of Object.entries(on ?? {})) {
    element.addEventListener(name, handler as EventListener);
  }
  element.append(...children.filter((each): each is Node | string => !!each));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

// 20 x 20, drawn with a line of 1.5; a name that begins with "*" is filled
const ICONS = {
  select: ["M5 3.5v12l3.2-3 2.1 4.6 2-.9-2.1-4.500H14.500z"],
  click: ["M10 3v3.200M10 13.800V17M3 10h3.200M13.800 10H17", "M10 7.200a2.800 2.800 0 1 0 0 5.600 2.800 2.800 0 0 0 0-5.600z"],
  box: ["M4 7V5a1 1 0 0 1 1-1h2M13 4h2a1 1 0 0 1 1 1v2M16 13v2a1 1 0 0 1-1 1h-2M7 16H5a1 1 0 0 1-1-1v-2", "M8.500 4h3M8.500 16h3M4 8.500v3M16 8.500v3"],
  brush: ["M16.500 3.500c-3.500 1.500-6.500 4.700-8 7.500l1.500 1.500c2.800-1.500 6-4.500 7.500-8z", "M7.500 11.800c-2 0-2.700 1.300-2.800 2.700-.1 1-.7 1.700-1.700 2 2.500 1 6.500.5 6.500-2.500"],
  eraser: ["M11 4.500 4 11.500a1.400 1.400 0 0 0 0 2L6 15.500h3.500l6.500-6.500a1.400 1.400 0 0 0 0-2L13 4.500a1.400 1.400 0 0 0-2 0z", "M7.500 8l5 5M6 15.500h10"],
  plus: ["M10 4.500v11M4.500 10h11"],
  minus: ["M4.500 10h11"],
  finish: ["M4 10.500 8 14.500 16 5.500"],
  add: ["M10 4.500v11M4.500 10h11"],
  undo: ["M7.500 4.500 4 8l3.500 3.500", "M4 8h7.500a4 4 0 0 1 0 8H8"],
  redo: ["M12.500 4.500 16 8l-3.500 3.500", "M16 8H8.500a4 4 0 0 0 0 8H12"],
  eye: ["M2.500 10S5.200 5 10 5s7.500 5 7.500 5-2.700 5-7.500 5-7.500-5-7.500-5z", "M10 7.800a2.200 2.200 0 1 0 0 4.400 2.200 2.200 0 0 0 0-4.400z"],
  hidden: ["M4.500 6.900C3.200 8.300 2.500 10 2.500 10S5.200 15 10 15c1.200 0 2.200-.3 3.100-.7M8 5.300A7 7 0 0 1 10 5c4.800 0 7.500 5 7.500 5s-.7 1.300-2 2.600", "M3.500 3.500l13 13"],
  fill: ["*M6 4.500h8A1.500 1.500 0 0 1 15.500 6v8a1.500 1.500 0 0 1-1.500 1.500H6A1.500 1.500 0 0 1 4.500 14V6A1.500 1.500 0 0 1 6 4.500z"],
  outline: ["M6 4.500h8A1.500 1.500 0 0 1 15.500 6v8a1.500 1.500 0 0 1-1.500 1.500H6A1.500 1.500 0 0 1 4.500 14V6A1.500 1.500 0 0 1 6 4.500z"],
  menu: ["M3.500 5.500h13M3.500 10h13M3.500 14.500h13"],
  panel: ["M4.500 4h11A1.500 1.500 0 0 1 17 5.500v9a1.500 1.500 0 0 1-1.500 1.500h-11A1.500 1.500 0 0 1 3 14.500v-9A1.500 1.500 0 0 1 4.500 4zM12.500 4v12"],
  import: ["M10 3.500v8.500M6.500 8.700 10 12.200l3.500-3.500", "M3.500 12.500v2A1.500 1.500 0 0 0 5 16h10a1.500 1.500 0 0 0 1.500-1.500v-2"],
  export: ["M10 12V3.500M6.500 6.800 10 3.300l3.500 3.500", "M3.500 12.500v2A1.500 1.500 0 0 0 5 16h10a1.500 1.500 0 0 0 1.500-1.500v-2"],
  model: ["M10 3 16 6.300v7.400L10 17l-6-3.300V6.300z", "M4.200 6.500 10 9.700l5.800-3.200M10 9.700V17"],
  light: ["M10 6.800a3.200 3.200 0 1 0 0 6.400 3.200 3.200 0 0 0 0-6.400z", "M10 2.500v1.700M10 15.800v1.700M2.500 10h1.700M15.800 10h1.700M4.700 4.700l1.200 1.200M14.100 14.100l1.200 1.200M4.700 15.300l1.200-1.200M14.100 5.900l1.200-1.200"],
  dark: ["M15.900 12.300A6.500 6.500 0 0 1 7.700 4.100a6.500 6.500 0 1 0 8.200 8.200z"],
  system: ["M4.500 4h11A1.500 1.500 0 0 1 17 5.500v6a1.500 1.500 0 0 1-1.500 1.500h-11A1.500 1.500 0 0 1 3 11.500v-6A1.500 1.500 0 0 1 4.500 4zM7.500 16.500h5M10 13v3.500"],
  help: ["M10 3a7 7 0 1 0 0 14 7 7 0 0 0 0-14z", "M8 8.200A2 2 0 0 1 10 6.500c1.200 0 2.100.8 2.100 1.900 0 1.500-2.100 1.700-2.100 3.200M10 13.700v.1"],
  search: ["M9 4a5 5 0 1 0 0 10A5 5 0 0 0 9 4zM12.700 12.700l3.800 3.800"],
  zoom: ["M3.500 7V4.500a1 1 0 0 1 1-1H7M13 3.500h2.500a1 1 0 0 1 1 1V7M16.500 13v2.500a1 1 0 0 1-1 1H13M7 16.500H4.500a1 1 0 0 1-1-1V13", "M10 8.200a1.800 1.800 0 1 0 0 3.600 1.800 1.800 0 0 0 0-3.600z"],
  home: ["M3.500 7V4.500a1 1 0 0 1 1-1H7M13 3.500h2.500a1 1 0 0 1 1 1V7M16.500 13v2.500a1 1 0 0 1-1 1H13M7 16.500H4.500a1 1 0 0 1-1-1V13"],
  delete: ["M4 5.500h12M8 5.500V4a.800.800 0 0 1 .8-.8h2.400a.800.800 0 0 1 .8.8v1.500M5.500 5.500l.6 9.700a1.300 1.300 0 0 0 1.300 1.300h5.200a1.300 1.300 0 0 0 1.300-1.300l.6-9.700M8.500 8.700v4.600M11.500 8.700v4.600"],
  tidy: ["M8 5.500a5 5 0 1 0 0 9 5 5 0 0 0 0-9z", "M15 5.500v.1M16.500 9.500v.1M15 14.500v.1", "M5.700 10.200 7.300 11.800 10.300 8.400"],
  edit: ["M12.500 4.500l3 3L7 16l-3.500.5L4 13z"],
  close: ["M5.500 5.500l9 9M14.500 5.500l-9 9"],
  down: ["M6 8l4 4 4-4"],
  warning: ["M10 3.500 17.500 16h-15zM10 8v4M10 13.800v.1"],
  check: ["M4.500 10.500 8.500 14.500 15.500 6"],
} as const;

export type Icon = keyof typeof ICONS;

export function icon(name: Icon): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  for (const line of ICONS[name]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", line.replace("*", ""));
    if (line.startsWith("*")) path.setAttribute("class", "solid");
    svg.append(path);
  }
  return svg;
}

/** A square button with an icon. `title` says what it does, with its key. */
export function iconButton(name: Icon, title: string, testid: string, click: () => void): HTMLButtonElement {
  const props = { type: "button", class: "icon-button", title, "aria-label": title, testid };
  return h("button", { ...props, on: { click } }, icon(name));
}

/** Replace what is inside an element, unless it is the same already. */
export function fill(element: Element, ...children: Child[]): void {
  element.replaceChildren(...children.filter((each): each is Node | string => !!each));
}
