// Plain JavaScript in a process of its own; bench/job.mjs forks it. Argument: JSON of the side. Does the steps of a message when
// it comes, and answers with their time.
import { nets } from "./nets.mjs";
import { checksum, programs } from "./plain.mjs";

const { kind, net, sizes, S, N } = JSON.parse(process.argv[2]);
const { data, theta } = nets[net](sizes);
const program = programs[kind](sizes, S, data(N), theta);

process.on("message", ({ steps, eta }) => {
  const before = process.cpuUsage();
  const start = performance.now();
  program.run(steps, eta);
  const ms = performance.now() - start;
  const { user, system } = process.cpuUsage(before);
  process.send({ ms, cpuMs: (user + system) / 1000, checksum: checksum(program.theta()) });
});
