"""Source text -> what it imports from files that may lie in the same project, and under which names.

Reads import lines of Python, JavaScript, TypeScript, Rust, Go, Java, C and C++ with regular expressions, which a line
that is being typed does not break as it breaks a parser. Each expression reads a character a bounded number of times,
whatever the text. Pure; does not check which of the paths exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

MOST_CHARS = 100_000

_MOST_IMPORTS = 2_000
_MOST_NAMES = 200
# Longer ones name no file.
_MOST_PATH_CHARS = 1_000
_MOST_DOTS = 32
_MOST_FOLDERS = 12
_MOST_CHAINS = 5_000
_JAVASCRIPT = (".ts", ".tsx", ".d.ts", ".js", ".jsx", ".mjs", ".cjs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One imported file.

    Attributes:
        paths: where it may lie, likeliest first, with `/` and perhaps `..`.
        is_local: whether the paths start in the importing file's folder; else in any folder from there up to the
            workspace's.
        names: the names of that file that the text uses.
    """

    paths: tuple[str, ...]
    is_local: bool
    names: tuple[str, ...]


def imports_of(text: str, language: str) -> list[Import]:
    """Returns what a text imports, in its order, at most 2,000; empty for a language that is not known.

    Args:
        text: a whole file; the first 100,000 characters are read.
        language: LSP language id.
    """
    if (read := _READERS.get(language)) is None:
        return []
    return [found for found in islice(read(text[:MOST_CHARS]), _MOST_IMPORTS) if found.names and found.paths]


_FROM = re.compile(r"^[ \t]*+from[ \t]++(\.*+)([\w.]*+)[ \t]++import[ \t]++(\([^)]*+\)?|[^\n;]*+)", re.MULTILINE)
_IMPORT = re.compile(r"^[ \t]*+import[ \t]++([\w.][^\n;#]*+)", re.MULTILINE)
_DOTTED = re.compile(r"(?<![\w.])\w++(?:\.\w++){1,7}+")


def _python(text: str) -> Iterator[Import]:
    used = _Used(text, _DOTTED)
    for found in _FROM.finditer(text):
        dots, module, listed = found.groups()
        if len(dots) > _MOST_DOTS or len(module) > _MOST_PATH_CHARS:
            continue
        names = _listed(re.sub(r"#[^\n]*", "", listed.strip("()")), " as ")
        up = "../" * (len(dots) - 1)
        path = module.replace(".", "/")
        yield Import(
            paths=_python_paths(up + path), is_local=bool(dots), names=tuple(name for name, _ in names if name != "*")
        )
        for name, alias in names:
            # A name may be a module.
            yield Import(
                paths=_python_paths(f"{up}{path}{'/' if path else ''}{name}"),
                is_local=bool(dots),
                names=used.after(alias),
            )
    for found in _IMPORT.finditer(text):
        for module, alias in _listed(found[1], " as "):
            yield Import(paths=_python_paths(module.replace(".", "/")), is_local=False, names=used.after(alias))


def _python_paths(path: str) -> tuple[str, ...]:
    package = f"{path}/__init__.py" if path.strip("./") else f"{path}__init__.py"
    return (f"{path}.py", package) if path.strip("./") else (package,)


# Matches where a clause begins or where it ends: a pattern for both would search for the end from each beginning.
_CLAUSE_EDGE = re.compile(r"""\b(?:import|export)(?=\s)|(?<=\s)from\s*+["']([^"'\n]++)["']""")
_CLAUSE = re.compile(r"\s++(?:type\s++)?([\w$*{}\s,]++)")
_REQUIRE = re.compile(
    r"""\b(?:const|let|var)\s++([\w$]++|\{[^{}]*+\})\s*+=\s*+require\(\s*+["']([^"'\n]++)["']\s*+\)"""
)
_MEMBERS = re.compile(r"(?<![\w.$])[\w$]++(?:\.\w++){1,7}+")


def _clauses(text: str) -> Iterator[tuple[int, str, str]]:
    """Yields where an import begins, what it names, and from which module."""
    for found in _REQUIRE.finditer(text):
        yield found.start(), found[1], found[2]
    begun: re.Match[str] | None = None
    for edge in _CLAUSE_EDGE.finditer(text):
        if edge[1] is None:
            begun = edge
        elif begun is not None:
            clause = _CLAUSE.fullmatch(text, begun.end(), edge.start())
            if clause is not None and clause[1].strip():
                yield begun.start(), clause[1].strip(), edge[1]
            begun = None


def _javascript(text: str) -> Iterator[Import]:
    used = _Used(text, _MEMBERS)
    for _, clause, module in sorted(_clauses(text)):
        if not module.startswith("."):
            continue
        outside, _, inside = clause.partition("{")
        names = [name.removeprefix("type ").strip() for name, _ in _listed(inside.partition("}")[0], " as ", ":")]
        for name, alias in _listed(outside, " as "):
            names += [name] if name != "*" else []
            names += used.after(alias)
        stem = re.sub(r"\.[cm]?jsx?$", "", module)
        paths = [f"{base}{suffix}" for base in (stem, f"{module}/index") for suffix in _JAVASCRIPT]
        yield Import(paths=(module, *paths), is_local=True, names=tuple(dict.fromkeys(names)))


