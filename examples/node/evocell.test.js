// Run with `npm test`; EVOCELL names the command.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { EvocellError, start } from "./evocell.js";

const command = process.env.EVOCELL ?? "evocell";
const SQUARE = "def solve(x): return x * x";
const CASES = [0, 1, 2].map((x) => ({ args: [x], expected: x * x }));
let engine;

before(async () => {
  engine = await start({ command, args: ["--workers", "1"] });
});
after(() => engine.close());

test("a population is created, reloaded and evaluated", async () => {
  const ids = await engine.batch_create({
    specs: [{ id: "a", source: SQUARE, population: "p" }, { id: "b", source: "def solve(x): return 0", population: "p" }],
  });
  assert.deepEqual(ids, ["a", "b"]);
  const evaluation = { entry: "solve", cases: CASES };
  const [good, bad] = await engine.batch_evaluate({ ids, fitness: evaluation });
  assert.equal(good.fitness_score, 1);
  assert.ok(bad.fitness_score < 1 && bad.valid);
  const outcome = await engine.hot_reload_source({ id: "b", source: SQUARE });
  assert.equal(outcome.type, "Completed");
  assert.equal((await engine.batch_evaluate({ ids: ["b"], fitness: evaluation }))[0].fitness_score, 1);
  assert.equal((await engine.get_info({ id: "b" })).fitness, 1);
  const stopped = await engine.batch_destroy({ ids });
  assert.deepEqual(stopped.map(({ status }) => status), ["stopped", "stopped"]);
});

test("an individual that fails is a result", async () => {
  const [loop, syntax, raised] = await engine.evaluate({
    sources: ["def solve(x):\n    while True: pass", "def solve(x", "def solve(x): return 1 / 0"],
    evaluation: { entry: "solve", cases: CASES, limits: { fuel: 100_000_000 } },
  });
  assert.deepEqual([loop.reason, syntax.reason, raised.reason], ["fuel", "syntax", "raised"]);
  assert.match(raised.error, /ZeroDivisionError/);
});

test("scores are found on this side", async () => {
  const seen = [];
  const result = await engine.evaluate_one({
    source: SQUARE,
    evaluation: {
      entry: "solve",
      cases: CASES.map(({ args }) => ({ args })),
      score: (index, value) => ({ right: value === CASES[index].expected ? 1 : 0, size: 3 }),
      aggregate: (results) => results.reduce((sum, { score }) => sum + score.right, 0),
    },
  });
  assert.equal(result.fitness_score, 3);
  await engine.evaluate({
    sources: [SQUARE, SQUARE],
    evaluation: { entry: "solve", cases: CASES },
    progress: (_result, done, total) => seen.push([done, total]),
  });
  assert.deepEqual(seen, [[1, 2], [2, 2]]);
});

test("a fitness function may use its sandbox", async () => {
  const id = await engine.create_sandbox({ source: SQUARE });
  const [result] = await engine.batch_evaluate({
    ids: [id],
    fitness: async (sandbox) => (await engine.run({ id: sandbox, entry: "solve", args: [5] })).value,
  });
  assert.equal(result.fitness_score, 25);
  await engine.destroy_sandbox({ id });
});

test("results come as they are there", async () => {
  const found = [];
  const params = { sources: [SQUARE, SQUARE, SQUARE], evaluation: { entry: "solve", cases: CASES } };
  for await (const [index, result] of engine.stream("as_completed", params)) {
    assert.ok(result.valid);
    found.push(index);
  }
  assert.deepEqual(found.sort(), [0, 1, 2]);
});

test("events are received, and again from any number", async () => {
  await engine.subscribe({ prefix: "sandbox.create" });
  const first = new Promise((resolve) => engine.once("event", resolve));
  const id = await engine.create_sandbox({ source: SQUARE });
  const event = await first;
  assert.match(event.name, /^sandbox\.create\./);
  await engine.unsubscribe(); // what is on its way comes before the answer
  const again = new Promise((resolve) => engine.once("event", resolve));
  await engine.subscribe({ after: event.seq - 1 });
  assert.deepEqual(await again, event);
  await engine.unsubscribe();
  await engine.destroy_sandbox({ id });
});

test("bad input is a clear error, and nothing is lost", async () => {
  await assert.rejects(engine.run({ id: "nobody", entry: "f" }), (error) => {
    assert.ok(error instanceof EvocellError);
    assert.equal(error.code, "SandboxNotFound");
    assert.equal(error.data.sandbox_id, "nobody");
    return true;
  });
  await assert.rejects(engine.evaluate({ sources: [SQUARE], evaluation: { entry: "solve", cases: [{ arg: 1 }] } }), {
    code: "ConfigurationError",
    message: /evaluation\.cases\[0\] has no field 'arg'; did you mean 'args'/,
  });
  await assert.rejects(engine.runn({ id: "a" }), { code: "MethodNotFound", message: /did you mean 'run'/ });
  await engine.ping();
});

test("a request is withdrawn", async () => {
  const id = await engine.create_sandbox({ source: "def loop():\n    while True: pass" });
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 50);
  await assert.rejects(engine.run({ id, entry: "loop" }, { signal: stop.signal }), { code: "RequestCancelled" });
  await engine.destroy_sandbox({ id });
});

test("values of every kind come through", async () => {
  const id = await engine.create_sandbox({
    source: "import numpy\ndef same(x): return x\ndef odd(): return {1: 'one', '__proto__': 2, 'big': 2**70, 'c': 1j, 't': (1, {2}), 'a': numpy.eye(2)}",
  });
  const value = { n: null, b: true, i: -5, f: 1.5, s: "é", l: [1, [2]], u: 2 ** 40 };
  assert.deepEqual((await engine.run({ id, entry: "same", args: [value] })).value, value);
  const bytes = (await engine.run({ id, entry: "same", args: [Uint8Array.of(0, 255)] })).value;
  assert.deepEqual([...bytes], [0, 255]);
  assert.equal((await engine.run({ id, entry: "same", args: [2n ** 70n] })).value, 2n ** 70n);
  assert.equal((await engine.run({ id, entry: "same", args: [-(2n ** 70n)] })).value, -(2n ** 70n));
  const odd = (await engine.run({ id, entry: "odd" })).value;
  assert.ok(odd instanceof Map);
  assert.equal(odd.get(1), "one");
  assert.equal(odd.get("__proto__"), 2);
  assert.equal(odd.get("big"), 2n ** 70n);
  assert.deepEqual(odd.get("c"), { re: 0, im: 1 });
  assert.deepEqual(odd.get("t"), [1, [2]]);
  assert.deepEqual(odd.get("a"), [[1, 0], [0, 1]]);
  await engine.destroy_sandbox({ id });
});

test("what breaks the rules ends the connection with a reason", async () => {
  const other = await start({ command, args: ["--workers", "1"] });
  const closed = new Promise((resolve) => other.once("closed", resolve));
  other.process.stdin.write(Uint8Array.of(0xc1));
  const reason = await closed;
  assert.equal(reason.code, "ProtocolError");
  await assert.rejects(other.ping(), { code: "ProtocolError" });
  await other.close();
});
