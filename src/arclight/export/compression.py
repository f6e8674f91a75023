"""Makes a trained model smaller and measures what that costs: score, size and latency before and after."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from arclight.checkpoint.contents import Restored, restore
from arclight.errors import InputError
from arclight.export.directory import ONNX_FILE, example_program, new_directory
from arclight.export.latency import Latency, measure_latency
from arclight.export.metadata import describe
from arclight.export.onnx_file import OnnxSession, import_extra, quiet_exporter, write_onnx
from arclight.export.parity import batches_of, loader_of, loaders_of, own_metrics
from arclight.export.program import Program, program_of
from arclight.export.pruning import prune_channels, prune_weights
from arclight.interfaces import Monitor, monitor_of
from arclight.runs.evaluation import load_data

CALIBRATION_SAMPLES = 256

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Variant:
    """A model as it was measured: its test metrics, bytes of its file, latency of one sample, weights that are not 0."""

    name: str
    metrics: Mapping[str, float]
    num_bytes: int
    latency: Latency
    num_nonzero: int


@dataclass(frozen=True)
class Compressed:
    """A finished compression: its directory, the metric that counts, and the model before and after."""

    directory: Path
    score: str
    before: Variant
    after: Variant

    def to_table(self) -> Table:
        """Returns accuracy, size and latency before and after."""
        headings = (self.score, "size, MB", "weights, not 0", "latency p50, ms", "p99, ms")
        table = Table("", *headings)
        for variant in (self.before, self.after):
            latency = (f"{variant.latency.p50:.2f}", f"{variant.latency.p99:.2f}")
            size = f"{variant.num_bytes / 1e6:.2f}"
            table.add_row(variant.name, f"{variant.metrics[self.score]:.4f}", size, f"{variant.num_nonzero:,}", *latency)
        return table


@dataclass(frozen=True, kw_only=True)
class CompressionOptions:
    """What a method is given: the fraction of weights or channels to remove, and epochs of fine-tuning after it."""

    amount: float = 0.5
    epochs: int = 1


Method = Callable[[Restored, Program, Any, Path, Path, CompressionOptions], None]


def compress(
    run: str,
    overrides: Mapping[str, Any],
    *,
    method: str,
    output: Path | None = None,
    max_loss: float | None = None,
    options: CompressionOptions | None = None,
) -> Compressed:
    """Writes a smaller model as an ONNX file, into a directory that does not exist yet.

    Args:
        run: run directory, checkpoint file, or `latest`.
        overrides: settings of the data, such as {"root": "elsewhere"}.
        method: one of METHODS.
        output: the directory; None is `compress/METHOD` of the run.
        max_loss: what the score may lose at most; None accepts any.
        options: of the method.

    Raises:
        InputError: when there is no such run, the directory exists, a package or the data is missing, an option is out of
            range, or the score loses more than `max_loss`. Nothing is kept then.
    """
    options = options or CompressionOptions()
    if not 0 < options.amount < 1:
        raise InputError(f"--amount {options.amount} must be above 0 and below 1")
    if options.epochs < 0:
        raise InputError(f"--epochs {options.epochs} must be 0 or more")
    with quiet_exporter():
        import_extra("onnxruntime.quantization")
    restored = restore(run)
    target = output or (restored.run_dir or restored.path.parent) / "compress" / method
    with new_directory(target) as directory:
        data: Any = load_data(restored, overrides, split=None)
        if data is None:
            raise InputError("compress needs the data of the run, to measure what is lost; this run's config names none")
        if loader_of(data) != "test_dataloader":
            raise InputError(f"compress measures what is lost on the test split; {type(data).__name__} has no test_dataloader")
        data.prepare_data()
        data.setup("fit")
        data.setup("test")
        module = restored.module.cpu().float()
        batch = next(iter(loaders_of(data, "test_dataloader")[0]))
        program = program_of(module, restored.data_info, batch)
        original, compressed = directory / "original.onnx", directory / ONNX_FILE
        write_onnx(program, original, {})
        session, num_nonzero = OnnxSession(original), count_nonzero(module)
        metrics = own_metrics(module, data, program.forward_with(session))
        METHODS[method](restored, program, data, original, compressed, options)
        set_metadata(compressed, {**describe(restored, program), "compression": {"method": method, **asdict(options)}})
        smaller = OnnxSession(compressed)
        score, mode = score_of(monitor_of(module, restored.settings), metrics)
        after = own_metrics(module, data, program.forward_with(smaller))
        inputs = tuple(value[:1] for value in program.inputs_of(batch))
        latency = measure_latency({"before": lambda: session(inputs), "after": lambda: smaller(inputs)})
        variants = (
            Variant("before", metrics, original.stat().st_size, latency["before"], num_nonzero),
            Variant(method, after, compressed.stat().st_size, latency["after"], count_nonzero(module)),
        )
        lost = (metrics[score] - after[score]) * (1 if mode == "max" else -1)
        if max_loss is not None and not lost <= max_loss:
            raise InputError(
                f"nothing was written: {score} changes from {metrics[score]:.4f} to {after[score]:.4f}, a loss of {lost:.4f}, "
                f"which is more than --max-loss {max_loss:g}"
            )
        original.unlink()
        (directory / "metadata.json").write_text(json.dumps([asdict(variant) for variant in variants], indent=2) + "\n")
        (directory / "run_onnx.py").write_text(example_program(program), encoding="utf-8")
    return Compressed(target, score, *variants)


def score_of(monitor: Monitor | None, metrics: Mapping[str, float]) -> tuple[str, str]:
    """Returns the name and mode of the metric that counts: the monitored one on the test split, else the loss."""
    name = "" if monitor is None else f"test/{monitor.metric.partition('/')[2] or monitor.metric}"
    if monitor is not None and name in metrics:
        return name, monitor.mode
    if "test/loss" in metrics:
        return "test/loss", "min"
    raise InputError(f"the test of this run logs neither its monitor nor test/loss, but {', '.join(metrics) or 'nothing'}")


def count_nonzero(module: Any) -> int:
    """Returns how many parameters of a module are not 0."""
    return sum(int(parameter.count_nonzero()) for parameter in module.parameters())


def set_metadata(path: Path, metadata: Mapping[str, Any]) -> None:
    """Writes the metadata into an ONNX file."""
    onnx = import_extra("onnx")
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.save(model, path)


def int8_dynamic(
    restored: Restored, program: Program, data: Any, original: Path, compressed: Path, options: CompressionOptions
) -> None:
    """Writes weights as int8; activations are quantized as they come. For nets of matrix products."""
    quantization = import_extra("onnxruntime.quantization")
    with quiet_exporter():
        prepared = prepare(original)
        # 7 of 8 bits: CPUs without VNNI add two products in 16 bits, which would overflow
        quantization.quantize_dynamic(
            prepared, compressed, per_channel=True, reduce_range=True, weight_type=quantization.QuantType.QInt8
        )
        prepared.unlink()


def int8_static(
    restored: Restored, program: Program, data: Any, original: Path, compressed: Path, options: CompressionOptions
) -> None:
    """Writes weights and activations as int8, with ranges of activations from the validation split. For convolutions."""
    quantization = import_extra("onnxruntime.quantization")
    reader = calibration_reader(quantization, program, data)
    with quiet_exporter():
        prepared = prepare(original)
        quantization.quantize_static(
            prepared, compressed, reader, per_channel=True, reduce_range=True, weight_type=quantization.QuantType.QInt8
        )
        prepared.unlink()


def prepare(original: Path) -> Path:
    """Returns a copy with shapes inferred and operators fused, as the quantizers need it."""
    import_extra("onnxruntime.quantization.shape_inference")
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = original.with_name("prepared.onnx")
    quant_pre_process(original, prepared, skip_symbolic_shape=True)
    return prepared


def calibration_reader(quantization: Any, program: Program, data: Any) -> Any:
    """Returns the reader of onnxruntime for validation batches, at least CALIBRATION_SAMPLES where there are so many."""

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = batches_of(program, loaders_of(data, "val_dataloader"), CALIBRATION_SAMPLES)

        def get_next(self) -> dict[str, Any] | None:
            inputs = next(self.batches, None)
            return None if inputs is None else {key: value.numpy() for key, value in zip(program.examples, inputs, strict=True)}

    return Reader()


def pruned(remove: Callable[[Restored, Program, Any, Path, float, int], None]) -> Method:
    """Returns the method that removes weights or channels of the net itself."""
    return lambda restored, program, data, original, compressed, options: remove(
        restored, program, data, compressed, options.amount, options.epochs
    )


METHODS: dict[str, Method] = {
    "int8_dynamic": int8_dynamic,
    "int8_static": int8_static,
    "prune": pruned(prune_weights),
    "prune_structured": pruned(prune_channels),
}
