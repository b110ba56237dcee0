/** Where the optional packages that draw PNG files are not installed: a sentence, and all else goes on. */
import { expect, test, vi } from "vitest";
import { figureFiles, figurePNG, whyNoPNG } from "../../src/report/report.ts";
import { madeUp } from "../helpers/report.ts";

vi.mock("@resvg/resvg-wasm", () => {
  throw new Error("Cannot find package '@resvg/resvg-wasm'");
});

test("without them there are SVG files and a sentence that says what to install", async () => {
  const { figures } = madeUp();
  expect(await whyNoPNG()).toMatch(
    /^figurePNG: PNG files need the packages @resvg\/resvg-wasm and @fontsource\/dejavu-sans, got .* npm install @resvg\/resvg-wasm @fontsource\/dejavu-sans$/,
  );
  await expect(figurePNG(figures[0]!)).rejects.toMatchObject({ code: "unsupported" });
  expect([...(await figureFiles({ figures })).keys()]).toEqual([
    "figure-1.svg",
    "figure-2.svg",
    "figure-3.svg",
  ]);
});
