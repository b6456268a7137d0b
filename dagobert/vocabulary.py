"""The tokenizer of a checkpoint, made ready for one run and saved as Hugging Face does.

A packaged tokenizer may carry truncation and padding of its own (the default checkpoint's cuts at 128 tokens): both go,
and `model_max_length` becomes the model's own limit. Domain words may be added; training then grows the embeddings to match.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dagobert.errors import TokenizationError

_OFFSET = ("roberta", "roberta-prelayernorm", "camembert", "xlm-roberta", "xlm-roberta-xl", "mpnet")
# Settings that `transformers` copies from tokenizer.json, or that say where it was found: neither belongs to the tokenizer.
_STATE = (
    *("max_length", "stride", "truncation_strategy", "pad_to_multiple_of", "pad_token_type_id"),
    *("is_local", "local_files_only", "name_or_path", "added_tokens_decoder", "extra_special_tokens"),
)


def position_limit(checkpoint: Path) -> int:
    """Most tokens of a sequence the model takes, from its config.json.

    RoBERTa and its kin begin to count positions after the padding id, so that 514 positions hold 512 tokens.
    """
    config = _config(checkpoint)
    limit = int(config.get("max_position_embeddings", config.get("n_positions", 512)))
    if config.get("model_type") in _OFFSET:
        limit -= int(config.get("pad_token_id", 1)) + 1
    return limit


def check_max_length(checkpoint: Path, name: str, max_length: int) -> None:
    """Refuse sequences that the model has no positions for.

    Raises:
        TokenizationError: names both lengths.
    """
    limit = position_limit(checkpoint)
    if max_length > limit:
        raise TokenizationError(
            f"tokenize.max_length is {max_length}, but {name} takes at most {limit} tokens (max_position_embeddings in "
            f"{checkpoint / 'config.json'}). Set tokenize.max_length to {limit} or less, or choose another model.name_or_path."
        )


def read_words(path: Path) -> list[str]:
    """Words of a file, one a line, in order; blank lines and what follows a # left out.

    Raises:
        TokenizationError: no such file, or a line with more than one word.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise TokenizationError(f"tokenize.add_words is {str(path)!r}: no such file. Make it; it may be empty.") from None
    except UnicodeDecodeError as error:
        raise TokenizationError(f"tokenize.add_words: {path} is not UTF-8 text ({error.reason}). Save it as UTF-8.") from None
    words = [line.partition("#")[0].strip() for line in lines]
    for number, word in enumerate(words, start=1):
        if len(word.split()) > 1:
            raise TokenizationError(f"{path}:{number}: {word!r} is more than one word. Write one word a line.")
    return list(dict.fromkeys(word for word in words if word))


def save_tokenizer(checkpoint: Path, name: str, out: Path, words: list[str] | None = None) -> list[str]:
    """Write the tokenizer of `checkpoint` into the directory `out`, without state of its own, `words` added.

    Returns:
        The words that were new.
    Raises:
        TokenizationError: the checkpoint has no tokenizer, or one with more ids than the model.
    """
    if not any((checkpoint / file).is_file() for file in ("tokenizer.json", "vocab.txt")):
        raise TokenizationError(
            f"{checkpoint}: the checkpoint {name} has no tokenizer (neither tokenizer.json nor vocab.txt). Put its files "
            f"there, or choose another model.name_or_path."
        )
    import tokenizers
    from transformers import AutoTokenizer

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside transformers, nothing a user can act on
            tokenizer: Any = AutoTokenizer.from_pretrained(str(checkpoint), use_fast=True)
    except Exception as error:  # whatever a broken file makes the library raise
        raise TokenizationError(f"{checkpoint}: the tokenizer of {name} cannot be loaded: {error}") from error
    if not getattr(tokenizer, "is_fast", False):
        raise TokenizationError(f"{checkpoint}: the tokenizer of {name} has no fast form, which Dagobert needs.")
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    n_ids = int(_config(checkpoint).get("vocab_size", len(tokenizer)))
    if len(tokenizer) > n_ids:
        raise TokenizationError(
            f"{checkpoint}: the tokenizer of {name} has {len(tokenizer):,} ids and the model {n_ids:,} embeddings: they do "
            f"not belong together. Put the right tokenizer files there."
        )
    before = len(tokenizer)
    if words:
        whole = {"single_word": True, "normalized": True}  # as a word by itself, whatever its case where the model sees none
        tokenizer.add_tokens([tokenizers.AddedToken(word, **whole) for word in words])
    tokenizer.model_max_length = position_limit(checkpoint)
    for key in _STATE:
        tokenizer.init_kwargs.pop(key, None)
    tokenizer.save_pretrained(str(out))
    config = json.loads((out / "tokenizer_config.json").read_text(encoding="utf-8"))
    config = {key: value for key, value in sorted(config.items()) if key not in _STATE}
    (out / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return [tokenizer.convert_ids_to_tokens(i) for i in range(before, len(tokenizer))]


def grow(model: Any, tokenizer: Path, added: Sequence[str]) -> None:
    """Give `model` an embedding for each added word: the mean of those of the pieces it was made of before.

    Args:
        model: a transformers model whose checkpoint does not know the words.
        tokenizer: directory of the tokenizer that does.
        added: the words, as the manifest of the shards names them.
    """
    if not added:
        return
    import tokenizers
    import torch

    whole = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {token["content"]: int(token["id"]) for token in whole["added_tokens"]}
    whole["added_tokens"] = [token for token in whole["added_tokens"] if token["content"] not in set(added)]
    before = tokenizers.Tokenizer.from_str(json.dumps(whole))
    size = max(ids[word] for word in added) + 1
    if size > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(size, mean_resizing=False)
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        for word in added:
            table[ids[word]] = table[before.encode(word, add_special_tokens=False).ids].mean(dim=0)


def _config(checkpoint: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    return config
