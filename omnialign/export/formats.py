"""Files for other runtimes: how each format is written, and how a batch goes through one.

Axes: n encoder inputs, D dim.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.export import ExportedProgram

from omnialign.errors import OmniAlignError
from omnialign.export.graph import OUTPUT, Input, named, quiet

Format = Literal["onnx", "torch-export", "openvino"]
Runtime = Callable[[Any], Tensor]
"""A collated batch to `(n, D)`."""

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch-export": ".pt2", "openvino": ".xml"}
PACKAGES: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torch-export": (),
    "openvino": ("onnx", "onnxscript", "openvino"),
}
QUANTISED = ("MatMul", "Gemm", "Conv", "Gather")
"""Products, convolutions and tables of vectors; everything between them stays float32."""


def check_format(format: Format, int8: bool) -> None:
    """Raises `OmniAlignError` for a package that is missing, and for int8 where there is none."""
    if int8 and format != "onnx":
        raise OmniAlignError(
            f"int8 is there for --format onnx, by onnxruntime's dynamic quantisation; {format} has "
            "none without further packages: leave --int8 out, or choose onnx"
        )
    for package in PACKAGES[format]:
        try:
            import_module(package)
        except ImportError:
            raise OmniAlignError(
                f"--format {format} wants {package}, which is not installed: "
                f"pip install 'omnialign[{format}]'"
            ) from None


def write(
    format: Format,
    program: ExportedProgram,
    inputs: Sequence[Input],
    file: Path,
    metadata: str,
    int8: bool = False,
) -> None:
    """Writes `file`, and where the format wants it others beside it, with `metadata` inside."""
    with quiet():
        if format == "torch-export":
            torch.export.save(program, file, extra_files={"omnialign.json": metadata})
            return
        plain = file.with_suffix(".float32.onnx")
        _write_onnx(program, inputs, plain if int8 or format == "openvino" else file, metadata)
        if int8:
            _quantise(plain, file)
        elif format == "openvino":
            _write_openvino(plain, file, metadata)
    for rest in file.parent.glob(f"{plain.name}*"):
        rest.unlink()


def _write_onnx(
    program: ExportedProgram, inputs: Sequence[Input], file: Path, metadata: str
) -> None:
    ir = import_module("onnx_ir")
    onnx = torch.onnx.export(
        program, input_names=[one.name for one in inputs], output_names=[OUTPUT], verbose=False
    )
    assert onnx is not None
    for value, one in zip(onnx.model.graph.inputs, inputs, strict=True):
        value.shape = ir.Shape(one.shape)
    (output,) = onnx.model.graph.outputs
    assert output.shape is not None
    output.shape = ir.Shape(["n", output.shape[1]])
    onnx.model.metadata_props["omnialign"] = metadata
    onnx.save(file)


def _quantise(plain: Path, file: Path) -> None:
    """Weights to unsigned 8 bits once, what flows between to as many for each batch."""
    quantization: Any = import_module("onnxruntime.quantization")
    quantization.quantize_dynamic(
        plain,
        file,
        op_types_to_quantize=list(QUANTISED),
        # onnxruntime has no convolution for signed weights
        weight_type=quantization.QuantType.QUInt8,
    )


def _write_openvino(plain: Path, file: Path, metadata: str) -> None:
    openvino: Any = import_module("openvino")
    model = openvino.Core().read_model(plain)
    model.set_rt_info(metadata, ["omnialign"])
    openvino.save_model(model, file, compress_to_fp16=False)


def open_file(format: Format, file: Path) -> Runtime:
    """The file in the runtime that it is for, on the CPU, in float32."""
    if format == "torch-export":
        with quiet():
            return torch.export.load(file).module()
    return _open_onnx(file) if format == "onnx" else _open_openvino(file)


def _open_onnx(file: Path) -> Runtime:
    onnxruntime: Any = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        os.fspath(file), options, providers=["CPUExecutionProvider"]
    )

    def run(batch: Any) -> Tensor:
        arrays = {name: tensor.numpy() for name, tensor in named(batch).items()}
        return torch.from_numpy(session.run([OUTPUT], arrays)[0])

    return run


def _open_openvino(file: Path) -> Runtime:
    openvino: Any = import_module("openvino")
    model = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(batch: Any) -> Tensor:
        arrays = {name: tensor.numpy() for name, tensor in named(batch).items()}
        return torch.from_numpy(model(arrays)[OUTPUT].copy())

    return run
