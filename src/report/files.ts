import type { Result } from "../experiments/experiment.ts";
import { figurePNG, whyNoPNG } from "./png.ts";
import { figureSVG } from "./standalone.ts";

/** The figures of a result as files by name: figure-1.svg, and figure-1.png where `whyNoPNG` has no reason against. */
export async function figureFiles({
  figures,
}: Pick<Result, "figures">): Promise<Map<string, string | Uint8Array>> {
  const files = new Map<string, string | Uint8Array>();
  const pictures = (await whyNoPNG()) === undefined;
  for (const [i, figure] of figures.entries()) {
    files.set(`figure-${i + 1}.svg`, figureSVG(figure));
    if (pictures) files.set(`figure-${i + 1}.png`, await figurePNG(figure));
  }
  return files;
}
