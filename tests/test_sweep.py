"""`evaluate --sweep`: what may be swept over, what points share, going on after a stop."""

import json
from pathlib import Path

import numpy as np
import pytest

import config
from experiments import tables
from experiments.sweep import parse_sweep, planned
from main import evaluate_retrieval, initialize_system
from support.errors import SettingError
from tests.helpers import stop_captioning
from vlm_captioner import Captioner


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["TOP_K_SIMILAR=0,1,3"], {"TOP_K_SIMILAR": [0, 1, 3]}),
        (["top_k_similar = 1, 1, 5"], {"TOP_K_SIMILAR": [1, 5]}),
        (["TEMPERATURE=0,0.5"], {"TEMPERATURE": [0, 0.5]}),
        (["VLM_IMAGE_SPLITTING=true,False"], {"VLM_IMAGE_SPLITTING": [True, False]}),
        (["DTYPE=float32,bfloat16"], {"DTYPE": ["float32", "bfloat16"]}),
        (
            ['PROMPT_TEMPLATE="Look, these: {captions}",{captions}'],
            {"PROMPT_TEMPLATE": ["Look, these: {captions}", "{captions}"]},
        ),
        (
            ["TOP_K_SIMILAR=1,2", "CAPTIONS_PER_NEIGHBOR=1,5"],
            {"TOP_K_SIMILAR": [1, 2], "CAPTIONS_PER_NEIGHBOR": [1, 5]},
        ),
    ],
)
def test_settings_and_values_are_read(texts, values):
    assert parse_sweep(texts) == values


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["TOP_K=1,2"], ["'TOP_K' is no setting", "TOP_K_SIMILAR"]),
        (["DEVICE=cpu"], ["over: it decides no caption", "Allowed, because they decide captions"]),
        (["RANDOM_SEED=1,2"], ["it decides which images are captioned"]),
        (["USE_GENERATED_AS_CONTEXT=True,False"], ["original captions only"]),
        (["TOP_K_SIMILAR"], ["names no values", "TOP_K_SIMILAR=VALUE"]),
        (["TOP_K_SIMILAR="], ["names no values"]),
        (["TOP_K_SIMILAR=1,two"], ["'two'", "a whole number from 1, or 0: without retrieval"]),
        (["TOP_K_SIMILAR=-1"], ["'-1'"]),
        (["CAPTIONS_PER_NEIGHBOR=0"], ["'0'", "from 1"]),
        (["NUM_BEAMS=1.5"], ["'1.5'"]),
        (["VLM_IMAGE_SPLITTING=maybe"], ["'maybe'", "True or False"]),
        (["PROMPT_TEMPLATE=nothing"], ["{captions} in it"]),
        (["NUM_BEAMS=1", "NUM_BEAMS=2"], ["twice"]),
        (["NUM_BEAMS=1", "TOP_K_SIMILAR=2", "MAX_NEW_TOKENS=9"], ["1 or 2 settings, not 3"]),
        (["TOP_K_SIMILAR=" + ",".join(map(str, range(101)))], ["101 points; at most 100"]),
    ],
)
def test_what_cannot_be_swept_over_is_refused_at_once(command, texts, said):
    flags = [word for text in texts for word in ("--sweep", text)]
    done = command("evaluate", *flags)
    assert done.returncode == 2 and all(part in done.stderr for part in said), done.stderr


def test_arms_and_sweep_exclude_each_other(command):
    done = command("evaluate", "--arms", "none", "--sweep", "TOP_K_SIMILAR=1")
    assert done.returncode == 2 and "leave out --arms, or --sweep" in done.stderr
    with pytest.raises(SettingError, match="cannot be 'x'"):
        planned(None, {"TOP_K_SIMILAR": [1, "x"]})


def test_each_point_is_captioned_with_its_settings_and_compared_with_no_retrieval(tiny_settings):
    system = initialize_system()
    outcome = evaluate_retrieval(*system, sweep={"TOP_K_SIMILAR": [0, 1, 3]})
    assert config.TOP_K_SIMILAR == 5
    arms = {"none": 0, "TOP_K_SIMILAR=1": 1, "TOP_K_SIMILAR=3": 3}
    assert list(outcome["scores"]) == list(arms)
    for row in outcome["captions"]:
        for arm, count in arms.items():
            assert row["arms"][arm]["prompt"].count("\n- ") == count
    for arm in list(arms)[1:]:
        change = outcome["scores"][arm]["cider"]["minus_none"]
        ours = (
            outcome["scores"][arm]["cider"]["value"] - outcome["scores"]["none"]["cider"]["value"]
        )
        assert change["difference"] == pytest.approx(ours)
        assert change["low"] <= change["high"]
    points = outcome["sweep"]["points"]
    assert [point["arm"] for point in points] == list(arms)
    # A point is the arm "retrieved" of an evaluation with these settings.
    tiny_settings.TOP_K_SIMILAR = 3
    plain = evaluate_retrieval(*system, arms=["none", "retrieved"])
    assert [row["arms"]["TOP_K_SIMILAR=3"] for row in outcome["captions"]] == [
        row["arms"]["retrieved"] for row in plain["captions"]
    ]


