"""Models that write texts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

import pipemill_worker
from tests.tasks.models.parts import Builder, random_model, save, t
from tests.tasks.models.texts import gpt2
from tests.tasks.models.tokens import ids, of_bytes

#: A chat in few tokens.
TEMPLATE: Final = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
_LLAMA: Final[dict[str, Any]] = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}


def llama(folder: Path) -> None:
    """A decoder that chats; its positions turn, and its tokenizer can pad."""
    tokenizer = of_bytes("Yes", "No", chat_template=TEMPLATE)
    config = t.LlamaConfig(**_LLAMA, vocab_size=len(tokenizer) + 8, **ids(tokenizer, "bos", "eos", "pad"))
    save(folder, random_model(t.LlamaForCausalLM, config), tokenizer)


def trained(folder: Path) -> None:
    """The generator that comes with the package: the one that has learnt something."""
    shutil.copytree(Path(pipemill_worker.__file__).parent / "demo" / "models" / "generator", folder)


def t5(folder: Path) -> None:
    """Encoder and decoder with relative positions; a text ends with an end token."""
    tokenizer = of_bytes(ended=True)
    config = t.T5Config(
        **ids(tokenizer, "pad", "eos"),
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=37,
        num_layers=2,
        num_heads=4,
        tie_word_embeddings=False,  # Untrained, it would repeat each token that it reads.
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    save(folder, random_model(t.T5ForConditionalGeneration, config), tokenizer)


def _bart_like(folder: Path, build: Any, configuration: Any) -> None:
    tokenizer = of_bytes(ended=True, model_max_length=256)
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 37))
    }
    special = {**ids(tokenizer, "pad", "eos"), "bos_token_id": tokenizer.eos_token_id, "forced_eos_token_id": None}
    config = configuration(
        **sides,
        **special,
        vocab_size=len(tokenizer),
        d_model=32,
        max_position_embeddings=256,
        tie_word_embeddings=False,  # As above.
        scale_embedding=True,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    save(folder, random_model(build, config, seed=8, gain=1.0), tokenizer)


def bart(folder: Path) -> None:
    """Encoder and decoder with learnt positions."""
    _bart_like(folder, t.BartForConditionalGeneration, t.BartConfig)


def marian(folder: Path) -> None:
    """Encoder and decoder with sines for positions."""
    _bart_like(folder, t.MarianMTModel, t.MarianConfig)


BUILDERS: Final[dict[str, Builder]] = {
    "text-generation.gpt2": gpt2(t.GPT2LMHeadModel),
    "text-generation.llama": llama,
    "text-generation.trained": trained,
    "decision.llama": llama,
    "summarization.bart": bart,
    "translation.marian": marian,
    "text2text-generation.t5": t5,
}
