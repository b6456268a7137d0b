"""When two texts are the same: exactly, or but for case, punctuation and white space.

A text becomes a 64-bit key, the same on every machine and in every run. Two different texts share a key once in 10^7 corpora
of a million rows; they would then merely stay on one side of the split together.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Keys = npt.NDArray[np.uint64]


def normalised(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Lower case without punctuation and white space; a text of nothing else stays as it is. Shapes: (N,) to (N,) strings."""
    bare = pc.replace_substring_regex(pc.utf8_lower(texts), pattern=r"[\pP\pZ\s]+", replacement="")
    return pc.if_else(pc.equal(pc.binary_length(bare), 0), texts, bare)


def keys(texts: pa.Array | pa.ChunkedArray) -> Keys:
    """64-bit keys of texts: BLAKE2b of their UTF-8 bytes. Shapes: (N,) strings to (N,)."""
    blake2b = hashlib.blake2b
    digests = b"".join(blake2b(text, digest_size=8).digest() for text in texts.cast(pa.large_binary()).to_pylist())
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64, copy=False)


def mixed(values: Keys, seed: int) -> Keys:
    """Keys in another order for every seed: the finaliser of SplitMix64 (Steele et al. 2014) over key xor hashed seed."""
    salt = np.frombuffer(hashlib.blake2b(str(seed).encode(), digest_size=8).digest(), dtype="<u8").astype(np.uint64)
    z = values ^ salt
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)
