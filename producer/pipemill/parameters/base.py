"""Types that the parameter models of several tasks share."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from pipemill.validation import Explanation, mistaken, several

#: Tokens. Above the context of every model in wide use; what the model itself takes may be less.
MAX_TOKENS: Final = 131_072
#: Entries a ranking may return: every one of them is built, encoded and stored.
MAX_RANKED: Final = 1_000
#: The largest seed: the largest whole number that Redis, JSON's readers and torch all take.
MAX_SEED: Final = 2**63 - 1


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
#: A share, a probability or a score between none and all.
Share = Annotated[Finite, Field(ge=0, le=1)]
#: A number of tokens.
TokenCount = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
#: How many entries of a ranking are returned.
Ranked = Annotated[int, Field(ge=1, le=MAX_RANKED)]
#: A short name, such as a language's or a speaker's.
Name = Annotated[Text, Field(min_length=1, max_length=64)]
#: What turns logits into scores.
ScoreFunction = Literal["sigmoid", "softmax", "none"]


class Parameters(BaseModel):
    """Base of all parameter models: strict, closed, unchanging. What was left out reads ``None``.

    A model is built when it is first used, since no process has jobs of all tasks; ``validate`` sees to that.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)


class NoParameters(Parameters):
    """The task takes no parameters."""


def about(name: str, problem: str, mend: str) -> PydanticCustomError:
    """Build the error of a rule over several parameters, told of one of them."""
    return several([Explanation(keys=(name,), problem=problem, mend=mend)])


def left_out(description: str, **constraints: Any) -> Any:
    """Build the field of a parameter that may be left out; the pipeline then decides, so no default stands here."""
    return Field(default=None, description=description, **constraints)


def repeatable() -> Any:
    """Build the field of the seed, which is ours: no pipeline knows it."""
    return left_out(
        "Draws are repeatable: the answer is torch.manual_seed(seed), then the direct call; the job shares no batch.",
        ge=0,
        le=MAX_SEED,
    )
