"""A document's import lines -> how the imported names are defined, as snippets in the order of the imports.

The imported files are those the editor has open, or lie on disk in the document's workspace; how names are defined in
them is asked of the engine, which has the grammars. A name that an imported file imports itself is followed once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from posixpath import normpath

from dgemma_engine.protocol.definition_messages import Definitions, DefinitionsQuery
from dgemma_engine.protocol.messages import Snippet

from dgemma_lsp.context.import_parser import Import, imports_of
from dgemma_lsp.context.workspace_files import WorkspaceFiles

# Returns None while no engine is connected.
FindDefinitions = Callable[[DefinitionsQuery], Awaitable[Definitions | None]]

_MOST_IMPORTS = 60
_MOST_NAMES = 200
_MOST_FOLDERS = 12
_MOST_DEFINITION_CHARS = 1_600


@dataclass(frozen=True, slots=True, kw_only=True)
class Importer:
    """The document whose imports are looked up.

    Attributes:
        path: where it is.
        root: its workspace folder; nothing outside is read.
        language: LSP language id.
        text: as much of it as is read for imports, with `\\n` line ends.
        words: the words around the cursor: names among them come first.
    """

    path: Path
    root: Path
    language: str
    text: str
    words: frozenset[str]


class DefinitionSearch:
    """Definitions of the names that one document imports; those found before it is cancelled can be used.

    Args:
        importer: the document.
        open_texts: texts that the editor holds, which may differ from those on disk.
        files: reads what is not open, and keeps what was found.
        find: asks the engine.
    """

    def __init__(
        self, importer: Importer, open_texts: Mapping[Path, str], files: WorkspaceFiles, find: FindDefinitions
    ) -> None:
        self._importer = importer
        self._open_texts = open_texts
        self._files = files
        self._find = find
        self._found: dict[tuple[Path, str], str] = {}

    async def run(self) -> bool:
        """Finds definitions; returns False if there was no engine to ask."""
        for one in imports_of(self._importer.text, self._importer.language)[:_MOST_IMPORTS]:
            missing = await self._follow(one, self._importer.path)
            if missing is None:
                return False
            # A package's `__init__.py` or `index.ts` imports the names that it offers.
            at, text, names = missing
            for further in imports_of(text, self._importer.language) if names else ():
                if wanted := tuple(name for name in further.names if name in names):
                    await self._follow(replace(further, names=wanted), at)
        return True

    def chosen(self, *, most_chars: int) -> tuple[Snippet, ...]:
        """Returns as many definitions as fit, one snippet a file, in the order of the imports.

        Args:
            most_chars: of text over all snippets; names that stand around the cursor are chosen first.
        """
        taken: set[tuple[Path, str]] = set()
        for key in sorted(self._found, key=lambda key: key[1] not in self._importer.words):
            if len(self._found[key]) <= most_chars:
                most_chars -= len(self._found[key])
                taken.add(key)
        by_file: dict[Path, list[str]] = {}
        for key, text in self._found.items():
            if key in taken:
                by_file.setdefault(key[0], []).append(text)
        return tuple(
            Snippet(path=shown_path(path, self._importer.root), text="\n".join(texts))
            for path, texts in by_file.items()
        )

    async def _follow(self, one: Import, at: Path) -> tuple[Path, str, frozenset[str]] | None:
        """Returns the file that was read, its text and the names that it does not define; None without an engine."""
        importer = self._importer
        file = await self._file(one, at)
        if file is None or file[0] == importer.path:
            return at, "", frozenset()
        path, text = file
        names = one.names[:_MOST_NAMES]
        texts = await self._definitions(path, text, names)
        if texts is None:
            return None
        for name, definition in texts.items():
            self._found[path, name] = definition[:_MOST_DEFINITION_CHARS]
        return path, text, frozenset(names) - texts.keys()

    async def _file(self, one: Import, at: Path) -> tuple[Path, str] | None:
        """Returns the file that `at` imports and its text; None if there is none that may be read."""
        root = self._importer.root
        paths = list(_candidates(one, at, root))
        for path in paths:
            if (text := self._open_texts.get(path)) is not None:
                return (path, text) if self._files.allows(path, text) else None
        return await self._files.first(paths, root=root)

    async def _definitions(self, path: Path, text: str, names: tuple[str, ...]) -> Mapping[str, str] | None:
        """Returns the definitions of `names` in a file by name; None while there is no engine to ask."""
        facts = self._files.facts(path, text)
        if (texts := facts.definitions.get(names)) is None:
            language = self._importer.language
            answer = await self._find(DefinitionsQuery(text=text, names=names, path=path.name, language=language))
            if answer is None:
                return None
            texts = answer.texts
            facts.define(names, texts)
        self._files.keep(path, facts)
        return texts


def shown_path(path: Path, root: Path) -> str:
    """Returns a path as the model sees it: relative to the workspace where it is inside."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _candidates(one: Import, at: Path, root: Path) -> Iterator[Path]:
    folders = [at.parent]
    if not one.is_local:
        folders += [folder for folder in at.parent.parents if folder.is_relative_to(root)][:_MOST_FOLDERS]
        folders += [root / "src"]
    for folder in folders:
        for path in one.paths:
            candidate = Path(normpath(folder / path))
            if candidate.is_relative_to(root):
                yield candidate
