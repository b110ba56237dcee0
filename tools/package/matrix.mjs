// The table of what was tried: cells that pass, fail or were not tried, and numbers beside them.

const start = performance.now();

/** Thrown by a cell that this machine cannot try; in continuous integration that counts as a failure. */
export class NotTried extends Error {}

/** Cells in the order in which they ended. */
export class Matrix {
  #cells = [];
  numbers = [];

  /** Runs one cell; what it returns is the note beside it. Never throws: a cell that fails stops no other. */
  async cell(group, name, work) {
    const began = performance.now();
    const cell = { group, name, status: "pass", seconds: 0, note: "" };
    try {
      cell.note = (await work()) ?? "";
    } catch (error) {
      cell.status = error instanceof NotTried && process.env.CI !== "true" ? "not tried" : "FAIL";
      cell.note = error.message;
    }
    cell.seconds = Math.round(performance.now() - began) / 1000;
    this.#cells.push(cell);
    const at = ((performance.now() - start) / 1000).toFixed(0).padStart(4);
    console.log(`${at} s  ${cell.status.padEnd(9)}  ${group}: ${name}`);
    if (cell.status === "FAIL") console.error(cell.note.replace(/^/gm, "        "));
    return cell.status === "pass";
  }

  /** A size or a time. One with a limit is a cell too: it fails above the limit. */
  async number(name, value, unit, { limit, goal, reason = "" } = {}) {
    this.numbers.push({ name, value, unit, limit, goal, reason });
    if (limit === undefined) return;
    await this.cell("sizes", name, () => {
      const text = `${round(value)} ${unit}`;
      if (value > limit) throw new Error(`${text} is more than ${limit} ${unit}: ${reason}`);
      return text;
    });
  }

  get failed() {
    return this.#cells.filter((cell) => cell.status === "FAIL");
  }

  toJSON() {
    const { cells, numbers } = { cells: this.#sorted(), numbers: this.numbers };
    return { passed: this.failed.length === 0, seconds: (performance.now() - start) / 1000, cells, numbers };
  }

  print() {
    const lines = this.#sorted()
      .filter(({ group }) => group !== "sizes")
      .map(({ group, name, status, note }) => [group, name, status, note.split("\n")[0]]);
    printTable(["", "cell", "result", ""], lines);
    console.log();
    const sizes = this.numbers.map(({ name, value, unit, limit, goal }) => [
      name,
      `${round(value)} ${unit}`,
      limit === undefined ? "" : `${value > limit ? "ABOVE" : "at most"} ${limit}`,
      goal === undefined
        ? ""
        : value <= goal
          ? `goal ${goal} met`
          : `goal ${goal}, ${round(value - goal)} over`,
    ]);
    printTable(["number", "value", "limit", "goal"], sizes);
    const { seconds } = this.toJSON();
    const skipped = this.#cells.filter((cell) => cell.status === "not tried").length;
    console.log(
      `\npackage: ${this.failed.length === 0 ? "passed" : "FAILED"}; ${this.#cells.length - this.failed.length - skipped} cells passed, ` +
        `${this.failed.length} failed, ${skipped} not tried; ${seconds.toFixed(0)} s`,
    );
    for (const { group, name } of this.failed) console.log(`package: FAILED ${group}: ${name}`);
  }

  /** By group, groups in the order in which their first cell ended. */
  #sorted() {
    const groups = [...new Set(this.#cells.map((cell) => cell.group))];
    return groups.flatMap((group) => this.#cells.filter((cell) => cell.group === group));
  }
}

/** Three digits, and every digit before the point. */
function round(value) {
  return value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

function printTable(head, rows) {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i].length)));
  for (const row of [head, widths.map((w) => "-".repeat(w)), ...rows])
    console.log(
      row
        .map((text, i) => (i === row.length - 1 ? text : text.padEnd(widths[i])))
        .join("  ")
        .trimEnd(),
    );
}