# A `use` without a semicolon is matched too: otherwise each would be searched to the end of the text.
_USE = re.compile(r"^[ \t]*+(?:pub[ \t]++)?use[ \t]++((?:crate|super|self)::[^;]*+)(;?)", re.MULTILINE)
_MOD = re.compile(r"^[ \t]*+(?:pub[ \t]++)?mod[ \t]++(\w++)[ \t]*+;", re.MULTILINE)
_PATH = re.compile(r"(?<![\w.])\w++(?:::\w++){1,7}+")


def _rust(text: str) -> Iterator[Import]:
    used = _Used(text, _PATH, between="::", anywhere=True)
    for found in _USE.finditer(text):
        if not found[2]:
            continue
        head, brace, group = found[1].partition("{")
        parts = [part for part in head.strip().split("::") if part]
        listed = _listed(group.rstrip("} \n") if brace else parts.pop(), " as ")
        names = tuple(name.rpartition("::")[2] for name, _ in listed if name not in ("self", "*"))
        if len(parts) > 1:
            root, path = parts[0], "/".join(parts[1:])
            up = {"crate": "src/", "super": "../", "self": ""}[root]
            # `super` is the folder itself for a file that is no `mod.rs`.
            paths = tuple(f"{base}{path}{end}" for base in dict.fromkeys((up, "")) for end in (".rs", "/mod.rs"))
            yield Import(paths=paths, is_local=root != "crate", names=names)
    for found in _MOD.finditer(text):
        name = found[1]
        yield Import(paths=(f"{name}.rs", f"{name}/mod.rs"), is_local=True, names=used.after(name))


_GO = re.compile(r'^[ \t]*+(?:import[ \t]++)?(?:([\w.]++)[ \t]++)?"([\w.\-/]++)"[ \t]*+$', re.MULTILINE)


def _go(text: str) -> Iterator[Import]:
    used = _Used(text, _DOTTED)
    for found in _GO.finditer(text):
        parts = found[2].split("/")[-_MOST_FOLDERS:]
        # The import does not show where the module's own name ends: its packages lie below the workspace.
        tails = ["/".join(parts[start:]) for start in range(1, len(parts))]
        paths = tuple(f"{tail}/{parts[-1]}.go" for tail in tails)
        yield Import(paths=paths, is_local=False, names=used.after(found[1] or parts[-1]))


_JAVA = re.compile(r"^[ \t]*+import[ \t]++(?:static[ \t]++)?([\w.]++)[ \t]*+;", re.MULTILINE)


def _java(text: str) -> Iterator[Import]:
    for found in _JAVA.finditer(text):
        path = found[1].replace(".", "/")
        yield Import(paths=(f"{path}.java", f"src/main/java/{path}.java"), is_local=False, names=(path.split("/")[-1],))


_INCLUDE = re.compile(r'^[ \t]*+#[ \t]*+include[ \t]++"([^"\n]++)"', re.MULTILINE)


def _c(text: str) -> Iterator[Import]:
    names: tuple[str, ...] | None = None
    for found in _INCLUDE.finditer(text):
        # An include does not name what the text uses of the header: any word may be such a name.
        names = names or tuple(dict.fromkeys(re.findall(r"[^\W\d]\w{2,}", text)))
        yield Import(paths=(found[1],), is_local=True, names=names)
        yield Import(paths=(found[1], f"include/{found[1]}"), is_local=False, names=names)


def _listed(text: str, *aliasing: str) -> list[tuple[str, str]]:
    """Returns the name and the alias (or the name again) of each of the first 200 parts between commas."""
    listed: list[tuple[str, str]] = []
    for part in text.split(",", _MOST_NAMES)[:_MOST_NAMES]:
        name, alias = part.strip(), ""
        for mark in aliasing:
            name, found, alias = name.partition(mark)
            if found:
                break
        if name.strip():
            listed.append((name.strip(), alias.strip() or name.strip()))
    return listed


class _Used:
    """The words that follow a name in a text (`name.word`), read in one pass for all names when the first is asked for.

    Args:
        text: the text.
        chain: matches words with separators between them.
        between: the separator.
        anywhere: whether a name counts in the middle of a chain too, not only with all that stands before it.
    """

    def __init__(self, text: str, chain: re.Pattern[str], *, between: str = ".", anywhere: bool = False) -> None:
        self._text = text
        self._chain = chain
        self._between = between
        self._anywhere = anywhere
        self._words: dict[str, dict[str, None]] | None = None

    def after(self, name: str) -> tuple[str, ...]:
        """Returns the words after `name`, in the order of their first use."""
        if self._words is None:
            self._words = self._read()
        return tuple(self._words.get(name, ()))

    def _read(self) -> dict[str, dict[str, None]]:
        words: dict[str, dict[str, None]] = {}
        for chain in islice(dict.fromkeys(self._chain.findall(self._text)), _MOST_CHAINS):
            parts = chain.split(self._between)
            for end in range(1, len(parts)):
                name = parts[end - 1] if self._anywhere else self._between.join(parts[:end])
                words.setdefault(name, {})[parts[end]] = None
        return words


_READERS: dict[str, Callable[[str], Iterator[Import]]] = {
    "python": _python,
    **dict.fromkeys(("javascript", "javascriptreact", "typescript", "typescriptreact"), _javascript),
    "rust": _rust,
    "go": _go,
    "java": _java,
    **dict.fromkeys(("c", "cpp"), _c),
}
