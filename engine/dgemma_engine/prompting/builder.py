"""One request in token ids: what the prompt holds, what is clamped, what may end the middle.

Turns a `Context` into a `Hole`; knows no tensors and no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.model.dimensions import ModelDimensions
from dgemma_engine.protocol.messages import Context, Snippet
from dgemma_engine.tokenization.healed_start import back_off_token
from dgemma_engine.tokenization.token_healing import Boundary, back_off
from dgemma_engine.tokenization.tokenizer import Tokenizer

# Text handed to the tokenizer per token of budget. Generous: the embedded model's corpus has 3.4 bytes a token.
CHARACTERS_PER_TOKEN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """Token ids of one request.

    Attributes:
        boundary: where prefix and suffix were cut.
        prompt_ids: what the causal encoder reads.
        parallel_ids: the suffix as it is encoded beside the prompt; empty where the format has none.
        head_ids: suffix tokens clamped after the slot; empty when the rest of the file is blank.
        end_ids: tokens that end a middle; empty for a checkpoint that has none and a file that goes on.
        is_last: whether the rest of the file is blank.
        around_ids: of the text around, what stands after the hole and then what stands before it.
    """

    boundary: Boundary
    prompt_ids: list[int]
    parallel_ids: list[int]
    head_ids: tuple[int, ...]
    end_ids: frozenset[int]
    is_last: bool
    around_ids: list[int]


def build_prompt(
    context: Context,
    tokenizer: Tokenizer,
    form: InfillFormat,
    config: ModelDimensions,
    *,
    settled: Callable[[list[int], int], list[int]] | None = None,
) -> Hole:
    """Returns the hole of a request.

    Args:
        context: the request.
        tokenizer: of the checkpoint.
        form: of the prompts and canvases that the checkpoint expects.
        config: of the model.
        settled: returns the suffix to put into the prompt, given the real one and how many leading tokens of it are
            clamped on the canvas; None takes the real one. Not called for a suffix that stands last, whose tokens are
            encoded anew with each key anyway.
    """
    is_last = not context.suffix.strip()
    if form.healing == "none":
        boundary = Boundary(prefix=context.prefix, opening="", closing="", suffix=context.suffix)
    elif form.healing == "token":
        boundary = back_off_token(context.prefix, context.suffix, tokenizer)
    else:
        boundary = back_off(context.prefix, context.suffix)
    if form.fill_token_id is not None or is_last:
        # The middle may end anywhere.
        boundary = replace(boundary, closing="", suffix=boundary.closing + boundary.suffix)
    prefix = tail(boundary.prefix, form.prefix_tokens * CHARACTERS_PER_TOKEN)
    suffix_budget = max(form.suffix_tokens, form.suffix_head_tokens) * CHARACTERS_PER_TOKEN
    suffix = "" if is_last else boundary.suffix[:suffix_budget]
    suffix_ids = tokenizer.encode(suffix)
    end_ids: set[int] = set() if form.fill_token_id is None else {form.fill_token_id}
    if is_last:
        end_ids.update(config.eos_token_ids)
    # Half the canvas stays free, whatever the format asks for.
    head_ids = tuple(suffix_ids[: min(form.suffix_head_tokens, config.canvas_length // 2)])
    prompt_suffix_ids = suffix_ids[: form.suffix_tokens]
    if settled is not None and form.suffix_tokens and not form.suffix_last:
        prompt_suffix_ids = settled(prompt_suffix_ids, len(head_ids))
    prefix_ids = tokenizer.encode(prefix)
    num_parallel = 0 if is_last else form.parallel_suffix_tokens
    name = context.path.rstrip("/").rpartition("/")[2]
    return Hole(
        boundary=boundary,
        prompt_ids=form.prompt_ids(
            prefix_ids=prefix_ids,
            suffix_ids=prompt_suffix_ids,
            snippet_ids=_snippet_ids((*context.snippets, *context.edits), tokenizer, form.snippet_tokens),
            bos_token_id=config.bos_token_id,
            name_ids=tokenizer.encode(f"{name}\n") if form.name_token_id is not None and name else (),
        ),
        parallel_ids=tokenizer.encode(context.suffix[: num_parallel * CHARACTERS_PER_TOKEN])[:num_parallel],
        head_ids=head_ids,
        end_ids=frozenset(end_ids),
        is_last=is_last,
        around_ids=[*suffix_ids, *prefix_ids],
    )


def tail(text: str, budget: int) -> str:
    """Returns at most `budget` characters off the end of `text`, cut at a point that most keystrokes leave alone.

    The point moves in jumps of a quarter of the budget, so that the prompt of the next keystroke begins alike.
    """
    jump = max(1, budget // 4)
    start = max(0, -(-(len(text) - budget) // jump) * jump)
    return text[start:]


def _snippet_ids(snippets: Sequence[Snippet], tokenizer: Tokenizer, budget: int) -> list[int]:
    """Returns whole snippets under their paths, the most relevant last; those that do not fit are left out."""
    chosen: list[list[int]] = []
    for snippet in reversed(snippets):
        ids = tokenizer.encode(f"# {snippet.path}\n{snippet.text[: budget * CHARACTERS_PER_TOKEN]}\n")
        if len(ids) > budget:
            continue
        budget -= len(ids)
        chosen.append(ids)
    return [token_id for ids in reversed(chosen) for token_id in ids]
