import { fail, NoetherflowError } from "../errors.ts";
import type { Figure } from "../experiments/experiment.ts";
import { figureSVG } from "./standalone.ts";

/** What draws, and the fonts it draws with: those of a package, so that the machine needs none. */
interface Drawing {
  readonly Resvg: typeof import("@resvg/resvg-wasm").Resvg;
  readonly fonts: Uint8Array[];
}

const FAMILY = "DejaVu Sans";
const FONTS = [400, 700].map(
  (weight) => `@fontsource/dejavu-sans/files/dejavu-sans-latin-${weight}-normal.woff2`,
);

let drawing: Promise<Drawing> | undefined;

/**
 * A figure as a PNG file, in Node.
 *
 * @throws NoetherflowError "unsupported" where the optional packages @resvg/resvg-wasm and @fontsource/dejavu-sans are not
 *   installed, and in browsers, which draw `figureSVG` themselves
 */
export async function figurePNG(
  figure: Figure,
  { scale = 2 }: { readonly scale?: number } = {},
): Promise<Uint8Array> {
  if (!(scale >= 0.1 && scale <= 8)) fail("range", "figurePNG", "scale must be in [0.1, 8]", String(scale));
  drawing ??= prepare();
  const { Resvg, fonts } = await drawing;
  const resvg = new Resvg(figureSVG(figure), {
    fitTo: { mode: "zoom", value: scale },
    font: { fontBuffers: fonts, defaultFontFamily: FAMILY, sansSerifFamily: FAMILY },
  });
  const image = resvg.render();
  try {
    return image.asPng();
  } finally {
    image.free();
    resvg.free();
  }
}

/** Why `figurePNG` cannot work here, in a sentence, or nothing where it can. */
export async function whyNoPNG(): Promise<string | undefined> {
  drawing ??= prepare();
  return drawing.then(
    () => undefined,
    (error: unknown) => {
      if (error instanceof NoetherflowError) return error.message;
      throw error;
    },
  );
}

async function prepare(): Promise<Drawing> {
  const builtin = globalThis.process?.getBuiltinModule;
  if (builtin === undefined)
    return fail("unsupported", "figurePNG", "PNG files are made in Node 20.16 or newer");
  const { createRequire } = builtin("node:module");
  const { readFile } = builtin("node:fs/promises");
  const require = createRequire(import.meta.url);
  const read = (name: string) => readFile(require.resolve(name));
  try {
    const { initWasm, Resvg } = await import("@resvg/resvg-wasm");
    const fonts = await Promise.all(FONTS.map(async (name) => new Uint8Array(await read(name))));
    await initWasm(await read("@resvg/resvg-wasm/index_bg.wasm"));
    return { Resvg, fonts };
  } catch (error) {
    return fail(
      "unsupported",
      "figurePNG",
      "PNG files need the packages @resvg/resvg-wasm and @fontsource/dejavu-sans",
      (error as Error).message.split("\n")[0],
      "Install them: npm install @resvg/resvg-wasm @fontsource/dejavu-sans",
    );
  }
}
