"""What a runner tells of texts: pieces that join to the answer's text, and what writing took."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pipemill.protocol import Usage
from pipemill_worker.pipelines.runner import TransformersRunner
from pipemill_worker.pipelines.writing.items import PipelineWriter
from pipemill_worker.pipelines.writing.spelling import speller
from pipemill_worker.seams import Account, Item, Prepared, Speller
from tests.unit.pipelines.test_generation import CHAT, generator
from tests.unit.pipelines.test_writing import direct, item_of, prompts, runner
from tests.unit.pipelines.tiny import runner_of

ODD = "Grüße, 世界! 👩‍👩‍👧‍👦 naïve café – «quoted»  two  spaces\n\ttabs\n\n نص عربي 🇩🇪 end. "
UNKNOWN = {"unk_token": "<unk>"}
SPECIAL = {**UNKNOWN, "bos_token": "<s>", "eos_token": "</s>"}
LINES = [ODD, "the food was good , and the price is fine .", "don't  stop", "a\u0301 é ﬁ", " ", "x" * 50]


@cache
def byte_level() -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are bytes, so that most characters take several."""
    made: Any = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=alphabet
    )
    made.train_from_iterator(["the food was good"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, **SPECIAL)


@cache
def metaspace() -> PreTrainedTokenizerFast:
    """A tokenizer as Llama's first ones: spaces as a character, what it doesn't know as bytes."""
    vocab = {f"<0x{byte:02X}>": byte + 3 for byte in range(256)} | {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocab |= {each: 259 + place for place, each in enumerate("▁abcdefghijklmnopqrstuvwxyz.,!")}
    made: Any = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, **UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, **SPECIAL)


def spelt(spell: Speller, ids: Sequence[int]) -> Iterator[str]:
    """Pieces, up to where no more can be told before the end."""
    for token in ids:
        try:
            yield spell(token) or ""
        except Exception as error:  # noqa: BLE001  # it has no class of its own
            assert "prefix" in str(error)  # noqa: PT017  # one of some may raise
            return


TOKENIZERS = {"bytes": byte_level, "metaspace": metaspace}


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("skip", [True, False])
def test_pieces_join_to_what_decode_gives(kind: str, line: str, *, skip: bool) -> None:
    """Each piece is whole, and together they are the text; special tokens are told or not, as asked."""
    tokenizer = TOKENIZERS[kind]()
    ids = [*tokenizer(line, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    spell = speller(tokenizer, skip_special_tokens=skip, clean_up=None)
    assert spell is not None
    pieces = list(spelt(spell, ids))
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=skip)
    assert not any("\ufffd" in piece for piece in pieces)


def test_half_a_character_waits() -> None:
    """A text that ends in the middle of a character is told up to there."""
    tokenizer = byte_level()
    ids = tokenizer("ab👩", add_special_tokens=False)["input_ids"][:-1]
    spell = speller(tokenizer, skip_special_tokens=True, clean_up=None)
    assert spell is not None
    assert "".join(spelt(spell, ids)) == "ab"


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_any_tokens_can_be_spelt(kind: str) -> None:
    """Whatever a model writes, what byte tokens told stays: broken characters are the answer's.

    Where bytes stand in for what a vocabulary lacks, broken ones void what was spelt before: the end tells all anew.
    """
    rng, tokenizer = random.Random(7), TOKENIZERS[kind]()
    for _ in range(200):
        ids = [rng.randrange(len(tokenizer)) for _ in range(20)]
        spell = speller(tokenizer, skip_special_tokens=True, clean_up=None)
        assert spell is not None
        text = "".join(spelt(spell, ids))
        assert kind == "metaspace" or tokenizer.decode(ids, skip_special_tokens=True).startswith(text)


def test_what_may_change_later_is_not_spelt() -> None:
    """A clean-up that takes back spaces, and a tokenizer that decodes in its own way, leave the text to the end."""
    made: Any = Tokenizer(models.WordLevel({"a": 0, ".": 1, "<unk>": 2}, **UNKNOWN))
    words = PreTrainedTokenizerFast(tokenizer_object=made, **UNKNOWN)
    assert speller(words, skip_special_tokens=True, clean_up=True) is None
    assert speller(words, skip_special_tokens=True, clean_up=False) is not None

    class Own(PreTrainedTokenizerFast):
        def _decode(self, *_: Any, **__: Any) -> str:
            return "mine"

    assert speller(Own(tokenizer_object=made), skip_special_tokens=True, clean_up=False) is None
    assert speller(object(), skip_special_tokens=True, clean_up=False) is None
    assert speller(byte_level(), skip_special_tokens=True, clean_up=True) is not None


def told(made: TransformersRunner, jobs: Sequence[tuple[Prepared, Item]]) -> tuple[list[str], list[Any]]:
    """What is told of jobs that are written together, each followed, and their outputs."""
    writer = made.writer
    assert isinstance(writer, PipelineWriter)
    spellers = [made.spelling(prepared) for prepared, _ in jobs]
    pieces, outputs = [""] * len(jobs), [None] * len(jobs)
    waiting = list(enumerate(jobs))
    for place, (_, item) in waiting:
        item.follower = place
    while waiting or writer.busy:
        while waiting and writer.offer(waiting[0][1][1]):
            del waiting[0]
        ended = writer.step()
        for place, token in writer.told:
            spell = spellers[place]
            assert spell is not None
            pieces[place] += spell(token) or ""
        for item, output in ended:
            outputs[item.follower] = output
    return pieces, outputs


def answered(text: str, parameters: Mapping[str, Any]) -> str:
    """What the direct call writes behind the prompt."""
    (answer,) = direct(text, parameters)
    found: str = answer["generated_text"]
    return found if parameters.get("return_full_text") is False else found.removeprefix(text)


def test_texts_written_together_are_told_as_alone() -> None:
    """Pieces of each of many mixed jobs join to the text of its own direct call; so says its account."""
    jobs = [job for job in prompts(60) if not job[1].keys() & {"num_beams", "num_return_sequences"}]
    made = [item_of(*job) for job in jobs]
    pieces, outputs = told(runner(), made)
    for place, job in enumerate(jobs):
        expected = answered(*job)
        assert pieces[place] == expected
        assert runner().account(made[place][0], [outputs[place]], followed=True).text == expected


@pytest.mark.parametrize(
    ("inputs", "before"),
    [
        ("river", "river"),
        (CHAT, ""),
        ([*CHAT, {"role": "assistant", "content": "It is"}], "It is"),
    ],
)
@pytest.mark.parametrize("parameters", [{"max_new_tokens": 9}, {"max_new_tokens": 40, "stop_sequence": "a"}])
def test_chats_are_told_what_is_new(inputs: Any, before: str, parameters: dict[str, Any]) -> None:
    """Of a chat, the assistant's own words; broken characters are those of the answer."""
    made = runner_of("text-generation", generator("llama"))
    prepared = made.prepare(inputs, {**parameters, "do_sample": False})
    pieces, outputs = told(made, [(prepared, prepared.items[0])])
    (answer,) = made.finish(prepared, outputs)
    text = answer["generated_text"] if isinstance(inputs, str) else answer["generated_text"][-1]["content"]
    account = made.account(prepared, outputs, followed=True)
    assert account.text == text.removeprefix(before)
    assert account.text.startswith(pieces[0])
    assert account.usage is not None
    assert account.usage.finish_reason == (
        "stop" if account.usage.completion_tokens < parameters["max_new_tokens"] else "length"
    )
    assert account.usage.prompt_tokens == prepared.items[0].payload.length


def account_of(text: Any, parameters: Mapping[str, Any], *, followed: bool = False) -> Account:
    """What is told of a job that runs by itself."""
    prepared = runner().prepare(text, parameters)
    return runner().account(prepared, list(runner().forward(prepared.items)), followed=followed)


def tokens_in(text: str) -> int:
    """How many tokens a text has."""
    tokenizer: Any = runner().pipe.tokenizer
    return len(tokenizer(text)["input_ids"])


def test_usage_counts_tokens() -> None:
    """Prompt and new tokens, and why it ended: cut off, its end, or a stop string."""
    text, greedy = "the food was", {"do_sample": False}
    cut = account_of(text, {**greedy, "max_new_tokens": 2, "min_new_tokens": 2}).usage
    assert cut == Usage(prompt_tokens=tokens_in(text), completion_tokens=2, finish_reason="length")
    ended = account_of(text, {**greedy, "max_new_tokens": 60}).usage
    assert ended is not None
    assert (ended.finish_reason, ended.completion_tokens < 60) == ("stop", True)


def test_usage_of_several_answers_is_their_sum() -> None:
    """Answers and prompts of one job are counted together."""
    text, given = "the food was", {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": True, "seed": 1}
    three = account_of(text, {**given, "num_return_sequences": 3})
    assert three.usage == Usage(prompt_tokens=tokens_in(text), completion_tokens=9, finish_reason="length")
    assert three.text is None
    two = account_of([text, text], {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}, followed=True)
    assert two.usage == Usage(prompt_tokens=2 * tokens_in(text), completion_tokens=6, finish_reason="length")
    assert two.text is None
