// Makes docs/gallery/ from a report: `npm start`, then `node tools/gallery.mjs [report folder]`.
// The figures, which are in its report.json, as SVG files; and, where there is Chromium, pictures of the report itself.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { figureSVG } from "../dist/report.js";

/** Pixels of the report that a picture shows, from its top, by width: some 400 kB at most. */
const HEIGHTS = { 390: 2400, 1280: 1650 };

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = resolve(process.argv[2] ?? join(root, "noetherflow-report"));
const gallery = join(root, "docs/gallery");
const chromium = process.env.CHROMIUM_PATH || "/usr/bin/chromium";

function write(name, content) {
  const path = join(gallery, name);
  writeFileSync(path, content);
  console.log(`${path.slice(root.length)}  ${Math.ceil(content.length / 1024)} kB`);
}

async function picture(browser, colorScheme, width) {
  const page = await browser.newPage({ colorScheme, viewport: { width, height: 900 } });
  await page.goto(pathToFileURL(join(folder, "report.html")).href);
  // as high as the picture, so that what sticks to the window stands where a reader sees it
  await page.setViewportSize({ width, height: HEIGHTS[width] });
  const picture = await page.screenshot();
  await page.close();
  return picture;
}

mkdirSync(gallery, { recursive: true });
const { experiments } = JSON.parse(readFileSync(join(folder, "report.json"), "utf8"));
for (const { id, figures } of experiments) {
  for (const [i, figure] of figures.entries()) {
    write(`${id.toLowerCase()}${i === 0 ? "" : `-${i + 1}`}.svg`, figureSVG(figure));
  }
}
if (existsSync(chromium)) {
  const { chromium: browserType } = await import("playwright");
  const browser = await browserType.launch({
    executablePath: chromium,
    args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
  });
  try {
    for (const scheme of ["light", "dark"]) {
      for (const width of Object.keys(HEIGHTS).map(Number))
        write(`report-${scheme}-${width}.png`, await picture(browser, scheme, width));
    }
  } finally {
    await browser.close();
  }
} else console.log(`no pictures of the report: no Chromium at ${chromium}`);
