"""Source text -> what it imports from files that may lie in the same project, and under which names.

A light reader of import lines in Python, JavaScript, TypeScript, Rust, Go, Java, C and C++: regular expressions, not a
parser, so that a line that is being typed does no harm. Pure; which of the paths exist is for others to find out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_MOST_CHARS = 200_000
_JAVASCRIPT = (".ts", ".tsx", ".d.ts", ".js", ".jsx", ".mjs", ".cjs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One imported file.

    Attributes:
        paths: where it may lie, likeliest first, with `/` and perhaps `..`.
        is_local: whether the paths start in the importing file's folder; else in any folder from there up to the
            workspace's.
        names: what of it the text uses.
    """

    paths: tuple[str, ...]
    is_local: bool
    names: tuple[str, ...]


def imports_of(text: str, language: str) -> list[Import]:
    """Returns what a text imports, in its order; empty for a language that is not known.

    Args:
        text: a whole file; the first 200,000 characters are read.
        language: LSP language id.
    """
    read = _READERS.get(language)
    return [] if read is None else [found for found in read(text[:_MOST_CHARS]) if found.names and found.paths]


_FROM = re.compile(r"^[ \t]*from[ \t]+(\.*)([\w.]*)[ \t]+import[ \t]+(\([^)]*\)?|[^\n;]*)", re.MULTILINE)
_IMPORT = re.compile(r"^[ \t]*import[ \t]+([\w.][^\n;#]*)", re.MULTILINE)


def _python(text: str) -> Iterator[Import]:
    for found in _FROM.finditer(text):
        dots, module, listed = found.groups()
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
                names=_used(text, rf"{re.escape(alias)}\."),
            )
    for found in _IMPORT.finditer(text):
        for module, alias in _listed(found[1], " as "):
            used = _used(text, rf"{re.escape(alias)}\.")
            yield Import(paths=_python_paths(module.replace(".", "/")), is_local=False, names=used)


def _python_paths(path: str) -> tuple[str, ...]:
    package = f"{path}/__init__.py" if path.strip("./") else f"{path}__init__.py"
    return (f"{path}.py", package) if path.strip("./") else (package,)


_FROM_STRING = re.compile(r"""\b(?:import|export)\s+(?:type\s+)?([\w$*{}\s,]+?)\s+from\s*["']([^"'\n]+)["']""")
_REQUIRE = re.compile(r"""\b(?:const|let|var)\s+([\w$]+|\{[^}]*\})\s*=\s*require\(\s*["']([^"'\n]+)["']\s*\)""")


def _javascript(text: str) -> Iterator[Import]:
    for found in sorted([*_FROM_STRING.finditer(text), *_REQUIRE.finditer(text)], key=lambda found: found.start()):
        clause, module = found.groups()
        if not module.startswith("."):
            continue
        outside, _, inside = clause.partition("{")
        names = [name.removeprefix("type ").strip() for name, _ in _listed(inside.partition("}")[0], " as ", ":")]
        for name, alias in _listed(outside, " as "):
            names += [name] if name != "*" else []
            names += _used(text, rf"{re.escape(alias)}\.")
        stem = re.sub(r"\.[cm]?jsx?$", "", module)
        paths = [f"{base}{suffix}" for base in (stem, f"{module}/index") for suffix in _JAVASCRIPT]
        yield Import(paths=(module, *paths), is_local=True, names=tuple(dict.fromkeys(names)))


_USE = re.compile(r"^[ \t]*(?:pub[ \t]+)?use[ \t]+((?:crate|super|self)::[^;]*);", re.MULTILINE)
_MOD = re.compile(r"^[ \t]*(?:pub[ \t]+)?mod[ \t]+(\w+)[ \t]*;", re.MULTILINE)


def _rust(text: str) -> Iterator[Import]:
    for found in _USE.finditer(text):
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
        yield Import(paths=(f"{name}.rs", f"{name}/mod.rs"), is_local=True, names=_used(text, rf"\b{name}::"))


_GO = re.compile(r'^[ \t]*(?:import[ \t]+)?(?:([\w.]+)[ \t]+)?"([\w.\-/]+)"[ \t]*$', re.MULTILINE)


def _go(text: str) -> Iterator[Import]:
    for found in _GO.finditer(text):
        parts = found[2].split("/")
        # Where the module's own name ends is not said here: its packages lie below the workspace.
        tails = ["/".join(parts[start:]) for start in range(1, len(parts))]
        paths = tuple(f"{tail}/{parts[-1]}.go" for tail in tails)
        yield Import(paths=paths, is_local=False, names=_used(text, rf"\b{re.escape(found[1] or parts[-1])}\."))


_JAVA = re.compile(r"^[ \t]*import[ \t]+(?:static[ \t]+)?([\w.]+)[ \t]*;", re.MULTILINE)


def _java(text: str) -> Iterator[Import]:
    for found in _JAVA.finditer(text):
        path = found[1].replace(".", "/")
        yield Import(paths=(f"{path}.java", f"src/main/java/{path}.java"), is_local=False, names=(path.split("/")[-1],))


_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"\n]+)"', re.MULTILINE)


def _c(text: str) -> Iterator[Import]:
    names: tuple[str, ...] | None = None
    for found in _INCLUDE.finditer(text):
        # A header does not say what of it is used: any word may be.
        names = names or tuple(dict.fromkeys(re.findall(r"[^\W\d]\w{2,}", text)))
        yield Import(paths=(found[1],), is_local=True, names=names)
        yield Import(paths=(found[1], f"include/{found[1]}"), is_local=False, names=names)


def _listed(text: str, *aliasing: str) -> list[tuple[str, str]]:
    """Returns name and name in use of each part between commas."""
    listed: list[tuple[str, str]] = []
    for part in text.split(","):
        name, alias = part.strip(), ""
        for mark in aliasing:
            name, found, alias = name.partition(mark)
            if found:
                break
        if name.strip():
            listed.append((name.strip(), alias.strip() or name.strip()))
    return listed


def _used(text: str, before: str) -> tuple[str, ...]:
    """Returns the words that stand behind `before`, in the order of their first use."""
    return tuple(dict.fromkeys(re.findall(rf"(?<![\w.]){before}(\w+)", text)))


_READERS: dict[str, Callable[[str], Iterator[Import]]] = {
    "python": _python,
    **dict.fromkeys(("javascript", "javascriptreact", "typescript", "typescriptreact"), _javascript),
    "rust": _rust,
    "go": _go,
    "java": _java,
    **dict.fromkeys(("c", "cpp"), _c),
}
