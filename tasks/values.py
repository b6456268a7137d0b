"""Writes values into a clone's params.yaml, keeping every comment, so that what a run was asked to do is part of its record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import RoundTripRepresenter

from dagobert.errors import ParameterError
from dagobert.params import load_params
from tasks.errors import WorkplaceError

Values = Mapping[str, Mapping[str, Any]]  # {section: {name: value}}


def write_values(path: Path, values: Values) -> None:
    """Set values in params.yaml and check the whole.

    Raises:
        WorkplaceError: a value is wrong; the message names each, and what it may be.
    """
    if not values:
        return
    yaml = _round_trip()
    document = yaml.load(path)
    for section, fields in values.items():
        for name, value in fields.items():
            if section not in document:
                raise WorkplaceError(
                    f"params.yaml of this revision has no section {section!r}, so {section}.{name} cannot be set."
                )
            document[section][name] = value
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(document, file)
    try:
        load_params(path)
    except ParameterError as error:
        raise WorkplaceError(str(error).replace(f"{path}: ", "")) from None


def _round_trip() -> YAML:
    """YAML that comes out as it went in: quotes and comments stay, and null stays a word."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096

    class Representer(RoundTripRepresenter):
        pass

    Representer.add_representer(type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null"))
    yaml.Representer = Representer
    return yaml


def parse_setting(text: str) -> tuple[str, str, Any]:
    """`train.learning_rate=5e-5` as (section, name, value).

    Raises:
        WorkplaceError: it is not of that form.
    """
    key, equals, value = text.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and section and name):
        raise WorkplaceError(f"{text!r} is not of the form SECTION.NAME=VALUE, for example train.learning_rate=5e-5.")
    return section, name, YAML(typ="safe", pure=True).load(value)


def differences(values: Values, path: Path) -> dict[str, dict[str, Any]]:
    """Those of `values` that say something else than a params.yaml does."""
    document = YAML(typ="safe", pure=True).load(path)
    found: dict[str, dict[str, Any]] = {}
    for section, fields in values.items():
        for name, value in fields.items():
            if document.get(section, {}).get(name, _MISSING) != value:
                found.setdefault(section, {})[name] = value
    return found


_MISSING = object()
