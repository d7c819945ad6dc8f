"""`export`: towers as files for other runtimes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnialign.cli.output import Dim, Json, note, print_json, table

if TYPE_CHECKING:
    from omnialign.export import Export


class ExportFormat(StrEnum):
    onnx = "onnx"
    torch_export = "torch-export"
    openvino = "openvino"


def export(
    run: Annotated[str, typer.Argument(help="Folder of a run or of a saved model.")],
    tower: Annotated[
        list[str] | None,
        typer.Option(help="The modality; may be repeated. Default: all towers of the model."),
    ] = None,
    format: Annotated[
        ExportFormat, typer.Option("--format", help="What the file is for.")
    ] = ExportFormat.onnx,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file, or a folder. Default: RUN/exports."),
    ] = None,
    samples: Annotated[
        list[str] | None,
        typer.Option(
            help="A file or folder to check the file on; may be repeated. Default: the test rows "
            "of the run's recipe, or else what the plugin brings."
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise (onnx); what retrieval loses is measured.")
    ] = False,
    max_loss: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="How much recall@1 and recall@5 int8 may cost."),
    ] = None,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Keep an int8 file whatever it loses.")
    ] = False,
    dim: Dim = None,
    json: Json = False,
) -> None:
    """Write towers for other runtimes, each checked on real samples against the live model.

    A float32 file is kept where every cosine is at least 0.9999. Its preprocessing is described in
    a `.json` beside it.

    Example: `omnialign export runs/audio-text --tower audio --format onnx`
    """
    import omnialign as oa
    from omnialign.export import export_run

    if (max_loss is not None or accept_loss) and not int8:
        raise oa.OmniAlignError("--max-loss and --accept-loss are about --int8; give it too")
    if max_loss is not None and accept_loss:
        raise oa.OmniAlignError("--accept-loss accepts any loss; leave it or --max-loss out")
    done = export_run(
        run,
        tower,
        format.value,
        output,
        dim=dim,
        samples=samples,
        int8=int8,
        max_loss=1.0 if accept_loss else max_loss,
        listener=_tell,
    )
    if json:
        print_json([{"file": str(one.file), **one.description} for one in done])
        return
    rows = [
        [
            ", ".join(map(str, one.files)),
            f"{sum(file.stat().st_size for file in one.files) / 2**20:.1f} MiB",
            f"{one.description['verification']['minimum_cosine']:.6f}",
            f"{one.description['verification']['mean_cosine']:.6f}",
        ]
        for one in done
    ]
    table("", ["files", "size", "smallest cosine", "mean cosine"], rows)


def _tell(one: Export) -> None:
    from omnialign.export.exporting import stated_loss

    checked = one.description["verification"]
    note(f"{one.file}: checked on {checked['num_samples']} samples ({checked['samples']})")
    retrieval = one.description.get("retrieval")
    if retrieval is not None and "not_measured" in retrieval:
        note(f"what int8 loses on retrieval is not known: {retrieval['not_measured']}")
    elif retrieval is not None:
        note(f"int8 loses {stated_loss(retrieval)}")
