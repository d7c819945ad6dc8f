"""A space as an encoder of mteb, the benchmark of embeddings.

Axes: n items, D dim.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import mteb
import torch
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import Modalities
from torch.nn import functional as F  # noqa: N812

from omnialign.errors import ModalityError, OmniAlignError
from omnialign.space import SharedSpace

logger = logging.getLogger(__name__)


class OmniAlignEncoder(AbsEncoder):
    """What `mteb.evaluate` takes; the space's modalities are those of mteb that bear their names.

    Args:
        space: the model.
        name: `organization/model`, under which results stand; the revision is the fingerprint.
    """

    def __init__(self, space: SharedSpace, name: str = "omnialign/space") -> None:
        self.model = space
        self.mteb_model_meta = ModelMeta(
            loader=None,
            name=name,
            revision=space.fingerprint(),
            release_date=None,
            languages=None,
            n_parameters=sum(parameter.numel() for parameter in space.parameters()),
            memory_usage_mb=None,
            max_tokens=None,
            embed_dim=space.dim,
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch"],
            similarity_fn_name=ScoringFunction.COSINE,
            use_instructions=False,
            training_datasets=None,
            modalities=[name for name in get_args(Modalities) if name in space.modalities],
        )

    def encode(
        self, inputs: Any, *, task_metadata: Any, batch_size: int = 64, **kwargs: Any
    ) -> Any:
        """Batches of columns to float32 unit vectors `(n, D)`.

        An item in several modalities is the direction of their mean. What cannot be read, such as
        an empty document, is a zero vector, which is like nothing, and is counted in the log.

        Raises:
            ModalityError: no column is of a modality of the space.
        """
        del kwargs
        rows: list[torch.Tensor] = []
        unreadable: list[str] = []
        for batch in inputs:
            names = [name for name in batch if name in self.model.modalities]
            if not names:
                raise ModalityError(
                    f"task {task_metadata.name} gives {', '.join(batch)}; this model has: "
                    f"{', '.join(self.model.modalities)}"
                )
            sums = torch.zeros(len(batch[names[0]]), self.model.dim)
            for name in names:
                failed: dict[int, str] = {}
                items = list(batch[name])
                sums += self.model.embed_known(
                    items, [name] * len(items), batch_size=batch_size, unreadable=failed
                )
                unreadable += failed.values()
            rows.append(F.normalize(sums, dim=-1))
        vectors = torch.cat(rows)
        if unreadable:
            reasons = f"{len(unreadable)} of {len(vectors)} items, first: {unreadable[0]}"
            if not vectors.any():
                raise OmniAlignError(f"task {task_metadata.name}: nothing can be read: {reasons}")
            logger.warning("task %s: passed over %s", task_metadata.name, reasons)
        return vectors.numpy()


def run(
    space: SharedSpace,
    name: str,
    output: Path,
    *,
    tasks: Sequence[str] = (),
    benchmark: str | None = None,
) -> tuple[dict[str, float], dict[str, str]]:
    """Runs mteb's tasks by name, or those of a benchmark, with data from the hub.

    Args:
        space: the model.
        name: `organization/model`, under which results stand.
        output: the folder for mteb's `results`; what is there already is not run again.
        tasks: by name.
        benchmark: by name, in the place of tasks.

    Returns:
        The main scores by task, from 0 to 1; and by task why it has none.

    Raises:
        OmniAlignError: mteb knows no such task or benchmark.
    """
    try:
        chosen = mteb.get_benchmark(benchmark) if benchmark else mteb.get_tasks(tasks=[*tasks])
    except KeyError as error:
        raise OmniAlignError(f"mteb has no such task or benchmark: {error.args[0]}") from None
    encoder: Any = OmniAlignEncoder(space, name)
    found = mteb.evaluate(encoder, chosen, cache=mteb.ResultCache(output), raise_error=False)
    scores = {result.task_name: result.get_score() for result in found.task_results}
    return scores, {failed.task_name: failed.exception for failed in found.exceptions or ()}
