"""Adapters of repositories beside one loaded model: the folder of a request -> an `AdapterChoice`.

The store is asked for every request, so that an adapter that was installed, removed or turned off counts from the next
request on; its factors are read once and stay in memory with those of a few others. What cannot be used costs one
sentence, and the model answers as it is. Called on the device thread, but for `uses`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dgemma_engine.bounded_store import BoundedStore
from dgemma_engine.checkpoint.calibration import Calibration
from dgemma_engine.errors import AdapterStoreError, CheckpointError
from dgemma_engine.families.adapter_choice import AdapterChoice
from dgemma_engine.model.model_adapter import ModelAdapter
from dgemma_engine.protocol.adapter_messages import AdapterUse
from dgemma_engine.repository_adapters.store import AdapterStore, RepositoryAdapter

# One of rank 32 of the default model takes 37 MiB.
_NUM_LOADED = 8
_NUM_REMEMBERED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """An adapter in memory, or why there is none."""

    model_adapter: ModelAdapter | None
    calibration: Calibration
    fault: str


class LoadedAdapters:
    """An `AdapterSource` over a store.

    Args:
        store: where adapters are installed.
        load: returns an adapter as the model reads it; raises `CheckpointError`.
        calibration: of the model as it is; also that of adapters that have none.
        fingerprint: of the model, which names it in calibrations.
    """

    def __init__(
        self,
        store: AdapterStore,
        load: Callable[[RepositoryAdapter], ModelAdapter],
        *,
        calibration: Calibration,
        fingerprint: str,
    ) -> None:
        self._store = store
        self._load = load
        self._calibration = calibration
        self._fingerprint = fingerprint
        self._loaded: BoundedStore[Path, _Loaded] = BoundedStore(_NUM_LOADED)
        # Never changed in place: other threads read it.
        self._uses: dict[str, str] = {}

    def choose(self, folder: str) -> AdapterChoice:
        """See `AdapterSource.choose`."""
        if not folder:
            return self._without(AdapterUse())
        try:
            found = self._store.find(Path(folder))
        except AdapterStoreError as error:
            return self._without(self._remembered(folder, str(error)))
        except UnicodeEncodeError:
            # No file has such a name.
            return self._without(AdapterUse())
        if found is None:
            removed = next((root for root in self._uses if Path(folder).is_relative_to(root)), None)
            return self._without(AdapterUse() if removed is None else self._remembered(removed, _removed(removed)))
        root = found.about.root
        if not found.about.is_enabled:
            return self._without(self._remembered(root, _off(root)))
        loaded = self._loaded.get(found.folder)
        if loaded is None:
            loaded = self._read(found)
        self._loaded.put(found.folder, loaded)
        use = self._remembered(root, loaded.fault)
        if loaded.fault:
            return self._without(use)
        return AdapterChoice(model_adapter=loaded.model_adapter, calibration=loaded.calibration, use=use)

    def uses(self) -> dict[str, str]:
        """See `AdapterSource.uses`."""
        return self._uses

    def _read(self, found: RepositoryAdapter) -> _Loaded:
        root = found.about.root
        try:
            adapter, path = self._load(found), found.calibration_path
            calibration = self._calibration
            if path is not None:
                calibration = Calibration.read(path, self._fingerprint, remedy=_again(root))
        except CheckpointError as error:
            fault = f"the adapter of {root} cannot be used: {error}"
            return _Loaded(model_adapter=None, calibration=self._calibration, fault=fault)
        return _Loaded(model_adapter=adapter, calibration=calibration, fault="")

    def _remembered(self, root: str, fault: str) -> AdapterUse:
        if self._uses.get(root) != fault:
            last = list(self._uses.items())[-_NUM_REMEMBERED:]
            self._uses = {**dict(last), root: fault}
        return AdapterUse(root=root, fault=fault)

    def _without(self, use: AdapterUse) -> AdapterChoice:
        return AdapterChoice(model_adapter=None, calibration=self._calibration, use=use)


def _again(root: str) -> str:
    return f"train it anew: dgemma-engine tune {root}"


def _off(root: str) -> str:
    return f"the adapter of {root} is off; turn it on: dgemma-engine adapters on {root}"


def _removed(root: str) -> str:
    return f"the adapter of {root} was removed; {_again(root)}"
