"""The demo's tokenizer: a byte-level BPE, so that unseen names have no unknown tokens.

Its vocabulary is learned from captions with invented names and from the prompt template. CLIP and
the VLM share it; CLIP's tokenizer ends each text with the end token, at which CLIP pools.
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

PAD, START, IMAGE, END = "<pad>", "<|im_start|>", "<image>", "<end_of_utterance>"
IMAGE_EDGE, WHOLE_IMAGE = "<fake_token_around_image>", "<global-img>"
# The index is the id. END must not be 2: with eos_token_id 2, CLIPTextModel pools at the largest id
# in the text instead of at the end token.
SPECIAL_TOKENS = [PAD, START, IMAGE, END, IMAGE_EDGE, WHOLE_IMAGE]
VOCABULARY_SIZE = 1100
CLIP_TEXT_LENGTH = 77  # tokens; longer texts are truncated
VLM_TEXT_LENGTH = 2048  # tokens in prompt and caption together


def train_tokenizer(texts: Iterable[str], path: Path) -> Tokenizer:
    """Learn a byte-level BPE from `texts` and save it to `path` (tokenizer.json)."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    path.parent.mkdir(parents=True, exist_ok=True)
    bpe.save(str(path))
    return bpe


def vlm_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """The VLM's tokenizer; pads on the left, as batched generation requires."""
    return _wrap(Tokenizer.from_file(str(path)), VLM_TEXT_LENGTH, "left")


def clip_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """CLIP's tokenizer: start token, text, end token."""
    bpe = Tokenizer.from_file(str(path))
    marks = [(token, bpe.token_to_id(token)) for token in (START, END)]
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=marks
    )
    return _wrap(bpe, CLIP_TEXT_LENGTH, "right")


def _wrap(bpe: Tokenizer, length: int, padding_side: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        additional_special_tokens=[IMAGE, IMAGE_EDGE, WHOLE_IMAGE],
        model_max_length=length,
        padding_side=padding_side,
        clean_up_tokenization_spaces=False,
    )