def test_what_points_share_is_captioned_once(tiny_settings, monkeypatch):
    asked, write = [], Captioner.write_captions

    def count(self, images, prompts):
        asked.extend(prompts)
        return write(self, images, prompts)

    monkeypatch.setattr(Captioner, "write_captions", count)
    system = initialize_system()
    # Each image has two captions: 2 and 9 of them are the same.
    grid = {"TOP_K_SIMILAR": [0, 1], "CAPTIONS_PER_NEIGHBOR": [1, 2, 9]}
    outcome = evaluate_retrieval(*system, sweep=grid)
    assert len(asked) == 3 * (1 + 2)
    assert len(outcome["sweep"]["points"]) == 6 and len(outcome["scores"]) == 4
    two, nine = (f"TOP_K_SIMILAR=1, CAPTIONS_PER_NEIGHBOR={n}" for n in (2, 9))
    assert outcome["scores"][two]["cider"] == outcome["scores"][nine]["cider"]


def test_what_decides_captions_without_retrieval_has_them_at_each_point(tiny_settings):
    sweep = {"PROMPT_WITHOUT_CONTEXT": ["One word.", "Describe it."], "NUM_BEAMS": [1, 2]}
    outcome = evaluate_retrieval(*initialize_system(), sweep=sweep)
    point = "PROMPT_WITHOUT_CONTEXT=One word., NUM_BEAMS=2"
    assert len(outcome["scores"]) == 8 and {point, f"none, {point}"} <= outcome["scores"].keys()
    assert tables.titles_of(outcome)[f"none, {point}"] == f"no retrieval, {point}"
    for row in outcome["captions"]:
        assert row["arms"][f"none, {point}"]["prompt"] == "One word."
    for arm, scores in outcome["scores"].items():
        if not arm.startswith("none"):
            ours, theirs = scores["text_cosine"], outcome["scores"][f"none, {arm}"]["text_cosine"]
            apart = ours["value"] - theirs["value"]
            assert ours["minus_none"]["difference"] == pytest.approx(apart)


def test_a_stopped_sweep_goes_on_where_it_was(tiny_settings, monkeypatch):
    tiny_settings.VLM_BATCH_SIZE = 1
    system, sweep = initialize_system(), {"TOP_K_SIMILAR": [0, 2, 4]}
    whole = evaluate_retrieval(*system, sweep=sweep)
    calls = stop_captioning(monkeypatch, at=5)
    with pytest.raises(KeyboardInterrupt):
        evaluate_retrieval(*system, sweep=sweep)
    assert config.TOP_K_SIMILAR == 5  # as it was, though stopped at another value
    assert evaluate_retrieval(*system, sweep=sweep) == whole
    assert len(calls) == 5 + 3 * 3 - 4
    assert not list(Path(tiny_settings.RESULTS_DIR).glob("*.partial.jsonl"))


def test_the_command_writes_table_plot_and_page(command, tmp_path, tiny_settings):
    tiny_settings.WRITE_PAGES = True
    flags = ["--sweep", "TOP_K_SIMILAR=0,1,2", "--sweep", "CAPTIONS_PER_NEIGHBOR=1,2"]
    done = command("evaluate", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| TOP_K_SIMILAR=2, CAPTIONS_PER_NEIGHBOR=1 |") == 2
    paths = {path.suffix: path for path in (tmp_path / "results").glob("evaluation_*")}
    assert set(paths) >= {".json", ".md", ".png"}
    outcome = json.loads(paths[".json"].read_text("utf-8"))
    assert outcome["sweep"]["settings"]["TOP_K_SIMILAR"] == [0, 1, 2]
    from PIL import Image

    pixels = np.asarray(Image.open(paths[".png"]).convert("RGB")).reshape(-1, 3)
    for color in ((0x3B, 0x6E, 0xA5), (0xB5, 0x53, 0x2F)):  # of both lines
        assert (pixels == color).all(axis=1).sum() > 50
