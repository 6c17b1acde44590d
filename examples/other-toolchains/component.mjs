// component.mjs javascript SOURCE OUT       a wasi:http component of a JavaScript source
// component.mjs module CORE WIT OUT         a component of a core module, such as a C compiler's
//
// Run from the folder that the packages are installed in; paths are absolute.

import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { componentize } from "@bytecodealliance/componentize-js";
import { componentEmbed, componentNew } from "@bytecodealliance/jco";

// The engine of componentize-js speaks the first, the interface texts that come with jco are of the
// second. Renumbered, they build, validate and answer; nothing more is known of how they differ.
const ENGINE = "0.2.10", TEXTS = "0.2.12";

async function javascript(source, out) {
  const wit = await mkdtemp(join(tmpdir(), "wit-"));
  try {
    const jco = dirname(dirname(fileURLToPath(import.meta.resolve("@bytecodealliance/jco"))));
    await cp(join(jco, "lib/wit/builtin", TEXTS), join(wit, "deps"), { recursive: true });
    for (const name of await readdir(wit, { recursive: true })) {
      if (!name.endsWith(".wit")) continue;
      const text = await readFile(join(wit, name), "utf8");
      await writeFile(join(wit, name), text.replaceAll(TEXTS, ENGINE));
    }
    const world = `package example:greet; world greet { export wasi:http/incoming-handler@${ENGINE}; }`;
    await writeFile(join(wit, "world.wit"), world);
    const { component } = await componentize({ sourcePath: source, witPath: wit, worldName: "greet" });
    await writeFile(out, component);
  } finally {
    await rm(wit, { recursive: true });
  }
}

async function module(core, wit, out) {
  const [binary, witSource] = [await readFile(core), await readFile(wit, "utf8")];
  await writeFile(out, await componentNew(await componentEmbed({ binary, witSource })));
}

const [what, ...paths] = process.argv.slice(2);
await { javascript, module }[what](...paths);
