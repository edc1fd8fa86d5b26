"""Prompts as the text encoders of Stable Diffusion want them: filled up to a fixed length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...clip_tokenizer import END, CLIPTokenizer
from ...errors import UserError
from ...files import read_json


class PromptTokenizer(CLIPTokenizer):
    """CLIP's tokenizer with padding: the U-Net attends to all positions, so what they are filled up with counts.

    Args:
        folder: Where its files are.
        longest: Tokens that the text encoder takes.

    Raises:
        UserError: see `CLIPTokenizer`; also for a padding token that is not in the vocabulary.
    """

    def __init__(self, folder: Path, longest: int):
        settings = _settings(folder)
        length = settings.get("model_max_length", longest)
        super().__init__(folder, min(int(length), longest))
        pad = _text(settings.get("pad_token")) or END
        found = self._tokenizer.token_to_id(pad)
        if found is None:
            raise UserError(f"the tokenizer in {folder} fills up with {pad!r}, which is not in its vocabulary")
        self.pad_id: int = found
        if pad not in {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}:
            self._tokenizer.add_special_tokens([pad])  # one token wherever it stands in a prompt, as in transformers

    def __call__(self, prompts: list[str]) -> np.ndarray:
        """(N, max_length) int32 ids."""
        ids = np.full((len(prompts), self.max_length), self.pad_id, np.int32)
        for row, prompt in zip(ids, prompts, strict=True):
            tokens = super().__call__([prompt])[0]
            row[: len(tokens)] = tokens
        return ids


def _settings(folder: Path) -> dict[str, Any]:
    """Settings of the tokenizer; in old folders, whose configuration lists no added tokens, the map of them wins.

    (As `PreTrainedTokenizerBase._from_pretrained` of transformers 5 has it.)
    """
    found, old = read_json(folder / "tokenizer_config.json"), folder / "special_tokens_map.json"
    return found | read_json(old) if "added_tokens_decoder" not in found and old.is_file() else found


def _text(token: Any) -> str | None:
    """A token, which is written as a string or as an object with options."""
    return token.get("content") if isinstance(token, dict) else token
