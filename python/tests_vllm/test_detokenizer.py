"""Streams of the real tokenizers: primed with the tail of a prompt they give the same texts as with all of it."""

from __future__ import annotations

import os
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from promptseam_vllm.detokenizer import TAIL, tail_will_do

tokenizers = pytest.importorskip("tokenizers")

MODELS = Path(os.environ.get("VLLM_HOME", Path.home() / ".cache/promptseam-vllm")) / "models"
TEXTS = [
    "plain words, ",
    "größer ",
    "日本語の文 ",
    "👍🏽👩‍👩‍👧 ",
    "\n\n\t",
    "العربية ",
    "ﬁ ",
    "\u0301",
    "<|im_end|>",
    "</s>",
    "x" * 50,
]


def steps(tokenizer, prompt, sampled, skip):
    stream = tokenizers.decoders.DecodeStream(ids=prompt, skip_special_tokens=skip)
    return [stream.step(tokenizer, token_id) for token_id in sampled]


@pytest.mark.parametrize("file", sorted(MODELS.glob("*/tokenizer.json")), ids=lambda file: file.parent.name)
def test_the_tail_gives_the_same_texts(file):
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    rng = random.Random(7)
    taken = 0
    for _ in range(400):
        ids = [
            token_id
            for _ in range(rng.randrange(1, 60))
            for token_id in tokenizer.encode(rng.choice(TEXTS), add_special_tokens=False).ids
        ]
        # Cut anywhere, as often as not within a character; then what no text would give.
        cut = rng.randrange(len(ids))
        noise = [rng.randrange(tokenizer.get_vocab_size()) for _ in range(rng.randrange(8))]
        prompt, sampled = ids[:cut] + noise[:4], ids[cut:] + noise[4:]
        if not tail_will_do(SimpleNamespace(_tokenizer=tokenizer), prompt):
            continue
        taken += len(prompt) > TAIL
        skip = rng.random() < 0.5
        try:
            whole = steps(tokenizer, prompt, sampled, skip)
        except Exception as error:
            # vLLM begins a new stream then, whatever the one before was primed with.
            assert "Invalid prefix" in str(error)
            continue
        assert steps(tokenizer, prompt[-TAIL:], sampled, skip) == whole
    assert taken > 50
