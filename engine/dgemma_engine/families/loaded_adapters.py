"""Adapters of repositories beside one loaded model: the folder of a request -> an `AdapterChoice`.

The store is read for every request, so that an adapter that was installed, removed or turned off counts from the next
request on; its factors are read once and stay in memory with those of a few others. One that cannot be used is
reported in one sentence, and the model answers as it is; `uses` compares with the store as it is then. Called on the
device thread, but for `uses`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dgemma_engine.bounded_store import BoundedStore
from dgemma_engine.checkpoint.calibration import Calibration
from dgemma_engine.errors import AdapterStoreError, CheckpointError
from dgemma_engine.model.model_adapter import ModelAdapter
from dgemma_engine.protocol.messages import AdapterUse
from dgemma_engine.repository_adapters.store import CALIBRATION, AdapterStore, RepositoryAdapter, canonical_root

# One of rank 32 of the default model takes 37 MiB.
_NUM_LOADED = 8
_NUM_REMEMBERED = 64

_Files = tuple[Path, tuple[int, ...]]
"""Folder of an adapter, and when its files were changed: names what was read of it."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class AdapterChoice:
    """What one request is answered with.

    Attributes:
        model_adapter: stands beside the model's weights; None is the model as it is. Prompts are kept for one adapter.
        calibration: fitted with that adapter, or with the model as it is.
        use: what the client is told of the adapter.
    """

    model_adapter: ModelAdapter | None
    calibration: Calibration
    use: AdapterUse


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """An adapter in memory, or why there is none."""

    model_adapter: ModelAdapter | None
    calibration: Calibration
    fault: str


class LoadedAdapters:
    """The adapters of a store, beside one model.

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
        self._loaded: BoundedStore[_Files, _Loaded] = BoundedStore(_NUM_LOADED)
        # Of each root whose adapter was asked for: why what was read cannot be used. Never changed in place: other
        # threads read it.
        self._asked: Mapping[str, tuple[_Files | None, str]] = {}

    def choose(self, folder: str) -> AdapterChoice:
        """Returns what answers a request.

        Args:
            folder: `Context.folder`.
        """
        try:
            place = canonical_root(Path(folder))
            nearest = self._store.nearest(place)
        except UnicodeEncodeError:
            # No file has such a name.
            return self._without(AdapterUse())
        if nearest is None:
            # Innermost first.
            removed = [root for root in self._asked if place.is_relative_to(root)]
            root = max(removed, key=len, default="")
            return self._without(AdapterUse(root=root, fault=_removed(root)) if root else AdapterUse())
        root, found = str(nearest[0]), nearest[1]
        if isinstance(found, AdapterStoreError) or not found.about.is_enabled:
            self._ask(root, None, "")
            return self._without(AdapterUse(root=root, fault=_why_unused(root, found)))
        files = _files(found)
        loaded = self._loaded.get(files)
        if loaded is None:
            loaded = self._read(found)
        self._loaded.put(files, loaded)
        self._ask(root, files, loaded.fault)
        use = AdapterUse(root=root, fault=loaded.fault)
        if loaded.fault:
            return self._without(use)
        return AdapterChoice(model_adapter=loaded.model_adapter, calibration=loaded.calibration, use=use)

    def uses(self) -> dict[str, str]:
        """Returns why each requested adapter cannot be used now, by its root; empty where it can. For any thread.

        A folder that is gone, or counts for another's adapter by now, is left out.
        """
        asked = self._asked
        return {root: fault for root in asked if (fault := self._present_fault(root, *asked[root])) is not None}

    def _present_fault(self, root: str, files: _Files | None, fault: str) -> str | None:
        if not Path(root).is_dir():
            return None
        nearest = self._store.nearest(Path(root))
        if nearest is None:
            return _removed(root)
        if str(nearest[0]) != root:
            return None
        found = nearest[1]
        if isinstance(found, AdapterStoreError) or not found.about.is_enabled:
            return _why_unused(root, found)
        # Changed since it was read: the next request reads it.
        return fault if files == _files(found) else ""

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

    def _ask(self, root: str, files: _Files | None, fault: str) -> None:
        if self._asked.get(root) != (files, fault):
            last = list(self._asked.items())[-_NUM_REMEMBERED:]
            self._asked = {**dict(last), root: (files, fault)}

    def _without(self, use: AdapterUse) -> AdapterChoice:
        return AdapterChoice(model_adapter=None, calibration=self._calibration, use=use)


def _files(found: RepositoryAdapter) -> _Files:
    """Returns what names the content of an adapter's files; files that are gone have a time of their own."""
    return found.folder, tuple(_changed_ns(path) for path in (found.path, found.folder / CALIBRATION))


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return -1


def _why_unused(root: str, found: RepositoryAdapter | AdapterStoreError) -> str:
    return str(found) if isinstance(found, AdapterStoreError) else _off(root)


def _again(root: str) -> str:
    return f"train it anew: dgemma-engine tune {root}"


def _off(root: str) -> str:
    return f"the adapter of {root} is off; turn it on: dgemma-engine adapters on {root}"


def _removed(root: str) -> str:
    return f"the adapter of {root} was removed; {_again(root)}"
