// Annotations from files and to files.

import type { Actions } from "../actions";
import { Refusal, type Api } from "../api";
import { h, iconButton } from "../dom";
import type { State } from "../state";
import { menu } from "./menu";
import type { Toasts } from "./toasts";

export function exchange(state: State, actions: Actions, api: Api, toasts: Toasts): HTMLElement[] {
  const chooser = h("input", { type: "file", class: "chooser", tabindex: -1, testid: "import-file", "aria-label": "File to import" });
  const take = iconButton("import", "Import annotations (or drop a file on the slide)", "import", () => chooser.click());
  const give = iconButton("export", "Export annotations", "export", () => {});
  chooser.addEventListener("change", () => {
    const file = chooser.files?.[0];
    if (file) void importFile(file);
    chooser.value = "";
  });

  menu(give, "export-menu", (close) => [
    h("p", {}, "Export this slide's annotations as"),
    ...(state.now.info?.formats ?? []).map((each) =>
      h(
        "button",
        { type: "button", testid: `export-${each.name}`, on: { click: () => (void exportAs(each.name), close()) } },
        h("span", {}, each.title),
        h("small", {}, each.suffix),
      ),
    ),
  ]);
  dropping((file) => void importFile(file), () => state.now.slide !== null);
  state.watch(["slide"], ({ slide }) => {
    take.disabled = give.disabled = slide === null;
  });

  async function importFile(file: File): Promise<void> {
    const { slide } = state.now;
    if (!slide) return;
    try {
      const { notes, objects } = await api.import(slide.id, file);
      await actions.refresh();
      const many = objects.length === 1 ? "one object" : `${objects.length} objects`;
      toasts.show("done", `Imported ${many} from ${file.name}.`, notes);
    } catch (error) {
      toasts.show("trouble", reason(error));
    }
  }

  async function exportAs(format: string): Promise<void> {
    const { slide } = state.now;
    if (!slide) return;
    try {
      const { file, name, notes } = await api.export(slide.id, format);
      const link = h("a", { href: URL.createObjectURL(file), download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
      const said = notes.length > 0 ? `Exported ${name}. This format could not hold everything:` : `Exported ${name}.`;
      toasts.show("done", said, notes);
    } catch (error) {
      toasts.show("trouble", reason(error));
    }
  }
  return [take, give, chooser];
}

export function reason(error: unknown): string {
  return error instanceof Refusal ? error.message : `Something went wrong in the viewer: ${String(error)}`;
}

/** Files dropped anywhere on the page. */
function dropping(take: (file: File) => void, open: () => boolean): void {
  const holds = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
  let depth = 0;
  const mark = (by: number) => {
    depth = Math.max(0, depth + by);
    document.body.classList.toggle("dropping", depth > 0 && open());
  };
  addEventListener("dragenter", (event) => holds(event) && mark(1));
  addEventListener("dragleave", (event) => holds(event) && mark(-1));
  addEventListener("dragover", (event) => holds(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!holds(event)) return;
    event.preventDefault();
    mark(-depth);
    if (open()) for (const file of event.dataTransfer?.files ?? []) take(file);
  });
}
