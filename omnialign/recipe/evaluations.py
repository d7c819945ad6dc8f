"""What stands in a recipe of rows and of evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

Scalar = str | int | float | bool


class Table(BaseModel):
    """A table of a recipe, which takes no key that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Rows(Table):
    """Some rows of a data table. A bare string takes them all."""

    data: str = Field(description="The name of a data table.")
    where: dict[str, Scalar | list[Scalar]] = Field(
        default_factory=dict[str, Scalar | list[Scalar]],
        description="Keep rows whose column has this value, or one of these.",
    )
    columns: dict[str, str] = Field(
        default_factory=dict[str, str],
        description="Modality to column, where they are called differently.",
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"data": value} if isinstance(value, str) else value


ModalityPair = Annotated[tuple[str, str], Field(description="The two modalities.")]


class Retrieval(Table):
    """Finding each item of one modality by its partner in another, in both directions."""

    task: Literal["retrieval"] = "retrieval"
    modalities: ModalityPair
    rows: Rows

    @property
    def name(self) -> str:
        return "-".join(self.modalities)

    @property
    def needs(self) -> tuple[str, ...]:
        """The modalities whose towers it wants."""
        return self.modalities


class ZeroShot(Table):
    """Classification by the words of the class names."""

    task: Literal["zero_shot"]
    modality: str
    rows: Rows
    label: str = Field(default="label", description="The column with the class names.")
    classes: dict[str, str] = Field(
        default_factory=dict[str, str], description="Words for a label, where it is no word."
    )
    templates: list[str] = Field(
        default_factory=list[str], description="Prompts with {}; default: the modality's own."
    )

    @pydantic.field_validator("templates")
    @classmethod
    def _with_a_place_for_the_label(cls, templates: list[str]) -> list[str]:
        for template in templates:
            if "{}" not in template:
                raise ValueError(f"'{template}' has no {{}} for the label")
        return templates

    @property
    def name(self) -> str:
        return f"{self.modality}-by-{self.label}"

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.modality,)


class Queries(Table):
    """Finding items by questions of your own, in words that need not be anyone's caption."""

    task: Literal["queries"]
    modality: str = Field(description="Of the items that are searched.")
    rows: Rows
    path: str = Field(
        description="A JSON Lines file: query, and columns with the value, or values, of the rows "
        "that answer it."
    )

    @property
    def name(self) -> str:
        return f"{self.modality}-by-{Path(self.path).stem}-queries"

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.modality,)


Evaluation = Annotated[Retrieval | ZeroShot | Queries, Field(discriminator="task")]
