"""A prompt that holds a fill-in-the-middle template -> prefix, suffix, other files. Pure.

Clients write the tokens of the model that they expect of the server, prefix first or suffix first. Each template is
read exactly, blanks included. Only two tokens are certain: the middle token at the very end, and the first token at the
very start; a template whose middle token may be missing must start the prompt. A document that contains a token itself
is cut so that the token counts as text before the cursor: clients send more of that than of the text after it. Text
before the first token is of other files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dgemma_engine.protocol.messages import Snippet


@dataclass(frozen=True, slots=True, kw_only=True)
class FimPrompt:
    """The texts in a template.

    Attributes:
        prefix: text before the cursor.
        suffix: text after it.
        path: of the document, where a marker names it; else empty.
        snippets: text of other files.
    """

    prefix: str
    suffix: str
    path: str = ""
    snippets: tuple[Snippet, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Template:
    """One family's tokens.

    Attributes:
        prefix: token before the text before the cursor.
        suffix: token before the text after the cursor.
        middle: token at the end.
        needs_middle: whether a prompt without that token is none of this template, even if it begins with `suffix`.
        closing: tokens that some clients write after it.
    """

    prefix: str
    suffix: str
    middle: str
    needs_middle: bool = True
    closing: str = ""


_TEMPLATES = (
    # Qwen2.5-Coder, CodeGemma, Granite 4, Mercury.
    _Template(prefix="<|fim_prefix|>", suffix="<|fim_suffix|>", middle="<|fim_middle|>"),
    # StarCoder, StableCode, CodeQwen, and models that a client does not know.
    _Template(prefix="<fim_prefix>", suffix="<fim_suffix>", middle="<fim_middle>"),
    # CodeLlama.
    _Template(prefix="<PRE>", suffix="<SUF>", middle="<MID>"),
    # DeepSeek-Coder: the token at the end is called "end", the one before the suffix "hole".
    _Template(prefix="<｜fim▁begin｜>", suffix="<｜fim▁hole｜>", middle="<｜fim▁end｜>"),
    # GLM; CodeGeeX, suffix first, in a turn of a chat.
    _Template(prefix="<|code_prefix|>", suffix="<|code_suffix|>", middle="<|code_middle|>", closing="<|assistant|>"),
    # Seed-Coder.
    _Template(prefix="<[fim-prefix]>", suffix="<[fim-suffix]>", middle="<[fim-middle]>"),
    # Codestral, suffix first; one client appends the middle token.
    _Template(prefix="[PREFIX]", suffix="[SUFFIX]", middle="[MIDDLE]", needs_middle=False),
)
# DeepSeek's client sends this where the text after the cursor is blank.
_BLANK_SUFFIX = "<|endoftext|>"
_FILE_MARKER = re.compile(r"(?:<\|file_sep\|>|<\|file_separator\|>|<file_sep>|<filename>)([^\n]*)\n")
_REPOSITORY = re.compile(r"\A\s*(?:<\|repo_name\|>|<repo_name>|<reponame>)[^\n<]*\n?")
_CODEGEEX_TURN = re.compile(r"\A\s*(?:<\|user\|>\n)?(?:###REFERENCE:\n)?\s*(?=###PATH:)")
_CODEGEEX_FILE = re.compile(r"^###PATH:([^\n]*)\n", re.MULTILINE)
_CODESTRAL_FILE = re.compile(r"^\+{5} ([^\n]*)\n", re.MULTILINE)


def read_prompt(prompt: str, suffix: str | None) -> FimPrompt:
    """Returns the texts around the cursor.

    Args:
        prompt: text before the cursor, or a template.
        suffix: text after the cursor; the prompt is searched for a template where there is none.
    """
    if suffix and suffix != _BLANK_SUFFIX:
        return FimPrompt(prefix=prompt, suffix=suffix)
    return parse_fim(prompt) or FimPrompt(prefix=prompt, suffix="")


def parse_fim(prompt: str) -> FimPrompt | None:
    """Returns the texts in a prompt's template; None for a prompt without one.

    Args:
        prompt: as a client sent it.
    """
    for template in _TEMPLATES:
        found = _parse(template, prompt)
        if found is not None:
            return found
    return None


def with_file_markers(found: FimPrompt) -> FimPrompt:
    """Reads the `+++++ path` lines that Codestral's clients put before other files and before the document itself.

    Args:
        found: texts around the cursor; returned as they are where the prefix does not begin with such a line.
    """
    if _CODESTRAL_FILE.match(found.prefix) is None:
        return found
    return _codestral_files(found.prefix, found.suffix, found.snippets)


def _parse(template: _Template, prompt: str) -> FimPrompt | None:
    if template.closing and (closed := prompt.removesuffix("\n")).endswith(template.middle + template.closing):
        prompt = closed.removesuffix(template.closing)
    if not prompt.endswith(template.middle) and (template.needs_middle or not prompt.startswith(template.suffix)):
        return None
    body = prompt.removesuffix(template.middle)
    prefix_at, suffix_at = body.find(template.prefix), body.find(template.suffix)
    if min(prefix_at, suffix_at) < 0:
        return None
    if prefix_at < suffix_at:
        first, cut = prefix_at, body.rfind(template.suffix)
        prefix, suffix = body[first + len(template.prefix) : cut], body[cut + len(template.suffix) :]
        prefix, suffix = _without_padding(template, prefix, suffix)
    else:
        first, cut = suffix_at, body.find(template.prefix, suffix_at)
        prefix, suffix = body[cut + len(template.prefix) :], body[first + len(template.suffix) : cut]
    path, snippets = _codegeex_files(body[:first]) or _other_files(body[:first])
    whole = FimPrompt(prefix=prefix, suffix=suffix, path=path, snippets=snippets)
    return with_file_markers(whole) if template.prefix == "[PREFIX]" else whole


def _without_padding(template: _Template, prefix: str, suffix: str) -> tuple[str, str]:
    """Returns the texts without the blanks that some clients put around tokens, where all of a client's are there."""
    is_llama = template.prefix == "<PRE>"
    if is_llama or template.prefix == "<|fim_prefix|>":
        # `<PRE> P <SUF>S <MID>`; one client writes Qwen's tokens in the same way.
        if len(prefix) > 1 and prefix[0] == prefix[-1] == " " and suffix.endswith(" "):
            return prefix[1:-1], suffix[:-1]
        # Another: `<PRE>P <SUF> S <MID>`.
        if is_llama and prefix.endswith(" ") and len(suffix) > 1 and suffix[0] == suffix[-1] == " ":
            return prefix[:-1], suffix[1:-1]
    return prefix, suffix


