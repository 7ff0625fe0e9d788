"""Pages in a real browser: quick, without a request, by keyboard, accessible, and not to be hurt.

Skipped, by name, where there is no Chromium: Debian's is in the package "chromium".
"""

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest

from pages.many import CARDS, Card, Run, nearest_first, run_pages
from pages.render import clean
from pages.single import search_page
from tests.helpers import picture
from tests.test_pages import HOSTILE, hostile_run

CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium: apt install chromium, or set CHROMIUM"
)
SCHEMES, SIZES = ("light", "dark"), ((1280, 900), (390, 844))
WORDS = ("dog", "cat", "bird", "beach", "snow", "street", "child", "ball", "red", "blue", "night")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser):
    """visit(path) opens a page from its file, and holds it to load nothing and to complain not."""
    contexts = []

    def open_page(path: Path, scheme: str = "light", size: tuple[int, int] = SIZES[0]):
        context = browser.new_context(
            color_scheme=scheme, viewport={"width": size[0], "height": size[1]}
        )
        page = context.new_page()
        page.complaints, page.requests = [], []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("dialog", lambda dialog: page.complaints.append("alert") or dialog.dismiss())
        contexts.append((context, page, path))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context, page, path in contexts:
        assert page.complaints == []
        loaded = [url for url in page.requests if not url.startswith("data:")]
        assert loaded and {url.split("#")[0] for url in loaded} <= {
            other.as_uri() for other in path.parent.iterdir()
        }
        context.close()


class Pictures:
    def by_hash(self, key, side):
        return picture(int(key) % 50, (320, 240))

    def by_number(self, index, side):
        return picture(100 + index % 100, (320, 240))

    def key_of(self, index):
        return None


def neighbor(index: int, caption: str | None) -> dict:
    place = {"original_index": index, "source": caption and "original", "image": f"/p/{index}.jpg"}
    return {"index": index, "similarity": 0.5, "metadata": {"caption": caption, **place}}


