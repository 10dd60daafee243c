// Follows a search through the server that the page came from: asks for what is new, and shows it.
const PACE_MS = 2000, SLOW_MS = 10000;
let shown = null, compared = null, asking = false, known = "";
const ask = async (what, wanted = {}) => {
  const answer = await fetch(what + "?" + new URLSearchParams(wanted), { cache: "no-store", credentials: "omit", redirect: "error" });
  if (!answer.ok) throw new Error((await answer.text()).slice(0, 300));
  return answer.json();
};
const model = view => ({ view, epoch: "", cursor: 0, revision: -1, tree: "", columns: new Map(), data: { points: {}, tree: [], n_family: 0 } });

// Bring a model up to date; says whether anything of it is new.
async function follow(m, points) {
  let news = false, newTree = false, answer;
  do {
    answer = await ask("data", { view: m.view, epoch: m.epoch, cursor: m.cursor, revision: m.revision, tree: m.tree, points: points ? 1 : 0 });
    if (answer.problem) return { problem: answer.problem };
    if (answer.epoch !== m.epoch) { m.columns = new Map(); m.data.points = { id: [], number: [], column: [], score: [], fuel: [] }; news = true; }
    for (const column of answer.columns) { m.columns.set(column.label, column); news = true; }
    const P = answer.points, own = m.data.points;
    P.place.forEach((place, k) => { for (const key of Object.keys(own)) own[key][place] = P[key][k]; news = true; });
    if (answer.tree) { m.data.tree = answer.tree.members; m.data.n_family = answer.tree.n_family; m.tree = answer.tree.tag; newTree = news = true; }
    Object.assign(m, { epoch: answer.epoch, cursor: answer.cursor, revision: answer.revision });
    if (news || answer.head.outcome !== m.data.outcome) news = true;
    Object.assign(m.data, answer.head, { columns: [...m.columns.values()].sort((a, b) => a.label - b.label) });
  } while (answer.more);
  return { news, newTree };
}

async function choices() {
  const { views } = await ask("views"), text = JSON.stringify(views);
  if (text === known) return;
  known = text;
  for (const [box, first] of [[$("view"), null], [$("other"), "nothing"]]) {
    const before = box.value;
    box.replaceChildren(...(first ? [el("option", { value: "" }, first)] : []), ...views.map(v => el("option", { value: v.view }, v.label)));
    if ([...box.options].some(o => o.value === before)) box.value = before;
  }
}

function compare() {
  $("compared").hidden = !other;
  if (!other) return;
  const doubts = [];
  if (other.task !== D.task) doubts.push("They have different tasks, so their scores cannot be compared.");
  if (other.column_name !== D.column_name) doubts.push("Only one of them has generations, so the chart shows one.");
  $("compared-about").textContent = doubts.join(" ");
  const rows = factsOf(D), theirs = new Map(factsOf(other));
  $("compared-table").replaceChildren(el("tr", {}, el("th"), el("th", { class: "n" }, D.title), el("th", { class: "n" }, other.title)), ...rows.map(([name, value]) => el("tr", {}, el("td", {}, name), el("td", { class: "n" }, value), el("td", { class: "n" }, theirs.get(name)))));
}

function status(kind, text) { $("status").className = "dim " + kind; $("status").textContent = text; }
let before = null; // evaluations and moment of the last look, for the pace
function pace() {
  const now = performance.now(), last = before; before = { n: D.n_evaluations, at: now, view: shown.view };
  const rate = last && last.view === shown.view ? Math.max(0, (D.n_evaluations - last.n) / ((now - last.at) / 1000)) : null;
  const where = byGeneration() ? `generation ${num(D.generation)}, ` : "";
  if (D.outcome === "open") status("on", `running: ${where}${num(D.n_evaluations)} evaluations` + (rate === null ? "" : `, ${num(+rate.toPrecision(3))} per second`));
  else status(D.outcome === "killed" ? "bad" : "", (D.outcome === "killed" ? "the engine was killed" : "over") + `: ${where}${num(D.n_evaluations)} evaluations`);
}

async function look() {
  if (asking) return;
  asking = true;
  const mine = shown, rival = compared;
  try {
    await choices();
    const first = await follow(mine, true), second = rival ? await follow(rival, false) : {};
    if (mine !== shown || rival !== compared) return;
    if (first.problem || second.problem) { status("bad", first.problem || second.problem); return; }
    const dropped = other && !rival; other = rival ? rival.data : null;
    if (first.news || second.news || dropped) { show(mine.data, { newTree: first.newTree || !$("tree").firstChild }); compare(); }
    pace();
    document.documentElement.dataset.looks = 1 + +(document.documentElement.dataset.looks || 0);
  } catch (error) {
    status("bad", error instanceof TypeError ? "The server does not answer; is evocell dashboard still running?" : String(error.message || error));
  } finally {
    asking = false;
    document.documentElement.dataset.ready = "yes";
  }
}
function choose() {
  shown = model($("view").value || "search"); compared = $("other").value ? model($("other").value) : null;
  chosen = null; picked = false; shownBest = null; moved = false; before = null; $("card").replaceChildren(); $("tree").replaceChildren();
  const wait = () => asking ? setTimeout(wait, 30) : look();
  wait();
}
function rhythm() {
  const slow = document.hidden || (D && D.outcome !== "open");
  setTimeout(async () => { await look(); rhythm(); }, slow ? SLOW_MS / (document.hidden ? 1 : 2) : PACE_MS);
}
if (given.live) {
  details = async number => { const { member } = await ask("member", { view: shown.view, number }); return member; };
  canOpen = () => true;
  $("live").hidden = false; $("title").textContent = given.title; shown = model("search");
  $("view").onchange = $("other").onchange = choose;
  addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
  look().then(rhythm);
}
