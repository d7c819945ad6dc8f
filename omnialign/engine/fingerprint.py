"""What the features of a frozen encoder follow from, besides the item."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from omnialign.contract import ENTRY_POINT_GROUP
from omnialign.registry import registry
from omnialign.tower import Tower

FORMAT = 1


def feature_fingerprint(tower: Tower, bf16: bool) -> str:
    """A hash of weights, options, files, preprocessing, long-input policy, precision and code."""
    encoder = tower.encoder
    stated = {
        "format": FORMAT,
        "modality": tower.modality.name,
        "encoder": tower.config["encoder"],
        "preprocess": tower.stated_preprocess(),
        "window": encoder.window,
        "long_input": tower.config["long_input"],
        "precision": "bf16" if bf16 else "float32",
    }
    digest = hashlib.blake2b(json.dumps(stated, sort_keys=True).encode(), digest_size=16)
    for name, tensor in (*encoder.named_parameters(), *encoder.named_buffers()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\0".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    with TemporaryDirectory() as folder:
        encoder.save_files(Path(folder))
        _add_files(digest, Path(folder), sorted(p for p in Path(folder).rglob("*") if p.is_file()))
    _add_code(digest, tower)
    return digest.hexdigest()


def _add_code(digest: Any, tower: Tower) -> None:
    """The source of the plugin, of the plugins that it builds on and of the core, and versions.

    A reader that was changed gives other features, whatever its version says.
    """
    modality = tower.modality.name
    owner = next((p for p in registry().plugins if modality in p.modalities), None)
    distributions = _required(owner.distribution) if owner and owner.distribution else []
    digest.update(json.dumps(distributions).encode())
    parts = (tower.modality, tower.encoder, tower.encoder.preprocess)
    modules = {getattr(part, "__module__", type(part).__module__) for part in parts}
    required = {_plain(name) for name, _ in distributions}
    modules |= {
        entry.module
        for entry in entry_points(group=ENTRY_POINT_GROUP)
        if entry.dist and _plain(entry.dist.name) in required
    }
    packages = {module.partition(".")[0] for module in modules} | {"omnialign"}
    for package in sorted(packages):
        file = getattr(sys.modules.get(package), "__file__", None)
        if file is not None:
            root = Path(file).parent
            files = sorted(root.rglob("*.py")) if Path(file).stem == "__init__" else [Path(file)]
            _add_files(digest, root, files)


def _required(distribution: str) -> list[tuple[str, str]]:
    """A distribution and what it needs, as installed: names and versions."""
    names = [distribution, "torch"]
    names += [
        re.split(r"[^\w.-]", wanted)[0]
        for wanted in requires(distribution) or []
        if ";" not in wanted
    ]
    found: set[tuple[str, str]] = set()
    for name in names:
        try:
            found.add((name, version(name)))
        except PackageNotFoundError:
            continue
    return sorted(found)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _add_files(digest: Any, root: Path, files: list[Path]) -> None:
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.relative_to(root).as_posix()} {len(content)}\0".encode() + content)
