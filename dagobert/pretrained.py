"""Where a pre-trained checkpoint lies: an installed package, a local directory, or the hub's own cache and download.

Only this module talks to the hub, and only for a name that is no path.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from dagobert.errors import ModelError
from dagobert.uris import SCHEME, package_path

# What a fine-tuning run needs of a hub repository: never pickles, never another framework's weights.
_PATTERNS = ["*.json", "*.txt", "*.model", "model*.safetensors"]


def checkpoint_directory(name_or_path: str) -> Path:
    """Directory of the checkpoint called `name_or_path` in params.yaml.

    Raises:
        ModelError: there is no such directory, package or hub repository, or no network to ask the hub.
        SourceError: a package:// URI that names nothing.
    """
    if name_or_path.startswith(SCHEME):
        path = package_path(name_or_path)
    elif Path(name_or_path).is_dir():
        path = Path(name_or_path)
    elif re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name_or_path) and not name_or_path.startswith("."):
        path = _from_hub(name_or_path)
    else:
        raise ModelError(f"model.name_or_path: no directory {name_or_path!r}. Give a directory, package://… or a hub name.")
    if not (path / "config.json").is_file():
        raise ModelError(f"model.name_or_path: {name_or_path!r} holds no config.json, so it is no checkpoint.")
    return path


def _from_hub(name: str) -> Path:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_PATTERNS))
    except RepositoryNotFoundError:
        raise ModelError(
            f"model.name_or_path: {name!r} is neither a directory here nor a repository on the hub "
            f"(or it is private: set HF_TOKEN)."
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"model.name_or_path: {name!r} is no directory here, not in the local hub cache, and the hub cannot be reached "
            f"({type(error).__name__}). Connect to the network, or download it elsewhere and give its directory."
        ) from error
