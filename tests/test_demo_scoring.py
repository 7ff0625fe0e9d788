"""The demo's scores depend on the captions only, not on the hash seed that orders sets."""

import json

from demo.scoring import scene_scores
from tests.helpers import run_python

# Of every scene: what the captions of this and the next one give, scored against those of both.
# Together they mention many things of one kind in two colours, as a model's caption may.
SCORES = """
import hashlib, json, random
from demo.captions import write_captions
from demo.names import PLACE_NAMES
from demo.scenes import draw, sample_scene
from demo.scoring import scene_scores

def captions_of(seed):
    scene = sample_scene(seed)
    return write_captions(scene, PLACE_NAMES[scene.place], random.Random(seed))

captions = [captions_of(seed) for seed in range(401)]
rows = []
for here, there in zip(captions, captions[1:]):
    for references in (here, there, here + there):
        rows.append(scene_scores(here[0] + " " + there[0], references))
pictures = [hashlib.sha256(draw(sample_scene(seed)).tobytes()).hexdigest() for seed in range(3)]
print(json.dumps([captions, pictures, rows]))
"""


def test_scores_captions_and_pictures_are_the_same_under_every_hash_seed():
    one, *others = (run_python("-c", SCORES, PYTHONHASHSEED=seed) for seed in ("0", "1", "2"))
    assert one.returncode == 0, one.stderr
    assert len(json.loads(one.stdout)[2]) == 1200
    assert [other.stdout for other in others] == [one.stdout] * 2


def test_where_references_disagree_on_a_colour_both_are_right():
    references = ["A red dog and a blue dog on the sand.", "A red dog."]
    for caption, share in (
        ("A red dog.", 1.0),
        ("A blue dog.", 1.0),
        ("A green dog.", 0.0),
        ("A red dog and a blue dog.", 1.0),
        ("A red dog and a green dog.", 0.5),
        ("A red dog and a green boat.", 1.0),  # no reference mentions a boat
    ):
        assert scene_scores(caption, references)["colors"] == share, caption
    assert scene_scores("A dog.", references)["colors"] != 0  # NaN: no colour is judged
