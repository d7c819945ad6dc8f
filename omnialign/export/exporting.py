"""A tower into a file, which counts as written when it gives what the live tower gives.

Axes: n encoder inputs.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import save
from torch.export import ExportedProgram

from omnialign.errors import ModelError, OmniAlignError
from omnialign.evaluation.evaluate import run_recipe
from omnialign.export.checking import (
    LEAST_COSINE,
    Agreement,
    compare,
    live_vectors,
    retrieval_loss,
)
from omnialign.export.description import describe_export
from omnialign.export.formats import SUFFIXES, Format, Runtime, check_format, open_file, write
from omnialign.export.graph import OUTPUT, Input, describe_inputs, named, trace
from omnialign.export.samples import Samples, gather_samples
from omnialign.model_folder import load
from omnialign.overrides import SCHEME
from omnialign.recipe import Recipe
from omnialign.space import SharedSpace
from omnialign.tower import Tower

EXAMPLE_ROWS = 4
MOST_CHARACTERS = 600
"""Of what an exporter says of its failure."""


@dataclass(frozen=True)
class Export:
    """A written and checked file.

    `description` is what stands in the `.json` beside it, where `files` names `file` and what it
    cannot do without, such as the weights of OpenVINO; `example` is a safetensors file with one
    batch of inputs by name and the live tower's `embeddings` of it.
    """

    file: Path
    description_file: Path
    example: Path
    description: dict[str, Any]

    @property
    def files(self) -> list[Path]:
        return [self.file.with_name(name) for name in self.description["files"]]


def export_run(
    model: str | Path,
    towers: Sequence[str] | None = None,
    format: Format = "onnx",
    output: str | Path | None = None,
    *,
    dim: int | None = None,
    samples: Sequence[Any] | None = None,
    int8: bool = False,
    max_loss: float | None = None,
    listener: Callable[[Export], None] | None = None,
) -> list[Export]:
    """As `export_tower`, of a run or a saved model, checked on the test rows of its recipe.

    Args:
        model: as for `load`.
        towers: modalities; by default all that the model has.
        format: as for `export_tower`, as are `samples`, `int8` and `max_loss`.
        output: a folder, or the file of a single tower; by default `exports/` in the run.
        dim: as for `load`.
        listener: called with each file that is written.
    """
    if output is None and SCHEME.match(str(model)) and not Path(model).is_dir():
        raise OmniAlignError(f"export of '{model}', which is no folder, wants --output")
    recipe = run_recipe(model) if (Path(model) / "recipe.toml").is_file() else None
    space = load(model, "cpu", dim=dim)
    chosen = space.modalities if towers is None else towers
    if len(chosen) > 1 and (samples is not None or (output and Path(output).suffix)):
        raise OmniAlignError(
            "--samples, and a file as --output, are for one tower; choose it with --tower: "
            f"{', '.join(chosen)}"
        )
    done: list[Export] = []
    for modality in chosen:
        done.append(
            export_tower(
                space,
                modality,
                format,
                Path(model) / "exports" if output is None else output,
                recipe=recipe,
                samples=samples,
                int8=int8,
                max_loss=max_loss,
            )
        )
        if listener:
            listener(done[-1])
    return done


def export_tower(
    space: SharedSpace,
    modality: str,
    format: Format,
    output: str | Path,
    *,
    recipe: Recipe | None = None,
    samples: Sequence[Any] | None = None,
    int8: bool = False,
    max_loss: float | None = None,
) -> Export:
    """Writes encoder, projection and normalisation of a tower for another runtime.

    The file takes a collated batch of any size, and of any length where the encoder does, and
    gives unit vectors `(n, dim)`. It is opened in its own runtime and compared with the live tower
    on real samples, alone and in batches, before it gets its name; what was there before stays
    until then. Beside it: a `.json` that describes the preprocessing, and an example batch.

    Args:
        space: a trained space; with `truncate`, the file gives the shorter vectors.
        modality: whose tower.
        format: `"onnx"`, `"torch-export"` or `"openvino"`.
        output: a file with the format's suffix, or a folder.
        recipe: gives the samples, and the test rows that int8 is measured on.
        samples: what the modality reads, or folders of it, in the place of the recipe's.
        int8: quantise (`onnx`): a quarter of the size, and other vectors.
        max_loss: of int8, how much recall@1 and recall@5 may fall on the recipe's test rows, from
            0 to 1; 1 accepts whatever is lost, and that it cannot be measured.

    Raises:
        OmniAlignError: a package is missing, a float32 vector has a cosine below 0.9999 with the
            live one, or int8 loses more than it may; no file is left then.
        ModelError: the encoder cannot be exported.
    """
    check_format(format, int8)
    file = _file(Path(output), modality, format, int8)
    tower = copy.deepcopy(space.tower(modality)).cpu().float().eval()
    checked_on = gather_samples(tower, recipe, samples)
    inputs = describe_inputs(tower, checked_on.inputs)
    program = trace(tower, space.dim, checked_on.inputs, inputs)
    description = describe_export(space, modality, inputs, format, int8)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".partial-", dir=file.parent) as folder:
            partial = Path(folder) / file.name
            run = _written(description, program, inputs, partial)
            rest = sorted(p.name for p in Path(folder).iterdir() if p != partial)
            description["files"] = [file.name, *rest]
            agreement = compare(tower, space.dim, run, checked_on)
            description["verification"] = asdict(agreement)
            if int8:
                description["retrieval"] = _measured(space, modality, run, recipe, max_loss)
            else:
                _check(agreement, file)
            del run
            description["example"] = f"{file.name}.example.safetensors"
            _write_example(partial, tower, space.dim, checked_on)
            text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
            partial.with_name(f"{file.name}.json").write_text(text, "utf-8")
            for written in sorted(Path(folder).iterdir(), key=lambda path: path == partial):
                os.replace(written, file.parent / written.name)
    except OSError as error:
        raise OmniAlignError(f"cannot write {file}: {error}") from None
    return Export(
        file,
        description_file=file.with_name(f"{file.name}.json"),
        example=file.with_name(description["example"]),
        description=description,
    )


def _written(
    description: dict[str, Any], program: ExportedProgram, inputs: Sequence[Input], file: Path
) -> Runtime:
    """Writes the file and opens it; raises `ModelError` where its format cannot hold the tower."""
    format, int8 = description["format"], description["precision"] == "int8"
    try:
        write(format, program, inputs, file, json.dumps(description), int8)
        return open_file(format, file)
    except OSError:
        raise
    except Exception as error:  # each exporter and runtime has errors of its own
        raise ModelError(
            f"{format} cannot hold the {description['modality']} encoder "
            f"'{description['encoder']['name']}'; choose another --format: "
            f"{' '.join(str(error).split())[:MOST_CHARACTERS]}"
        ) from error


def _file(output: Path, modality: str, format: Format, int8: bool) -> Path:
    suffix = SUFFIXES[format]
    if output.suffix == suffix and not output.is_dir():
        return output
    if output.suffix in SUFFIXES.values():
        raise OmniAlignError(f"a file of --format {format} ends in {suffix}; got {output}")
    return output / f"{modality}{'.int8' if int8 else ''}{suffix}"


def _check(agreement: Agreement, file: Path) -> None:
    if agreement.minimum_cosine < LEAST_COSINE:
        raise ModelError(
            f"{file} is not kept: its vector of {agreement.worst_sample} has a cosine of "
            f"{agreement.minimum_cosine:.6f} with the live tower's, and {LEAST_COSINE} is wanted "
            f"of each of {agreement.num_samples} samples ({agreement.samples}); choose another "
            "--format"
        )


def _measured(
    space: SharedSpace, modality: str, run: Runtime, recipe: Recipe | None, max_loss: float | None
) -> dict[str, Any]:
    """What int8 loses on retrieval; raises `OmniAlignError` where that is not accepted."""
    try:
        if recipe is None:
            raise OmniAlignError("there is no recipe beside the model")
        found = retrieval_loss(space, modality, run, recipe)
    except (OmniAlignError, OSError) as error:
        if max_loss is None or max_loss < 1:
            raise OmniAlignError(
                f"what int8 loses on retrieval cannot be measured: {error}; export where the "
                "recipe's test rows are, or accept any loss unseen with --accept-loss"
            ) from None
        return {"not_measured": str(error)}
    if max_loss is None or found["largest_loss"] > max_loss:
        raise OmniAlignError(
            f"int8 loses {stated_loss(found)}; "
            + (
                "say that it may: --accept-loss, or a bound as in --max-loss 0.02"
                if max_loss is None
                else f"that is more than --max-loss {max_loss:g}; export float32, or allow more"
            )
        )
    return found


def stated_loss(retrieval: dict[str, Any]) -> str:
    """One line of what `retrieval_loss` found."""
    parts = [
        f"{name} {direction.replace('_to_', ' → ')} {recall['live']:.3f} → {recall['exported']:.3f}"
        for direction, found in retrieval["directions"].items()
        for name, recall in found.items()
    ]
    return (
        f"{retrieval['largest_loss']:.3f} of recall at most on {retrieval['num_pairs']} pairs of "
        f"'{retrieval['data']}' ({', '.join(parts)})"
    )


def _write_example(partial: Path, tower: Tower, dim: int, samples: Samples) -> None:
    inputs = samples.inputs[:EXAMPLE_ROWS]
    tensors = {
        **named(tower.pipeline.collate(inputs)),
        OUTPUT: live_vectors(tower, dim, inputs, EXAMPLE_ROWS),
    }
    told = {"samples": json.dumps(samples.names[:EXAMPLE_ROWS], ensure_ascii=False)}
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, told)
    (partial.parent / f"{partial.name}.example.safetensors").write_bytes(data)
