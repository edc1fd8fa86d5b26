"""CLIP's byte-pair tokenizer from the files of a model folder, by the `tokenizers` library."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingPackage, UnusableFile
from ..program import pip_install

log = logging.getLogger(__name__)

START, END = "<|startoftext|>", "<|endoftext|>"
# Pieces of a prompt before merging: special tokens, English endings, letters, single digits, the rest.
_PIECES = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


class CLIPTokenizer:
    """Prompts -> token ids, as in Hugging Face's CLIPTokenizer.

    Attributes:
        vocab_size: Number of tokens.
    """

    def __init__(self, folder: Path, max_length: int):
        """Read `tokenizer.json`, or `vocab.json` and `merges.txt`.

        Args:
            folder: Folder of the files.
            max_length: Largest number of tokens, with start and end; longer prompts are cut.

        Raises:
            MissingPackage: if `tokenizers` is not installed.
            UnusableFile: if the files are missing or not CLIP's.
        """
        try:
            import tokenizers
        except ImportError:
            raise MissingPackage(
                f"CLIP prompts need tokenizers, which is not installed: {pip_install('standard')}"
            ) from None

        try:
            if (folder / "tokenizer.json").is_file():
                self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
                self._tokenizer = _from_vocabulary(tokenizers, folder)
            else:
                raise UnusableFile(
                    f"{folder} holds no tokenizer: neither tokenizer.json nor vocab.json with merges.txt; get the "
                    "whole model folder"
                )
        except UnusableFile:
            raise
        except Exception as error:  # the library raises bare Exception
            raise UnusableFile(f"the tokenizer in {folder} cannot be read ({error}); get it again") from error

        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)
        self.max_length = max_length
        self.vocab_size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)

        ends = self._tokenizer.encode("a").ids

        expected = [self._tokenizer.token_to_id(START), self._tokenizer.token_to_id(END)]
        if len(ends) < 3 or [ends[0], ends[-1]] != expected:
            raise UnusableFile(
                f"the tokenizer in {folder} is not CLIP's: it does not put {START} and {END} around a prompt"
            )

    def __call__(self, prompts: list[str]) -> np.ndarray:
        """(N, L) int32 ids; L is the length of the longest prompt.

        Shorter prompts are padded with the end token. Attention looks backward only, so padding changes nothing.
        """
        encodings = self._tokenizer.encode_batch(prompts)
        encoded = [encoding.ids for encoding in encodings]

        cut = sum(bool(encoding.overflowing) for encoding in encodings)
        if cut:
            log.warning("%d of %d prompts are longer than %d tokens and were cut", cut, len(prompts), self.max_length)

        ids = np.full((len(encoded), max(map(len, encoded))), encoded[0][-1], np.int32)
        for row, tokens in zip(ids, encoded, strict=True):
            row[: len(tokens)] = tokens

        return ids


def _from_vocabulary(tokenizers: Any, folder: Path) -> Any:
    """The tokenizer from `vocab.json` and `merges.txt`."""
    vocabulary, merges = tokenizers.models.BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False, unk_token=END
        )
    )

    tokenizer.normalizer = tokenizers.normalizers.Sequence(
        [
            tokenizers.normalizers.NFC(),
            tokenizers.normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
            tokenizers.normalizers.Lowercase(),
        ]
    )

    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(_PIECES), behavior="removed", invert=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )

    tokenizer.add_special_tokens([START, END])
    tokenizer.post_processor = tokenizers.processors.RobertaProcessing(
        (END, vocabulary[END]), (START, vocabulary[START]), trim_offsets=False, add_prefix_space=False
    )

    return tokenizer
