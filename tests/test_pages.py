"""Pages and cards: what they show, what they escape, what they cost; without a browser."""

import json
import pickle
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from experiments.tables import evaluation_tables
from main import caption_image, evaluate_retrieval, initialize_system, run_experiment, search_images
from pages import pictures, render
from pages.many import CARDS, Card, Run, nearest_first, run_pages
from tests.helpers import picture

HOSTILE = (
    "</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}",
    "<!-- <script>", "\x00\x1b[31mred\u202egnip", "😀 한국어 עברית",
)  # fmt: skip


class Page(HTMLParser):
    """The elements and texts of a page."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture
def pages_on(tiny_settings):
    tiny_settings.WRITE_PAGES = True
    return tiny_settings


def written(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in folder.glob("*.html")}


# --- What a command writes ------------------------------------------------------------------------
def test_one_image_has_a_page_beside_its_result(command, pages_on, tmp_path):
    done = command("--index", "1")
    assert done.returncode == 0
    (result_file,) = (tmp_path / "results").glob("experiment_1_*.json")
    result = json.loads(result_file.read_text("utf-8"))
    pages = written(tmp_path / "results")
    assert set(pages) == {result_file.with_suffix(".html").name, "index.html"}
    assert str(result_file.with_suffix(".html")) in done.stderr
    html = pages[result_file.with_suffix(".html").name]
    page = Page(html)
    said = re.sub(r"\s+", " ", " ".join(page.texts))
    for text in (*result["query_info"]["captions"], result["prompt"].splitlines()[0]):
        assert all(word in said for word in re.findall(r"\w+", text))
    images = page.all("img")
    assert len(images) == 6 and all(image["src"].startswith("data:image/jpeg") for image in images)
    captions = [image["metadata"]["caption"] for image in result["similar_images"]]
    assert [image["alt"] for image in images[1:]] == captions
    assert result_file.with_suffix(".html").name in pages["index.html"]
    (policy,) = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "script-src 'none'" in policy and not page.all("script")


def test_shared_words_are_marked_and_nothing_else():
    html = str(render.marked("A Red dog & the <b>cat", ["a red cat on the mat"]))
    assert html == "A <mark>Red</mark> dog &amp; the &lt;b&gt;<mark>cat</mark>"


def test_a_run_over_many_has_one_page(command, pages_on, tmp_path, photos):
    done = command("--all")
    (page_file,) = (tmp_path / "results").glob("experiments_summary_*.html")
    assert str(page_file) in done.stderr
    page = Page(page_file.read_text("utf-8"))
    assert len([a for a in page.all("li") if "data-card" in a]) == 3
    text = page.texts[[("application/json" in str(a)) for t, a in page.elements].index(True)]
    assert text
    assert not list((tmp_path / "results").glob("experiment_*.html"))
    done = command("--image", str(photos))
    assert len(list((tmp_path / "results").glob("images_summary_*.html"))) == 1


def test_a_search_has_a_page_only_if_asked_for(command, pages_on, tmp_path, photos):
    assert command("search", "a red dog").returncode == 0
    assert not (tmp_path / "results").exists()
    done = command("search", "a red dog", "--page", "--without", "snow", "--top-k", "4")
    (path,) = (tmp_path / "results").glob("search_*.html")
    page = Page(path.read_text("utf-8"))
    assert str(path) in done.stderr and len(page.all("img")) == 4
    assert "without “snow”" in " ".join(page.texts)
    assert len(done.stdout.splitlines()) == 4
    done = command("search", "--image", str(photos / "p01.png"), "--page")
    newest = max((tmp_path / "results").glob("search_*.html"), key=lambda p: p.stat().st_mtime_ns)
    assert len(Page(newest.read_text("utf-8")).all("img")) == 6  # with the query


def test_an_evaluation_has_a_page_with_its_arms(command, pages_on, tmp_path):
    done = command("evaluate")
    (path,) = (tmp_path / "results").glob("evaluation_*.html")
    assert done.returncode == 0 and str(path) in done.stderr
    html = path.read_text("utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    outcome = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert len(data["cards"]) == 3 and len(data["cards"][0]["arms"]) == 6
    row = outcome["captions"][0]
    assert [arm["caption"] for arm in data["cards"][0]["arms"]] == [
        arm["caption"] for arm in row["arms"].values()
    ]
    assert data["measures"]["CIDEr"]["retrieved"] == [
        row["arms"]["retrieved"]["scores"]["cider"] for row in outcome["captions"]
    ]
    assert "data:image/png;base64," in html and "paired bootstrap" in html
    mean = sum(data["measures"]["CIDEr"]["retrieved"]) / 3
    assert outcome["scores"]["retrieved"]["cider"]["value"] == pytest.approx(mean, abs=1e-6)


def test_pages_can_be_left_out(command, pages_on, tmp_path):
    for words in (["--index", "1"], ["--all"], ["evaluate", "--arms", "none"]):
        assert command(*words, "--no-pages").returncode == 0
    assert written(tmp_path / "results") == {}


def test_open_says_where_a_page_is_without_a_browser(command, pages_on, monkeypatch):
    import webbrowser

    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    assert command("--index", "1", "--open").returncode == 0
    assert command("search", "a dog", "--open").returncode == 0
    assert [address.split(":")[0] for address in opened] == ["file", "file"]
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    done = command("--index", "1", "--open")
    assert done.returncode == 0 and "No browser was found to open" in done.stderr


def test_a_page_that_was_asked_for_is_named_though_quiet(command, pages_on, monkeypatch):
    import webbrowser

    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    for words in (["search", "a dog", "--open"], ["--index", "1", "--open"]):
        done = command(*words, "--quiet")
        assert "Page: " in done.stderr and "No browser was found to open" in done.stderr
    assert "Page: " in command("search", "a dog", "--page", "--quiet").stderr


@pytest.mark.parametrize(
    "words",
    [["search", "a", "--page", "--no-pages"], ["--all", "--open", "--no-pages"],
     ["search", "--queries", "x", "--open"]],
)  # fmt: skip
def test_flags_that_contradict_each_other(command, words):
    done = command(*words)
    assert done.returncode == 2 and ("--no-pages" in done.stderr or "--queries" in done.stderr)


def test_the_page_of_another_program_stays(command, pages_on, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    (results / "index.html").write_text("my site")
    (results / "a#b 100%.html").write_text("mine")
    done = command("--index", "1")
    assert done.returncode == 0 and "is not of this program" in done.stderr
    assert (results / "index.html").read_text() == "my site"
    (results / "index.html").unlink()
    assert command("--index", "1").returncode == 0
    assert "a%23b" not in (results / "index.html").read_text("utf-8")


def test_failures_are_named_though_a_page_cannot_be_written(command, pages_on, tmp_path, photos):
    (tmp_path / "results" / "index.html").mkdir(parents=True)
    bad = tmp_path / "bad"
    bad.mkdir()
    picture(3).save(bad / "good.png")
    (bad / "broken.png").write_bytes(b"no image")
    done = command("--image", str(bad))
    assert "1 of 2 images failed" in done.stderr and "is not of this program" in done.stderr


def test_a_file_that_shows_another_picture_is_not_shown(pages_on, tmp_path):
    from experiments.pictures import Pictures
    from experiments.system import System

    system = initialize_system()
    path = tmp_path / "own.png"
    picture(70).save(path)
    key = caption_image(path, *system)["metadata"]["content_hash"]
    assert Pictures(System(*system)).by_hash(key, 360) is not None
    picture(71).save(path)
    assert Pictures(System(*system)).by_hash(key, 360) is None


def test_a_page_of_many_neighbors_stays_small():
    class Photos(Nothing):
        def by_hash(self, key, side):
            return big(int(key))

        def by_number(self, index, side):
            return big(1000 + index)

    def big(seed: int):
        import numpy as np
        from PIL import Image

        pixels = np.random.default_rng(seed).integers(0, 256, (90, 120, 3), dtype=np.uint8)
        return Image.fromarray(pixels)

    def near(index: int) -> dict:
        place = {"caption": "c" * 60, "original_index": 1, "source": "original", "image": "x.jpg"}
        return {"index": index, "similarity": 0.5, "metadata": place}

    cards = [
        Card(
            f"{n}", "i.jpg", f"{n}", "caption " * 9, neighbors=[near(20 * n + k) for k in range(20)]
        )
        for n in range(CARDS)
    ]
    ((_, html),) = run_pages(Run("Run", "", "", cards), Photos(), lambda number: "page.html")
    assert len(html) < 6_000_000
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    pictures_of = [[one["picture"] for one in card["neighbors"]] for card in data["cards"]]
    assert all(card["picture"] is not None for card in data["cards"])
    assert all(row[0] is not None for row in pictures_of)  # the nearest are shown
    assert any(row[-1] is None for row in pictures_of)


def test_a_full_disk_costs_the_page_alone(command, pages_on, tmp_path, monkeypatch):
    import errno
    import os

    from support.storage import files

    replace = files.os.replace

    def full(source, target):
        if Path(target).suffix == ".html":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    done = command("--index", "1")
    assert done.returncode == 1 and "RESULTS_DIR" in done.stderr
    assert "Caption:" in done.stdout and len(list((tmp_path / "results").glob("*.json"))) == 1


def test_the_list_of_pages_is_newest_first(tmp_path, pages_on):
    import os

    from pages import write

    for number, title in enumerate(("one", "<b>two</b>", "three")):
        path = tmp_path / f"{number}.html"
        path.write_text(render.page("index.html", title, pages=[], summary=""))
        os.utime(path, (1000 + number, 1000 + number))
    (tmp_path / "other.html").write_bytes(b"\xff no title")
    os.utime(tmp_path / "other.html", (1, 1))
    html = write._index(tmp_path)
    links = [attrs["href"] for attrs in Page(html).all("a")]
    assert links == ["2.html", "1.html", "0.html"]  # the other is not ours
    assert "&lt;b&gt;two&lt;/b&gt;" in html and "<b>two" not in html


# --- Escaped --------------------------------------------------------------------------------------
class Nothing:
    def by_hash(self, key, side):
        return picture(1)

    def by_number(self, index, side):
        return None

    def key_of(self, index):
        return None


def hostile_card(number: int, text: str) -> Card:
    neighbor = {
        "index": number,
        "similarity": 0.5,
        "metadata": {"caption": text, "original_index": None, "source": "original", "image": text},
    }
    return Card(
        title=text, image=text, key=f"{number}", caption=text, references=[text],
        neighbors=[neighbor], prompt=text, facts=[(text, text)], arms=[(text, text, [text])],
    )  # fmt: skip


def hostile_run() -> Run:
    cards = [hostile_card(number, text) for number, text in enumerate(HOSTILE)]
    return Run(
        HOSTILE[0], HOSTILE[1], HOSTILE[0], cards, nearest_first(cards), metrics=[HOSTILE[0]],
        scores=[{"name": HOSTILE[0], "heads": list(HOSTILE), "rows": [list(HOSTILE)]}],
        measures={HOSTILE[0]: {HOSTILE[1]: [None] * len(cards)}},
    )  # fmt: skip


def test_no_text_leaves_its_place():
    ((_, html),) = run_pages(hostile_run(), Nothing(), lambda number: f"{number}.html")
    page = Page(html)
    assert len(page.all("script")) == 2  # the data and ours
    assert all("onerror" not in attrs for _, attrs in page.elements)
    assert "{{ 7 * 7 }}" in html and ">49<" not in html
    assert not re.search("[\x00-\x08\x0e-\x1f\x7f\u202a-\u202e]", html)
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    assert [card["caption"] for card in data["cards"]] == render.clean(list(HOSTILE))


def test_many_cards_come_on_linked_pages():
    cards = [hostile_card(number, f"caption {number}") for number in range(2 * CARDS + 1)]
    run = Run("Run", "", "", cards, nearest_first(cards))
    pages = dict(run_pages(run, Nothing(), lambda number: f"page{number}.html"))
    assert list(pages) == ["page0.html", "page1.html", "page2.html"]
    assert [len(Page(html).all("img")) for html in pages.values()] == [CARDS, CARDS, 1]
    links = [a["href"] for a in Page(pages["page1.html"]).all("a")]
    assert links == ["index.html", "page0.html", "page2.html"]


def test_each_picture_is_in_a_page_once_and_all_fit():
    from PIL import Image

    asked = []

    class Photos:
        def by_hash(self, key, side):
            asked.append(key)
            return noise(int(key)).resize((640, 480), Image.Resampling.BICUBIC)

        def key_of(self, index):
            return str(index) if index < 10 else None  # among the cards too

        def by_number(self, index, side):
            asked.append(index)
            return noise(1000 + index).resize((640, 480), Image.Resampling.BICUBIC)

    def noise(seed: int) -> Image.Image:
        import numpy as np

        pixels = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        return Image.fromarray(pixels)

    cards = [hostile_card(number % 300, f"caption {number}") for number in range(CARDS)]
    ((_, html),) = run_pages(Run("Run", "", "", cards), Photos(), lambda number: "page.html")
    assert len(html) < 6_000_000
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    assert len(data["pictures"]) == len(set(data["pictures"])) == 590
    assert data["cards"][3]["neighbors"][0]["picture"] == data["cards"][3]["picture"]
    assert data["cards"][0]["picture"] == data["cards"][300]["picture"]


# --- Notebooks ------------------------------------------------------------------------------------
def test_what_notebook_functions_return_is_plain_and_shows_itself(pages_on, photos, tmp_path):
    system = initialize_system()
    result = run_experiment(*system, 0)
    own = caption_image(picture(70), *system)
    found = search_images("a red dog", *system)
    assert not written(tmp_path / "results")
    for one, count in ((result, 6), (own, 6), (found, 5)):
        html = one._repr_html_()
        assert len(Page(html).all("img")) == count and "<script" not in html
        plain = json.loads(json.dumps(one))
        assert one == plain and type(plain) in (dict, list)
        again = pickle.loads(pickle.dumps(one))
        assert again == one and again._repr_html_() == html
    assert result["generated_caption"] and found[0]["metadata"]["caption"].startswith("a red dog")


def test_an_evaluation_shows_its_scores(pages_on):
    outcome = evaluate_retrieval(*initialize_system(), samples=2, arms=["none", "retrieved"])
    html = outcome._repr_html_()
    assert "no retrieval" in html and "CIDEr" in html
    rows = [1 + len(rows) for _, _, rows in evaluation_tables(outcome)]
    assert len(Page(html).all("tr")) == sum(rows) > 12
    assert "[" in html and "data:image/png;base64," in html
    assert pickle.loads(pickle.dumps(outcome)) == outcome == json.loads(json.dumps(outcome))


def test_datasets_and_databases_say_what_they_hold(pages_on):
    dataset_loader, db_manager = initialize_system()
    assert repr(dataset_loader) == (
        f"<DatasetLoader {dataset_loader.name}: 3 experiments, 9 gallery images>"
    )
    assert repr(db_manager) == f"<DatabaseManager {db_manager.folder}: 9 images, 0 captioned>"


# --- Pictures -------------------------------------------------------------------------------------
def test_thumbnails_keep_their_shape():
    import base64
    import io

    from PIL import Image

    uri = pictures.thumbnail(picture(1, (1200, 300)))
    image = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    assert image.format == "JPEG" and image.size == (360, 90)
    assert pictures.thumbnail(None) is None