def cards(count: int) -> list[Card]:
    made = []
    for number in range(count):
        words = [WORDS[(number * step) % len(WORDS)] for step in (1, 3, 7)]
        made.append(
            Card(
                title=f"Experiment {number}", image=f"/photos/{number}.jpg", key=str(number),
                caption=f"A {' '.join(words)} {number}.", references=["A reference.", "Another."],
                neighbors=[neighbor(5 * number + place, "a caption") for place in range(5)],
                prompt="Describe this image.", facts=[("Model", "tiny")],
                arms=[("none", "one", ["1.0"]), ("retrieved", "two", ["2.0"])],
            )
        )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def run_page(tmp_path_factory) -> Path:
    """A page of CARDS cards."""
    made = cards(CARDS)
    values = [float((number * 37) % CARDS) for number in range(CARDS)]
    run = Run(
        "All experiments", "kicker", "400 of 400", made, nearest_first(made), metrics=["CIDEr"],
        scores=[{"name": "Scores", "heads": ["arm", "CIDEr"], "rows": [["none", "1.0"]]}],
        measures={"CIDEr": {"none": values, "retrieved": [0.0, None] * (CARDS // 2)}},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("run")
    for name, html in run_pages(run, Pictures(), lambda _: "run.html"):
        (folder / name).write_text(html, "utf-8")
    return folder / "run.html"


def shown(page) -> list[str]:
    return page.eval_on_selector_all(
        "#cards > li:not([hidden]) .caption", "all => all.map(one => one.textContent)"
    )


def test_a_page_of_400_cards_is_there_at_once_and_filters_quickly(visit, run_page):
    page = visit(run_page)
    assert run_page.stat().st_size < 6_000_000
    paint = page.evaluate(
        "() => new Promise(done => { const ask = () => { const found = "
        "performance.getEntriesByName('first-contentful-paint')[0]; "
        "found ? done(found.startTime) : setTimeout(ask, 20); }; ask(); })"
    )
    assert paint < 1000
    took = page.evaluate(
        "() => { const box = document.getElementById('find'); const times = [];"
        "for (const text of ['d', 'do', 'dog', 'dog b', '', 'snow']) { box.value = text;"
        "const start = performance.now(); box.dispatchEvent(new Event('input'));"
        "document.body.offsetHeight; times.push(performance.now() - start); } return times; }"
    )
    assert sorted(took)[len(took) // 2] < 50
    assert all("snow" in caption for caption in shown(page)) and shown(page)


def test_the_filter_finds_what_has_all_words(visit, run_page):
    page = visit(run_page)
    page.fill("#find", "dog SNOW")
    expected = [
        card.caption for card in cards(CARDS) if {"dog", "snow"} <= set(card.caption.split())
    ]
    assert shown(page) == expected and page.text_content("#count") == (
        f"{len(expected)} of {CARDS} images"
    )
    page.fill("#find", "experiment 399")
    assert len(shown(page)) == 1
    page.fill("#find", "")
    assert len(shown(page)) == CARDS and page.text_content("#count") == f"{CARDS} images"


def test_the_sort_does_what_it_says(visit, run_page):
    page = visit(run_page)
    captions = [card.caption for card in cards(CARDS)]
    values = [(number * 37) % CARDS for number in range(CARDS)]
    assert not page.is_visible("#arm")
    page.select_option("#sort", label="CIDEr")
    by_value = sorted(range(CARDS), key=lambda number: (-values[number], number))
    assert shown(page) == [captions[number] for number in by_value]
    first = "#cards > li:nth-child(1) .value"
    assert page.text_content(first) == f"{CARDS - 1}.000"
    page.select_option("#minus", label="retrieved")
    assert page.text_content("#cards > li:last-child .value") == "no value"
    measured = [number for number in by_value if number % 2 == 0]
    assert shown(page)[: CARDS // 2] == [captions[number] for number in measured]
    page.select_option("#sort", label="length of the caption, longest first")
    lengths = [len(caption) for caption in shown(page)]
    assert lengths == sorted(lengths, reverse=True) and not page.is_visible("#arm")
    page.select_option("#sort", label="order of the run")
    assert page.text_content(first) == ""
    assert shown(page) == captions


def test_a_card_opens_and_closes_by_keyboard(visit, run_page):
    page = visit(run_page)
    page.focus("#cards > li:nth-child(3) button")
    page.keyboard.press("Enter")
    assert page.is_visible("#detail")
    said = page.inner_text("#detail")
    for text in ("Experiment 2", "A reference.", "retrieved", "Describe this image.", "tiny"):
        assert text.lower() in said.lower()
    assert page.locator("#detail .neighbors img").count() == 5
    assert page.evaluate("document.activeElement.textContent") == "Close"
    page.keyboard.press("Escape")
    assert not page.is_visible("#detail")
    assert page.evaluate("document.activeElement.closest('li').dataset.card") == "2"


def wait_for_picture(page, image: str) -> None:
    """Asks again and again: the page's policy forbids the driver to wait in it."""
    until = time.monotonic() + 10
    while page.evaluate(f"{image}.naturalWidth") <= 50:
        assert time.monotonic() < until
        page.wait_for_timeout(50)


def test_pictures_are_shown_where_they_are_looked_at(visit, run_page):
    page = visit(run_page)
    wait_for_picture(page, "document.querySelector('#cards img')")
    last = "document.querySelector('#cards > li:last-child img')"
    assert not page.evaluate(f"{last}.src")
    page.evaluate(f"{last}.scrollIntoView()")
    wait_for_picture(page, last)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES, ids=["wide", "phone"])
def test_pages_are_accessible_and_fit(visit, run_page, tmp_path, scheme, size):
    from axe_playwright_python.sync_playwright import Axe

    found = [neighbor(number, f"caption {number}" if number % 2 else None) for number in range(6)]
    (tmp_path / "search.html").write_text(
        search_page("a red dog", picture(1), "by look", found, Pictures()), "utf-8"
    )
    ((_, hostile),) = run_pages(hostile_run(), Pictures(), lambda _: "hostile.html")
    (tmp_path / "hostile.html").write_text(hostile, "utf-8")
    for path in (run_page, tmp_path / "search.html", tmp_path / "hostile.html"):
        page = visit(path, scheme, size)
        for opened in (False, True):
            if opened and page.locator("#cards button").count():
                page.click("#cards button >> nth=0")
            elif opened:
                continue
            page.wait_for_timeout(250)  # until it has appeared
            result = Axe().run(page)
            assert result.violations_count == 0, result.generate_report()
            assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")


def test_nothing_hostile_runs_or_breaks_the_layout(visit, tmp_path):
    run = hostile_run()
    long = "word " * 10_000 + "w" * 50_000
    run = Run(
        **{**vars(run), "cards": [*run.cards, Card(long, long, "9", long, [long], prompt=long)]}
    )
    ((_, html),) = run_pages(run, Pictures(), lambda _: "hostile.html")
    path = tmp_path / "hostile.html"
    path.write_text(html, "utf-8")
    for size in SIZES:
        page = visit(path, "light", size)
        for number in range(len(HOSTILE) + 1):
            page.click(f"#cards > li:nth-child({number + 1}) button")
            if number < len(HOSTILE):
                assert page.text_content("#detail-title") == clean(HOSTILE[number])
            assert page.evaluate("document.getElementById('detail').scrollWidth") <= size[0]
            page.keyboard.press("Escape")
        page.fill("#find", "<script>")
        assert len(shown(page)) == 2
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")


def test_a_result_page_of_a_real_run(visit, command, settings, tmp_path):
    settings.WRITE_PAGES = True
    assert command("--index", "0").returncode == 0
    assert command("--all").returncode == 0
    results = tmp_path / "results"
    (path,) = results.glob("experiment_0_*.html")
    start = time.monotonic()
    page = visit(path)
    assert page.locator(".neighbors img").count() == 5 and time.monotonic() - start < 5
    page.click("text=All results")
    assert page.title() == "Results"
    titles = page.eval_on_selector_all(".list a", "all => all.map(one => one.textContent)")
    assert titles[0].startswith("Experiments: 3 captioned") and re.match("Experiment 0", titles[1])
    page.click("text=Experiments >> nth=0")
    assert page.locator("#cards > li").count() == 3


def test_a_hostile_dataset_runs_nothing_in_its_pages(visit, command, settings, tmp_path):
    settings.WRITE_PAGES = True
    folder = tmp_path / "hostile"
    folder.mkdir()
    rows = []
    names = ("</script>", "<img src=x onerror=alert(1)>", "'\"&", "\u202egpj", "😀 한국", "x" * 200)
    for number, name in enumerate(names):
        file = f"{name.replace('/', '_')}{number}.png"
        picture(number + 20).save(folder / file)
        text = f"{HOSTILE[number]} {'long ' * 20_000 if number == 0 else ''}"
        rows.append(json.dumps({"file_name": file, "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(rows), "utf-8")
    flags = {"dataset": str(folder), "experiment_samples": "2"}
    assert command("--index", "0", **flags).returncode == 0
    assert command("--all", **flags).returncode == 0
    assert command("search", HOSTILE[0], "--page", **flags).returncode == 0
    pages = list((tmp_path / "results").glob("*.html"))
    assert len(pages) == 4
    for path in pages:
        for size in SIZES:
            page = visit(path, "dark", size)
            assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), path
            if page.locator("#cards button").count():
                page.click("#cards button >> nth=0")
                assert page.is_visible("#detail")
