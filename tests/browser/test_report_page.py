"""The report's page in a real browser: ten thousand individuals, both themes, every click."""

import random

import pytest

from evocell.cli.report import write_report
from evocell.models.fitness import FitnessResult
from evocell.models.state import SandboxState
from evocell.store.database import FILE_NAME
from evocell.store.journal import Journal
from evocell.store.lineage import LineageTracker
from evocell.store.runs import open_run
from evocell.store.store import Store

GENERATIONS, SIZE = 100, 100
EVIL = "</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Write the page of a made-up run, with a store as an engine would have written it."""
    place = tmp_path_factory.mktemp("run")
    chance = random.Random(1)
    with Store(place / FILE_NAME, durable=False) as store:
        run = open_run(store, image_id="0123456789abcdef", has_version=lambda _: True)
        journal = Journal(store, run.number)
        lineage = LineageTracker(journal)
        alive = []
        for generation in range(GENERATIONS):
            born = []
            for place_in_it in range(SIZE):
                name = f"g{generation:02}-{place_in_it:03}"
                parents = [chance.choice(alive) for _ in range(chance.choice((1, 2)))] if alive else []
                ids = tuple(dict.fromkeys(parent for parent, _ in parents))
                number = lineage.record(
                    name, ids, generation=generation, mutation_type="mutation", kept=False
                )
                state = SandboxState(name, generation=generation, parent_ids=ids, mutation_type="mutation")
                journal.state(number, state, kept=False)
                score = max([score for _, score in parents], default=0.0) + chance.gauss(0, 0.1)
                valid = chance.random() > 0.1
                version = f"{number:064x}"
                journal.source(
                    version, [("program.py", f"# {EVIL}\nscore = {score}\nborn = {name!r}\n".encode())]
                )
                born.append((number, name, score, valid, version))
            batch = journal.begin_batch(
                "evaluate", [one[0] for one in born], entry="program:solve", task="t", direction="maximize"
            )
            for number, name, score, valid, version in born:
                result = FitnessResult(
                    name,
                    generation,
                    score if valid else 0.0,
                    valid=valid,
                    reason=None if valid else chance.choice(("fuel", "raised", "syntax")),
                    fuel_used=int(10 ** chance.uniform(6, 9)),
                    evaluation_time_ms=5.0,
                )
                journal.evaluated(batch, number, result, version)
            journal.end_batch(batch, "done")
            ranked = sorted(((one[1], one[2]) for one in born if one[3]), key=lambda one: -one[1])
            alive = ranked[:20]
        run.close()
    out = place / "report.html"
    write_report(place, out, title="Ten <thousand>")
    return out


@pytest.fixture
def opened(browser, page):
    browser.open(page)
    yield browser
    assert browser.complaints() == []


def test_it_draws_everything_and_asks_the_network_for_nothing(opened):
    assert opened.run("return document.title") == "Ten <thousand>"
    assert "10,000" in opened.text("#facts")
    assert opened.run("return performance.getEntriesByType('resource').length") == 0
    for chart in ("#fitness svg polyline", "#deaths svg rect", "#cost svg rect", "#tree .node circle"):
        assert opened.run("return document.querySelectorAll(arguments[0]).length", chart) > 0, chart
    inked = """
        const c = document.querySelector("#scatter canvas"), d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
        let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n / (d.length / 4);
    """
    assert 0.01 < opened.run(inked) < 0.9
    assert opened.run("return document.documentElement.scrollWidth <= innerWidth")


