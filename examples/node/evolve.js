// Evolves a small formula with evocell: a population, hot reloads, scores found here, events, a clear error.
//
//   npm ci && node evolve.js            # with `evocell` on the PATH
//   EVOCELL=../../.venv/bin/evocell node evolve.js

import { start } from "./evocell.js";

const GENERATIONS = 40;
const SIZE = 16;
const CASES = [-3, 0, 2, 5].map((x) => ({ args: [x], expected: 6 * x * x - 11 }));

let seed = 12345;
const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
const change = () => Math.round((random() - 0.5) * 6);
const source = ([a, b]) => `def solve(x):\n    return ${a} * x * x + ${b}\n`;
const formula = ([a, b]) => `${a} x² ${b < 0 ? "-" : "+"} ${Math.abs(b)}`;
const mutate = (genes) => genes.map((gene) => (random() < 0.7 ? gene + change() : gene));

// The expected answers never leave this process: the server asks with the number of a case and what the
// sandboxed function returned.
const evaluation = {
  entry: "solve",
  cases: CASES.map(({ args }) => ({ args })),
  score: (index, value) => -Math.abs(value - CASES[index].expected),
  isolation: "candidate", // all cases of an individual in one fork
  failure: -1e9, // scores are negative here, so a failure must not count as 0
};

const engine = await start({ command: process.env.EVOCELL ?? "evocell" });
engine.on("image.progress", ({ step, fraction }) => console.log(`image: ${step}, ${Math.round(100 * fraction)} %`));
let births = 0;
engine.on("event", ({ name }) => (births += name === "sandbox.create.stop" ? 1 : 0));
await engine.subscribe({ prefix: "sandbox.create" });

let genes = Array.from({ length: SIZE }, () => [change(), change()]);
const ids = await engine.batch_create({
  specs: genes.map((one) => ({ source: source(one), population: "formulas" })),
});
let record = -Infinity;
for (let generation = 0; generation < GENERATIONS; generation++) {
  const results = await engine.batch_evaluate({ ids, fitness: evaluation });
  const order = results.map((result, index) => [result.fitness_score, index]).sort(([a], [b]) => b - a);
  const [score, first] = order[0];
  if (score > record) console.log(`generation ${generation}: off by ${(-score).toFixed(1)} with ${formula(genes[first])}`);
  record = Math.max(record, score);
  if (score === 0) break;
  const best = order.slice(0, SIZE / 2).map(([, index]) => index);
  const worst = order.slice(SIZE / 2).map(([, index]) => index);
  for (const [place, index] of worst.entries()) {
    genes[index] = mutate(genes[best[place]]);
    const outcome = await engine.hot_reload_source({ id: ids[index], source: source(genes[index]) });
    if (!outcome.ok) throw new Error(outcome.error);
  }
}

const hostile = await engine.run({ id: ids[0], entry: "solve", args: [1], limits: { fuel: 1000 } });
console.log(`a call with too little fuel: ${hostile.error}`);
try {
  await engine.run({ id: ids[0], entry: "solve", isolation: "both" });
} catch (error) {
  console.log(`bad input: ${error.code}: ${error.message}`);
}
console.log(`${births} sandboxes were created, ${(await engine.list_sandboxes({ population: "formulas" })).length} are alive`);
await engine.close();
console.log("closed");
