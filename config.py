"""Every setting of the pipeline.

Edit this file, pass a command-line flag, or assign in a notebook (`config.TOP_K_SIMILAR = 3`): all
three work, because every module reads `config.X` when it is called.
"""

# --- Data -----------------------------------------------------------------------------------------
# A dataset of the Hub; or a folder of images with captions.txt, metadata.csv or .jsonl; or parquet.
DATASET_NAME = "jxie/flickr8k"
# DATASET_NAME = "Naveengo/flickr8k"  # the same photos with one caption each
# DATASET_NAME = "./my_photos"
DATASET_REVISION = None  # a Hub commit, tag or branch; None = the newest
DATASET_SPLIT = None  # None joins all splits; or "train", "validation", "test"
IMAGE_COLUMN = None  # None = recognised
CAPTION_COLUMN = None  # None = recognised: caption*, captions, text, sentence(s), raw
EXPERIMENT_SAMPLES = 400  # images set aside as queries; all others are the gallery
# None sets them aside by RANDOM_SEED. "test": they are of the dataset's own test split, and the
# gallery of GALLERY_SPLIT (several: "train,validation"); then EXPERIMENT_SAMPLES = None is all.
EXPERIMENT_SPLIT = None
GALLERY_SPLIT = "train"
EXPERIMENT_IMAGE_INDEX = 0  # which one `python main.py` captions: 0 .. EXPERIMENT_SAMPLES - 1
RANDOM_SEED = 42  # decides which images are set aside
TOTAL_SAMPLES = None  # use only so many images, experiments included; None = all

# --- Models: a Hub name or a local folder. Sizes, memory and licences are in the README -----------
CLIP_MODEL_NAME = "openai/clip-vit-base-patch32"
# CLIP_MODEL_NAME = "openai/clip-vit-large-patch14"
# CLIP_MODEL_NAME = "google/siglip-base-patch16-224"
VLM_MODEL_NAME = "HuggingFaceTB/SmolVLM-Instruct"
# VLM_MODEL_NAME = "HuggingFaceTB/SmolVLM-500M-Instruct"
# VLM_MODEL_NAME = "HuggingFaceTB/SmolVLM-256M-Instruct"
# These two take no prompt; they caption from the image alone:
# VLM_MODEL_NAME = "Salesforce/blip-image-captioning-large"
# VLM_MODEL_NAME = "microsoft/git-large-coco"
VLM_SERVER = None  # captions by an OpenAI-compatible server: "http://host:8000/v1"; None = here
CAPTION_EMBEDDING_MODEL = "BAAI/bge-base-en-v1.5"
# CAPTION_EMBEDDING_MODEL = "BAAI/bge-large-en-v1.5"
# CAPTION_EMBEDDING_MODEL = "google/embeddinggemma-300m"  # gated; see `python setup_token.py`
# CAPTION_EMBEDDING_MODEL = "sentence-transformers/all-mpnet-base-v2"
# Revisions: a Hub commit, tag or branch; None = the one the databases were made with, else newest.
CLIP_REVISION = None
VLM_REVISION = None
CAPTION_EMBEDDING_REVISION = None
# `evaluate` only: CLIPScore's own model, that of its paper, so that figures compare with others'.
CLIPSCORE_MODEL_NAME = "openai/clip-vit-base-patch32"
CLIPSCORE_REVISION = None
# Put before a text query. None = what the model saved, or BGE v1.5's own; "" = nothing.
CAPTION_QUERY_PROMPT = None

# --- Retrieval and prompt -------------------------------------------------------------------------
TOP_K_SIMILAR = 5  # how many gallery images give context
CAPTIONS_PER_NEIGHBOR = 1  # how many captions of each of them: the first, the first two, ...
USE_GENERATED_AS_CONTEXT = True  # images captioned earlier give context to later ones
SEARCH_WORD_WEIGHT = 0.15  # in a search by text, of words in common beside the cosine; 0 = none
MAX_CONTEXT_CAPTION_CHARS = 300  # longer captions are cut in the prompt, nowhere else
PROMPT_TEMPLATE = (  # {captions} becomes one line for each caption, nearest first
    "Captions of similar images, nearest first:\n"
    "{captions}\n"
    "They may be wrong about this image. Describe this image in one sentence."
)
PROMPT_WITHOUT_CONTEXT = "Describe this image in one sentence."  # when no neighbor has a caption

# --- Caption generation ---------------------------------------------------------------------------
MAX_NEW_TOKENS = 60  # longest caption, in tokens
NUM_BEAMS = 1  # 1 = no beam search
TEMPERATURE = 0.0  # 0 = greedy, the same caption every time; above 0 samples, with RANDOM_SEED
VLM_IMAGE_SPLITTING = False  # SmolVLM: True cuts a 4:3 photo into 13 tiles: finer, but slower

# --- Where models run -----------------------------------------------------------------------------
DEVICE = "auto"  # "auto", "cpu", "cuda", "cuda:1", "mps"
DTYPE = "auto"  # "auto": bfloat16 on CUDA, float32 elsewhere; or "float32", "bfloat16", "float16"
IMAGE_BATCH_SIZE = 32  # images per CLIP batch; all three halve by themselves when memory runs out
VLM_BATCH_SIZE = 8  # images per captioning batch
TEXT_BATCH_SIZE = 64  # captions per embedding batch

# --- Files: relative folders are relative to this file's folder -----------------------------------
DB_DIR = "databases"
IMAGE_EMBEDDING_DB = "image_embeddings.json"
CAPTION_DB = "captions.json"
CAPTION_EMBEDDING_DB = "caption_embeddings.json"
RESULTS_DIR = "results"
WRITE_PAGES = True  # HTML pages beside the results, and a list of them

# --- Mode and terminal ----------------------------------------------------------------------------
MODE = "auto"  # "auto": the demo when the Hub cannot be reached; "hub": never; "demo": always
SHOW_PROGRESS = True  # progress bars on stderr
