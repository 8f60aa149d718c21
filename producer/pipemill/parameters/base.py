"""Types that the parameter models of several tasks share."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from pipemill.validation import Explanation, mistaken, several

#: Tokens. Above the context of every model in wide use; what the model itself takes may be less.
MAX_TOKENS: Final = 131_072
#: Entries a ranking may return: every one of them is built, encoded and stored.
MAX_RANKED: Final = 1_000


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise mistaken("half of a surrogate pair, which no tokenizer takes", "send valid Unicode") from None
    return text


#: A string that can be encoded as UTF-8; tokenizers fail on any other.
Text = Annotated[str, AfterValidator(_encodable)]
#: A number that is neither NaN nor infinite.
Finite = Annotated[float, Field(allow_inf_nan=False)]
#: A number of tokens.
TokenCount = Annotated[int, Field(ge=1, le=MAX_TOKENS)]


class Parameters(BaseModel):
    """Base of all parameter models: strict, closed, unchanging. What was left out reads ``None``."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class NoParameters(Parameters):
    """The task takes no parameters."""


def about(name: str, problem: str, mend: str) -> PydanticCustomError:
    """Build the error of a rule over several parameters, told of one of them."""
    return several([Explanation(keys=(name,), problem=problem, mend=mend)])


def left_out(description: str, **constraints: Any) -> Any:
    """Build the field of a parameter that may be left out; the pipeline then decides, so no default stands here."""
    return Field(default=None, description=description, **constraints)
