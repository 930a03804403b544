import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { join, relative } from "node:path";
import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

/** The licences of all packages whose code is in the bundle, as LICENSES.txt beside it: their authors ask for that. */
function licences(): Plugin {
  return {
    name: "licences",
    generateBundle(_, bundle) {
      const folders = new Set<string>();
      for (const chunk of Object.values(bundle))
        if (chunk.type === "chunk")
          for (const id of chunk.moduleIds) {
            const found = /^\0?(.*\/node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(id);
            if (found?.[1]) folders.add(found[1]);
          }
      const names = new Map<string, string[]>(); // equal texts stand once
      for (const folder of folders) {
        const { name, version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
        const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
        const text = file ? readFileSync(join(folder, file), "utf8").trim() : license;
        names.set(text, [...(names.get(text) ?? []), `${name} ${version} (${license})`]);
      }
      const found = [...names].map(([text, packages]) => `${packages.sort().join("\n")}\n\n${text}\n`);
      this.emitFile({ type: "asset", fileName: "LICENSES.txt", source: found.sort().join(`\n${"-".repeat(80)}\n\n`) });
    },
  };
}

/** A digest of the source, as SOURCES.txt beside what it was built to: a test without Node knows by it when somebody forgot to build. */
function sources(): Plugin {
  const root = import.meta.dirname;
  const files = [
    ...readdirSync(join(root, "src"), { recursive: true, withFileTypes: true }).filter((each) => each.isFile()).map((each) => join(each.parentPath, each.name)),
    ...["index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts"].map((name) => join(root, name)),
  ];
  return {
    name: "sources",
    generateBundle() {
      const lines = files.map((file) => `${createHash("sha256").update(readFileSync(file)).digest("hex")}  ${relative(root, file)}\n`);
      this.emitFile({ type: "asset", fileName: "SOURCES.txt", source: lines.sort().join("") });
    },
  };
}

export default defineConfig({
  base: "/docs/",
  plugins: [react(), licences(), sources()],
  build: {
    outDir: "../src/gen_worker/http/console",
    emptyOutDir: true,
    assetsDir: "",
    target: "es2022",
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 700,
    rolldownOptions: {
      output: { entryFileNames: "console.js", chunkFileNames: "[name].js", assetFileNames: "console[extname]" },
    },
  },
});
