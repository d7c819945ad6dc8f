"""Class names in words: descriptions, and the templates that they are put into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from omnialign.errors import OmniAlignError

Description: TypeAlias = str | Sequence[str]
"""What stands for a label: words, or several wordings that are averaged."""
Labels: TypeAlias = Sequence[str] | Mapping[str, Description]


def described(labels: Labels) -> dict[str, Description]:
    """Labels with what stands for each: itself, where nothing else is said.

    Raises `OmniAlignError` for fewer than two labels, equal ones and one without a description.
    """
    if isinstance(labels, str) or len(set(labels)) < 2 or len(set(labels)) < len(labels):
        raise OmniAlignError(f"classify wants two or more different labels; got {labels!r}")
    by_label = labels if isinstance(labels, Mapping) else {label: label for label in labels}
    found: dict[str, Description] = dict(by_label)
    for label, description in found.items():
        wordings = [description] if isinstance(description, str) else description
        if not wordings or not all(str(words).strip() for words in wordings):
            raise OmniAlignError(
                f"label '{label}' wants a description, or a list of them; got {description!r}"
            )
    return found


def filled(templates: Sequence[str], description: Description) -> list[str]:
    """Every wording in every template; raises `OmniAlignError` for a template without `{}`."""
    if isinstance(templates, str) or not templates or not all("{}" in t for t in templates):
        raise OmniAlignError(f"templates want {{}} in every one of them; got {templates!r}")
    wordings = [description] if isinstance(description, str) else description
    return [template.replace("{}", words) for words in wordings for template in templates]
