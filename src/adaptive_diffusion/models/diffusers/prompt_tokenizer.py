"""The tokenizer of the text encoders of Stable Diffusion, which pads prompts to a fixed length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UnusableFile
from ...io.clip_tokenizer import END, CLIPTokenizer
from ...io.files import read_json

FEWEST_TOKENS = 3  # start, a word, end
_LISTED = "added_tokens_decoder"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class PromptTokenizer(CLIPTokenizer):
    """CLIP's tokenizer with padding. The U-Net attends to all positions, so the padding token matters.

    Args:
        folder: Folder of the files.
        longest: Largest number of tokens of the text encoder.

    Raises:
        MissingPackage: see `CLIPTokenizer`.
        UnusableFile: see `CLIPTokenizer`; also if the padding token is not in the vocabulary, or the files say no
            usable number of tokens.
    """

    def __init__(self, folder: Path, longest: int):
        settings = _settings(folder)
        length = settings.get("model_max_length")  # 1e30, or nothing, where nobody set it
        if length is not None and not (isinstance(length, int | float) and length >= FEWEST_TOKENS):
            raise UnusableFile(
                f"the tokenizer in {folder} has model_max_length={length!r:.80}; it must be a number, at least "
                f"{FEWEST_TOKENS}"
            )
        super().__init__(folder, longest if length is None else int(min(length, longest)))

        pad = _text(settings.get("pad_token")) or END

        for number, token in sorted(_added(folder, settings).items()):
            self._add(token, number, folder)

        pad_id = self._tokenizer.token_to_id(pad)
        if pad_id is None:
            raise UnusableFile(f"the tokenizer in {folder} fills up with {pad!r}, which is not in its vocabulary")
        self.pad_id: int = pad_id

        # Special tokens are tokens by themselves wherever they stand in a prompt.
        for special in [pad, *_extra(settings)]:
            if special not in {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}:
                self._tokenizer.add_special_tokens([special])

        self.vocab_size = self._tokenizer.get_vocab_size(with_added_tokens=True)

    def _add(self, token: dict[str, Any], number: int, folder: Path) -> None:
        """Add a token to the vocabulary and check its number."""
        import tokenizers

        flags = {flag: bool(token[flag]) for flag in _FLAGS if flag in token}
        self._tokenizer.add_tokens([tokenizers.AddedToken(token["content"], **flags)])

        if (became := self._tokenizer.token_to_id(token["content"])) != number:
            raise UnusableFile(
                f"the tokenizer in {folder} lists {token['content']!r} as token {number}, and it becomes {became}; its "
                "files belong to different models"
            )

    def __call__(self, prompts: list[str]) -> np.ndarray:
        """(N, max_length) int32 ids."""
        ids = np.full((len(prompts), self.max_length), self.pad_id, np.int32)
        for row, prompt in zip(ids, prompts, strict=True):
            tokens = super().__call__([prompt])[0]
            row[: len(tokens)] = tokens

        return ids


def _settings(folder: Path) -> dict[str, Any]:
    """Settings of the tokenizer.

    In old folders, `tokenizer_config.json` lists no added tokens, and `special_tokens_map.json` has priority, as in
    `PreTrainedTokenizerBase._from_pretrained` of transformers 5.
    """
    settings, old = read_json(folder / "tokenizer_config.json"), folder / "special_tokens_map.json"
    return settings | read_json(old) if _LISTED not in settings and old.is_file() else settings


def _added(folder: Path, settings: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Number -> text and options of the added tokens, from the settings or, in old folders, `added_tokens.json`.

    Raises:
        UnusableFile: if the tokens are listed in another way.
    """
    old = folder / "added_tokens.json"
    try:
        if _LISTED in settings:
            listed = {int(number): dict(token) for number, token in settings[_LISTED].items()}
        else:
            special = {_text(value) for key, value in settings.items() if key.endswith("_token")} | {*_extra(settings)}
            numbers = read_json(old) if old.is_file() else {}
            listed = {
                int(number): {"content": text, "special": text in special, "normalized": text not in special}
                for text, number in numbers.items()
            }

        if all(isinstance(token["content"], str) and token["content"] for token in listed.values()):
            return listed
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UnusableFile):
            raise

    raise UnusableFile(f"the tokenizer in {folder} lists its added tokens in an unknown way; get its files again")


def _extra(settings: dict[str, Any]) -> list[str]:
    """Special tokens without a name of their own."""
    listed = [settings.get(key) or [] for key in ("additional_special_tokens", "extra_special_tokens")]
    return [text for tokens in listed if isinstance(tokens, list) for token in tokens if (text := _text(token))]


def _text(token: Any) -> str | None:
    """The text of a token; files have it as a string or as an object with options."""
    return token.get("content") if isinstance(token, dict) else token
