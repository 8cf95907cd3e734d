"""`dgemma-engine quantize` from end to end: its output, refused input, and interruptions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from dgemma_engine import cli
from dgemma_engine.checkpoint.calibration import Calibration, fingerprint
from dgemma_engine.checkpoint.loader import load_model
from dgemma_engine.checkpoint.quantization_presets import Format
from dgemma_engine.model.ops import Ops
from dgemma_engine.quantization.quantized_tensor import Encoding, quantise
from dgemma_engine.tools.conversion import converter, output_folder, shard_writer
from dgemma_engine.tools.conversion.converter import quantise_folder
from safetensors.torch import load_file, save_file

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[3]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in (".", "engine", "kernels"))}


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("form", list(Format))
def test_weights_are_the_rounded_ones(form: Format, make_plain: Callable[..., Path]) -> None:
    plain = make_plain()
    assert run("quantize", plain, plain.parent / "small", "--format", form.value) == 0
    before = load_model(plain, Ops.reference(), device=CPU, dtype=torch.float32).state_dict()
    after = load_model(plain.parent / "small", Ops.reference(), device=CPU, dtype=torch.float32).state_dict()
    for name, weight in before.items():
        kind = next((k for k in ("experts", "self_attn", "layers.0.mlp", "layers.1.mlp") if k in name), None)
        encoding = {
            Format.INT8: Encoding.INT8,
            Format.INT4: Encoding.INT4 if kind == "experts" else Encoding.INT8,
            Format.FP8: Encoding.FP8,
            Format.NVFP4: Encoding.E2M1 if kind == "experts" else None,
        }[form]
        if kind is None or encoding is None or "norm" in name:
            assert torch.equal(after[name], weight), name
        else:
            assert torch.equal(after[name], quantise(weight, encoding, name=name).dequantise(torch.float32)), name


def test_report_has_the_error_of_each_kind(make_plain: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    plain = make_plain()
    assert run("quantize", plain, plain.parent / "small", "--format", "int4") == 0
    captured = capsys.readouterr()
    report = json.loads((plain.parent / "small/quantization_report.json").read_text())
    kinds = {row["kind"]: row for row in report["kinds"]}
    assert report["format"] == "int4"
    assert 0.08 < kinds["experts"]["relative_error"] < 0.12
    assert 0.004 < kinds["attention"]["relative_error"] < 0.008
    assert kinds["experts"]["worst_relative_error"] >= kinds["experts"]["relative_error"]
    assert kinds["router"]["relative_error"] == kinds["embedding"]["largest_error"] == 0
    assert sum(row["weights"] for row in report["kinds"]) == sum(
        tensor.numel() for tensor in load_file(plain / "model.safetensors").values()
    )
    assert all(kind in captured.out for kind in kinds)
    assert "quantising, 100 %" in captured.err


def test_quantised_shards_hold_the_weights_of_a_single_file(make_plain: Callable[..., Path]) -> None:
    plain = make_plain()
    whole = plain.parent / "whole"
    quantise_folder(plain, whole, Format.INT8, report=lambda _: None)
    tensors = load_file(plain / "model.safetensors")
    names = sorted(tensors)
    weight_map = {key: f"model-{i % 3 + 1:05}-of-00003.safetensors" for i, key in enumerate(names)}
    for name in set(weight_map.values()):
        save_file({key: tensors[key] for key in names if weight_map[key] == name}, plain / name)
    (plain / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (plain / "model.safetensors").unlink()
    shards = plain.parent / "shards"
    quantise_folder(plain, shards, Format.INT8, report=lambda _: None, most_shard_bytes=30_000)
    sizes = [path.stat().st_size for path in shards.glob("*.safetensors")]
    assert len(sizes) > 3
    expected = load_model(whole, Ops.reference(), device=CPU, dtype=torch.float32).state_dict()
    for name, tensor in load_model(shards, Ops.reference(), device=CPU, dtype=torch.float32).state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_other_weights_are_copied_and_tied_ones_are_not(make_plain: Callable[..., Path]) -> None:
    plain = make_plain()
    tensors = load_file(plain / "model.safetensors")
    vision = torch.randn(4, 6)
    tensors["model.encoder.vision_tower.patch.weight"] = vision
    copy = "layers.0.self_attn.q_proj.weight"
    tensors[f"model.encoder.language_model.{copy}"] = tensors[f"model.decoder.{copy}"].clone()
    tensors["lm_head.weight"] = tensors["model.decoder.embed_tokens.weight"].clone()
    save_file(tensors, plain / "model.safetensors")
    quantise_folder(plain, plain.parent / "small", Format.INT8, report=lambda _: None)
    found = load_file(plain.parent / "small/model.safetensors")
    assert torch.equal(found["model.encoder.vision_tower.patch.weight"], vision)
    assert not {f"model.encoder.language_model.{copy}", "lm_head.weight"} & found.keys()


def test_side_files_and_calibration_are_copied(make_plain: Callable[..., Path]) -> None:
    plain = make_plain()
    for name in ("tokenizer.json", "generation_config.json", "infill.json", "LICENSE"):
        (plain / name).write_text(f"{name} of the model")
    fitted = replace(Calibration.default(), fingerprint=fingerprint(plain), threshold=0.25)
    fitted.save(plain)
    small = plain.parent / "small"
    assert run("quantize", plain, small, "--format", "int8") == 0
    for name in ("tokenizer.json", "generation_config.json", "infill.json", "LICENSE"):
        assert (small / name).read_text() == f"{name} of the model"
    assert Calibration.load(small, fingerprint(small)) == replace(fitted, fingerprint=fingerprint(small))
    assert fingerprint(small) != fingerprint(plain)


def test_calibration_of_another_model_is_not_copied(
    make_plain: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = make_plain()
    replace(Calibration.default(), fingerprint="0" * 64, threshold=0.25).save(plain)
    assert run("quantize", plain, plain.parent / "small", "--format", "int8") == 0
    assert "calibration not copied" in capsys.readouterr().err
    assert "calibration.json" not in files(plain.parent / "small")


def test_place_that_is_the_source_or_taken_is_refused(
    make_plain: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = make_plain()
    before = files(plain)
    assert run("quantize", plain, plain / ".." / plain.name, "--format", "int8") == 1
    assert "is the source itself; name another folder" in capsys.readouterr().err
    taken = plain.parent / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("do not touch")
    assert run("quantize", plain, taken, "--format", "int8") == 1
    assert "not an empty folder; name another one" in capsys.readouterr().err
    for target in (plain.parent / "empty", plain.parent / "nothing"):
        place = plain.parent / f"link-to-{target.name}"
        place.symlink_to(target)
        assert run("quantize", plain, place, "--format", "int8") == 1
        assert "is a link, which would be replaced; name" in capsys.readouterr().err
        assert place.is_symlink()
    assert files(taken) == {"thesis.txt"}
    assert files(plain) == before
    empty = plain.parent / "empty"
    empty.mkdir()
    assert run("quantize", plain, empty, "--format", "int8") == 0


def test_source_that_is_quantised_already_is_refused(
    make_quantised: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_quantised(Format.INT8)
    assert run("quantize", folder, folder.parent / "again", "--format", "int4") == 1
    assert "is quantised already; quantise the model that it was made from" in capsys.readouterr().err
    assert not (folder.parent / "again").exists()


def test_missing_shard_is_reported(make_plain: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    plain = make_plain()
    weight_map = dict.fromkeys(load_file(plain / "model.safetensors"), "model-00001-of-00002.safetensors")
    (plain / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert run("quantize", plain, plain.parent / "small", "--format", "int8") == 1
    assert "model-00001-of-00002.safetensors: missing; download" in capsys.readouterr().err
    assert not (plain.parent / "small").exists()


def test_weight_that_is_not_finite_is_named_and_leaves_nothing(
    make_plain: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = make_plain()
    tensors = load_file(plain / "model.safetensors")
    key = "model.decoder.layers.1.experts.down_proj"
    tensors[key][2, 3, 4] = torch.nan
    save_file(tensors, plain / "model.safetensors")
    assert run("quantize", plain, plain.parent / "small", "--format", "nvfp4") == 1
    assert f"{key}: holds NaN or infinite weights" in capsys.readouterr().err
    assert files(plain.parent) == {plain.name}


def test_disk_that_is_too_small_is_reported_before_writing(
    make_plain: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make_plain()
    small = plain.parent / "small"
    quantise_folder(plain, small, Format.INT8, report=lambda _: None)
    # The files written last have a few kB; all others have a size known to the byte.
    made_last = (small / "quantization_report.json").stat().st_size + (small / "config.json").stat().st_size
    needed = sum(path.stat().st_size for path in small.iterdir()) - made_last
    usage = shutil.disk_usage(plain)
    for free, code in ((needed - 1, 1), (needed, 0)):
        monkeypatch.setattr(output_folder.shutil, "disk_usage", lambda _folder, free=free: usage._replace(free=free))
        shutil.rmtree(small, ignore_errors=True)
        assert run("quantize", plain, small, "--format", "int8") == code
    assert "0.00 GB are needed and 0.00 GB are free; make room" in capsys.readouterr().err


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failure_while_writing_leaves_nothing(
    error: BaseException,
    make_plain: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = make_plain()
    write, count = shard_writer.ShardWriter.write, iter(range(1000))

    def fail(self: shard_writer.ShardWriter, key: str, tensor: torch.Tensor) -> None:
        if next(count) == 20:
            raise error
        write(self, key, tensor)

    monkeypatch.setattr(converter.ShardWriter, "write", fail)
    assert run("quantize", plain, plain.parent / "small", "--format", "int8") == (
        1 if isinstance(error, OSError) else 130
    )
    assert files(plain.parent) == {plain.name}
    if isinstance(error, OSError):
        assert "cannot be written (No space left on device); make room" in capsys.readouterr().err


def test_killed_run_leaves_nothing_that_looks_complete(
    make_plain: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = make_plain()
    code = (
        "import os, sys\n"
        "from dgemma_engine import cli\n"
        "from dgemma_engine.tools.conversion import converter as conversion\n"
        "write, count = conversion.ShardWriter.write, iter(range(1000))\n"
        "conversion.ShardWriter.write = lambda *a: os._exit(9) if next(count) == 20 else write(*a)\n"
        "cli.main(sys.argv[1:])\n"
    )
    small = plain.parent / "small"
    arguments = [sys.executable, "-c", code, "quantize", str(plain), str(small), "--format", "int8"]
    assert subprocess.run(arguments, env=ENVIRONMENT, check=False).returncode == 9
    assert not small.exists()
    rest = plain.parent / ".small.part"
    assert "config.json" not in files(rest)
    assert run("quantize", plain, small, "--format", "int8") == 1
    assert "left from an interrupted run, or one is under way; delete it" in capsys.readouterr().err
    shutil.rmtree(rest)
    assert run("quantize", plain, small, "--format", "int8") == 0


PEAK = """
import sys
from dgemma_engine import cli
assert cli.main(sys.argv[1:]) == 0
lines = open("/proc/self/status").read().splitlines()
print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_checkpoint(make_plain: Callable[..., Path]) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("not checked here: the peak of resident memory needs Linux")
    shape = {"hidden_size": 384, "moe_intermediate_size": 384, "num_experts": 16}
    small, large = (make_plain(f"of-{num}", layer_types=["sliding_attention"] * num, **shape) for num in (4, 16))
    growth = (large / "model.safetensors").stat().st_size - (small / "model.safetensors").stat().st_size
    for command in (("quantize", "--format", "int8"), ("export",)):
        peaks: list[int] = []
        for plain in (small, large):
            arguments = [command[0], str(plain), str(plain.parent / f"{plain.name}-{command[0]}"), *command[1:]]
            done = subprocess.run(
                [sys.executable, "-c", PEAK, *arguments], env=ENVIRONMENT, check=True, capture_output=True, text=True
            )
            peaks.append(int(done.stdout.splitlines()[-1]))
        # Holding a whole checkpoint costs `growth`, or half as int8; allocator and page cache vary by tens of MB.
        assert peaks[1] - peaks[0] < growth / 3, command