def test_each_node_opens_its_source_and_the_difference_from_its_parent(opened):
    assert "Diff from" in opened.text("#card")
    other = opened.run("return document.querySelector('#tree .node:not(.on)[data-number]').dataset.number")
    before = opened.text("#card h3")
    opened.run(
        "document.querySelector(`#tree .node[data-number='${arguments[0]}']`).dispatchEvent(new MouseEvent('click'))",
        other,
    )
    assert opened.text("#card h3") != before
    opened.run("document.querySelector('#card .tabs button').click()")
    assert "score = " in opened.text("#card pre")
    assert EVIL in opened.text("#card pre")
    assert opened.run("return document.querySelectorAll('#card img').length") == 0
    opened.click("#top button")
    opened.run("document.querySelectorAll('#card .tabs button')[1].click()")
    assert opened.run("return document.querySelectorAll('#card pre .add, #card pre .del').length") >= 2
    parent = opened.text("#card table button")
    opened.click("#card table button")
    assert opened.text("#card h3") == parent


def test_the_tree_zooms_moves_and_can_be_cut_down_to_one_line(opened):
    where = "return document.querySelector('#tree g').getAttribute('transform')"
    begun = opened.run(where)
    opened.click("#fit")
    first = opened.run(where)
    assert first != begun  # a tall tree begins at the best
    opened.click("#in")
    closer = opened.run(where)
    assert closer != first
    opened.run("""
        const t = document.getElementById("tree");
        t.dispatchEvent(new WheelEvent("wheel", {deltaY: -200, clientX: 200, clientY: 600, cancelable: true}));
    """)
    assert opened.run(where) != closer
    opened.click("#fit")
    assert opened.run(where) == first
    n_nodes = "return document.querySelectorAll('#tree .node').length"
    many = opened.run(n_nodes)
    assert many <= 600
    opened.click("#line")
    assert opened.run(n_nodes) == 100 < many


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_greener_is_fitter_whichever_way_is_better(opened, direction):
    nodes = opened.run(
        """
        less = arguments[0] === "minimize"; tree();
        return [...document.querySelectorAll("#tree .node")].map(n => {
            const m = byNumber.get(+n.dataset.number), hue = /hsl[(]([0-9.]+)/.exec(n.querySelector("circle").getAttribute("fill"));
            return m.valid && hue ? [m.score, +hue[1]] : null;
        }).filter(Boolean)
        """,
        direction,
    )
    nodes.sort(key=lambda one: one[0] if direction == "maximize" else -one[0])
    hues = [hue for _, hue in nodes]
    assert hues == sorted(hues)
    assert hues[0] == 8  # red
    assert hues[-1] == 143  # green


def test_a_key_opens_a_node(opened):
    opened.run("""
        const node = document.querySelector("#tree .node:not(.on)"); node.focus();
        node.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"}));
    """)
    focused = opened.run("return document.activeElement.getAttribute('aria-label')")
    assert focused.startswith(opened.text("#card h3"))


def test_both_themes_can_be_read(opened):
    contrast = """
        const rgb = s => s.match(/[0-9.]+/g).slice(0, 3).map(v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
        const light = c => .2126 * c[0] + .7152 * c[1] + .0722 * c[2];
        const of = e => { const s = getComputedStyle(e); let b = e; while (getComputedStyle(b).backgroundColor === "rgba(0, 0, 0, 0)") b = b.parentElement;
            const l = [light(rgb(s.color)), light(rgb(getComputedStyle(b).backgroundColor))].sort((x, y) => y - x); return (l[0] + .05) / (l[1] + .05); };
        return Math.min(...["h1", ".dim", "#card td", "#card pre", "button"].map(q => of(document.querySelector(q))));
    """
    pictures = []
    for _ in range(2):
        assert opened.run(contrast) >= 4.5
        pictures.append(opened.screenshot())
        opened.click("#theme")
    assert pictures[0] != pictures[1]
    assert all(len(picture) > 20_000 for picture in pictures)


def test_pointing_at_a_chart_says_what_is_there(opened):
    opened.run("""
        const box = document.getElementById("fitness"), r = box.getBoundingClientRect();
        box.dispatchEvent(new PointerEvent("pointermove", {clientX: r.left + r.width / 2, clientY: r.top + 50}));
    """)
    assert "generation" in opened.text("#fitness .tip")
    assert "median" in opened.text("#fitness .tip")
