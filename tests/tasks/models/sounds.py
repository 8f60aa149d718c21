"""Models that hear, and one that speaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tests.tasks.models.parts import SIZES, Builder, named_labels, random_model, save, t
from tests.tasks.models.tokens import BYTES, wordpiece

#: Letters that the recognisers write; ``|`` stands between words.
_LETTERS: Final = ("<pad>", "<s>", "</s>", "<unk>", "|", *"etaoinshrdlu")
_WAV2VEC2: Final[dict[str, Any]] = {
    **SIZES,
    "conv_dim": (32, 32, 32),
    "conv_stride": (8, 8, 5),
    "conv_kernel": (10, 8, 5),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": len(_LETTERS),
    "pad_token_id": 0,
}


def _vocabulary(folder: Path, tokens: tuple[str, ...]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vocab.json"
    path.write_text(json.dumps({token: number for number, token in enumerate(tokens)}), encoding="utf-8")
    return str(path)


def _ctc(folder: Path, *, norm: str) -> None:
    masked = norm == "layer"
    config = t.Wav2Vec2Config(**_WAV2VEC2, feat_extract_norm=norm, do_stable_layer_norm=masked)
    extractor = t.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=masked)
    tokenizer = t.Wav2Vec2CTCTokenizer(_vocabulary(folder, _LETTERS))
    save(folder, random_model(t.Wav2Vec2ForCTC, config, seed=8, gain=0.7), extractor, tokenizer)


def recognise_group_norm(folder: Path) -> None:
    """Its first norm is over the whole sound, padding included."""
    _ctc(folder, norm="group")


def recognise_layer_norm(folder: Path) -> None:
    """Its norms are frame by frame, and it masks the padding."""
    _ctc(folder, norm="layer")


def recognise_whisper(folder: Path) -> None:
    """It hears three seconds at a time and writes token by token."""
    end, *special = (
        *("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>"),
        *("<|startoflm|>", "<|startofprev|>", "<|nocaptions|>", "<|notimestamps|>"),
    )
    moments = [f"<|{number * 0.02:.2f}|>" for number in range(151)]
    tokens = [end, *BYTES]
    tokenizer = t.WhisperTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.add_tokens(moments)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (end, *special)}
    ends = {"pad_token_id": ids[end], "bos_token_id": ids[end], "eos_token_id": ids[end]}
    start = ids["<|startoftranscript|>"]
    sides = {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    config = t.WhisperConfig(
        **ends,
        **sides,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        vocab_size=len(tokenizer),
        d_model=32,
        num_mel_bins=16,
        max_source_positions=150,
        max_target_positions=64,
        decoder_start_token_id=start,
    )
    model = random_model(t.WhisperForConditionalGeneration, config)
    model.generation_config = t.GenerationConfig(
        **ends,
        decoder_start_token_id=start,
        is_multilingual=True,
        lang_to_id={name: ids[name] for name in ("<|en|>", "<|de|>")},
        task_to_id={name: ids[f"<|{name}|>"] for name in ("translate", "transcribe")},
        no_timestamps_token_id=ids["<|notimestamps|>"],
        prev_sot_token_id=ids["<|startofprev|>"],
        max_length=64,
        max_initial_timestamp_index=50,
        alignment_heads=[[0, 0], [1, 1]],
        return_timestamps=False,
    )
    extractor = t.WhisperFeatureExtractor(feature_size=16, chunk_length=3)
    save(folder, model, extractor, tokenizer)


def classify_wav2vec2(folder: Path) -> None:
    """As the recogniser with the group norm, with labels."""
    config = t.Wav2Vec2Config(**_WAV2VEC2, classifier_proj_size=16, **named_labels())
    save(folder, random_model(t.Wav2Vec2ForSequenceClassification, config), t.Wav2Vec2FeatureExtractor())


def classify_ast(folder: Path) -> None:
    """Every sound becomes a picture of one size."""
    config = t.ASTConfig(**SIZES, patch_size=8, max_length=128, num_mel_bins=16, **named_labels())
    extractor = t.ASTFeatureExtractor(num_mel_bins=16, max_length=128)
    save(folder, random_model(t.ASTForAudioClassification, config), extractor)


def match_clap(folder: Path) -> None:
    """Sounds and words in one space; a sound is repeated until it is three seconds long."""
    tokenizer = wordpiece(model_input_names=["input_ids", "attention_mask"])
    words = {**SIZES, "vocab_size": len(tokenizer), "projection_dim": 16, "pad_token_id": tokenizer.pad_token_id}
    sounds = {
        "num_mel_bins": 16,
        "spec_size": 64,
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "num_hidden_layers": 2,
        "window_size": 4,
        "projection_dim": 16,
    }
    config = t.ClapConfig(text_config=words, audio_config=sounds, projection_dim=16)
    extractor = t.ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=16_000,
        hop_length=200,
        max_length_s=3,
        frequency_max=8_000,
        truncation="rand_trunc",
    )
    save(folder, random_model(t.ClapModel, config), t.ClapProcessor(extractor, tokenizer))


def speak_vits(folder: Path) -> None:
    """A voice that differs at each call, but for its seed."""
    letters = ("<pad>", "<unk>", " ", *"abcdefghijklmnopqrstuvwxyz")
    tokenizer = t.VitsTokenizer(_vocabulary(folder, letters), phonemize=False, add_blank=False)
    config = t.VitsConfig(
        vocab_size=len(letters),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=16,
        flow_size=16,
        spectrogram_bins=9,
        upsample_initial_channel=16,
        upsample_rates=[4, 2],
        upsample_kernel_sizes=[8, 4],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]],
        duration_predictor_filter_channels=16,
        prior_encoder_num_flows=2,
        prior_encoder_num_wavenet_layers=1,
        posterior_encoder_num_wavenet_layers=1,
        pad_token_id=0,
        use_stochastic_duration_prediction=False,  # Untrained, it now and then draws minutes for a letter.
    )
    save(folder, random_model(t.VitsModel, config, gain=1.0), tokenizer)


BUILDERS: Final[dict[str, Builder]] = {
    "automatic-speech-recognition.wav2vec2-group": recognise_group_norm,
    "automatic-speech-recognition.wav2vec2-layer": recognise_layer_norm,
    "automatic-speech-recognition.whisper": recognise_whisper,
    "audio-classification.wav2vec2": classify_wav2vec2,
    "audio-classification.ast": classify_ast,
    "zero-shot-audio-classification.clap": match_clap,
    "text-to-audio.vits": speak_vits,
}
