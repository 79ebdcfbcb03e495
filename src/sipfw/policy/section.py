"""What every section of a policy is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Strict

# YAML 1.2 reads `no`, `off` and `yes` as text; lax parsing would let them through by luck.
Flag = Annotated[bool, Strict()]
StrictInt = Annotated[int, Strict()]


class Section(BaseModel):
    """Base of every section: unknown fields are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)
