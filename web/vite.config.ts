import { defineConfig } from "vite";

// The page is served by `histoclick annotate`, at any path, and needs no other host. `npm run dev`
// takes the API from a server that runs.
export default defineConfig({
  base: "./",
  build: {
    outDir: "../src/histoclick/server/static",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    license: { fileName: "licences.md" },
    modulePreload: { polyfill: false },
  },
  // the server lets this script, by its name, and no other run WebAssembly
  worker: { format: "es", rolldownOptions: { output: { entryFileNames: "assets/decoding-[hash].js" } } },
  server: { proxy: { "/api": "http://127.0.0.1:8000" } },
});
