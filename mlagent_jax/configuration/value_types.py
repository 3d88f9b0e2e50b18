"""The types of the values in a configuration, and the strictness of its sections."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

Count = Annotated[int, Field(gt=0)]
CountOrZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
BelowOne = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Dtype = Literal["float32", "bfloat16"]
# A number in the order of the PCI slots, as nvidia-smi shows it, or a UUID.
Gpu = CountOrZero | Annotated[str, Field(pattern="^GPU-")]
Gpus = Annotated[tuple[Gpu, ...], Field(min_length=1)]

STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False)