def _other_files(text: str) -> tuple[str, tuple[Snippet, ...]]:
    """Returns the document's path and the other files, from what stands before the first token."""
    parts = _FILE_MARKER.split(_REPOSITORY.sub("", text, count=1))
    # Text before the first marker, then paths and texts in turn; a path without a text is the document's own.
    snippets = [Snippet(path="", text=parts[0])] if parts[0].strip() else []
    path = ""
    for name, content in zip(parts[1::2], parts[2::2], strict=True):
        path = name.strip() if not content.strip() else path
        if content.strip():
            snippets.append(Snippet(path=name.strip(), text=content))
    return path, tuple(snippets)


def _codegeex_files(text: str) -> tuple[str, tuple[Snippet, ...]] | None:
    """Reads `###PATH:` lines: each begins a file, the last one the document; None for a text without them."""
    if (turn := _CODEGEEX_TURN.match(text)) is None:
        return None
    parts = _CODEGEEX_FILE.split(text[turn.end() :])
    files = zip(parts[1:-2:2], parts[2:-2:2], strict=True)
    snippets = tuple(Snippet(path=name.strip(), text=content) for name, content in files if content.strip())
    return parts[-2].strip(), snippets


def _codestral_files(prefix: str, suffix: str, snippets: tuple[Snippet, ...]) -> FimPrompt:
    """Reads `+++++ path` lines: each begins a file, the last one the document."""
    parts = _CODESTRAL_FILE.split(prefix)
    files = tuple(
        Snippet(path=name.strip(), text=text) for name, text in zip(parts[1:-2:2], parts[2:-2:2], strict=True)
    )
    return FimPrompt(prefix=parts[-1], suffix=suffix, path=parts[-2].strip(), snippets=(*snippets, *files))
