"""The model that runs, by the one that the user names, if any: a model that is not fetched has no files to run.

Turns a name and an environment into a `ModelChoice`. Standard library only; reads no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dgemma_engine.errors import ModelStoreError
from dgemma_engine.model_store import catalogue
from dgemma_engine.model_store.catalogue import CATALOGUE, OLD_NAMES, TINY
from dgemma_engine.model_store.entry import Entry
from dgemma_engine.model_store.hub_name import HubName
from dgemma_engine.model_store.user_folder import ModelStore


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """The model that runs.

    Attributes:
        runs: short name or path.
        missing: the wanted model where it is not there; None where `runs` is the wanted one and nothing is missing.
    """

    runs: str
    missing: Entry | None = None

    @property
    def is_stand_in(self) -> bool:
        """Whether another model runs in place of the wanted one."""
        return self.missing is not None and self.missing.name != self.runs

    @property
    def notice(self) -> str:
        """What the user should be told, with the remedy; empty where the wanted model is there."""
        if self.missing is None:
            return ""
        stand_in = f", so `{self.runs}` answers in its place" if self.is_stand_in else ""
        return f"the model {self.missing.name} is not there yet{stand_in}; {self.missing.remedy}"


def choose_model(named: str | None, environ: Mapping[str, str]) -> ModelChoice:
    """Returns what runs.

    Args:
        named: short name, path, or name at the hub; None takes `DEFAULT_MODEL`, or `tiny` while that is not fetched.
        environ: says where fetched models are kept.
    """
    wanted = catalogue.DEFAULT_MODEL if named is None else OLD_NAMES.get(named, named)
    if (path := hub_path(wanted, environ)) is not None:
        return ModelChoice(runs=str(path))
    entry = CATALOGUE.get(wanted)
    if entry is None or entry.name == TINY or _is_fetched(entry, environ):
        return ModelChoice(runs=wanted)
    return ModelChoice(runs=TINY if named is None else wanted, missing=entry)


def hub_path(named: str, environ: Mapping[str, str]) -> Path | None:
    """Returns where a model of the hub is kept; a folder of that name here comes first."""
    name = HubName.parse(named)
    if name is None or Path(named).exists():
        return None
    try:
        return ModelStore.locate(environ).hub_path(name)
    except ModelStoreError:
        return None


def _is_fetched(entry: Entry, environ: Mapping[str, str]) -> bool:
    try:
        return ModelStore.locate(environ).model_path(entry) is not None
    except ModelStoreError:
        # Without a folder for models none is kept.
        return False
