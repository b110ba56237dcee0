import { defineConfig } from "vite";

export default defineConfig({
  base: "./", // the built page works in any folder of a server
  build: { assetsInlineLimit: 0 }, // no data: addresses, for the policy below
  worker: { format: "es" },
  preview: {
    // all that the built page needs: its own files, and leave to compile Wasm
    headers: { "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'" },
  },
});
