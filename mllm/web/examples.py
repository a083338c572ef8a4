"""What an empty page offers to try: things that the loaded model can do."""

from dataclasses import dataclass

from mllm.pipeline import Pipeline

NANO_TEMPLATE = "plain"  # the chat template of models that know the drawn world alone


@dataclass(frozen=True)
class Example:
    """A question about an example picture or, without one, a prompt to draw."""

    text: str
    picture: str | None = None  # as in `example:NAME`


NANO_EXAMPLES = (
    Example("what is in the picture?", "unseen"),
    Example("how many hearts are there?", "hearts"),
    Example("where is the triangle relative to the circle?", "pair"),
    Example("three green hearts"),
    Example("a red circle left of a blue square"),
)
GENERAL_EXAMPLES = (
    Example("What is in this picture?", "shapes"),
    Example("How many hearts are there, and what color are they?", "hearts"),
    Example("Where is the triangle?", "pair"),
    Example("a lighthouse on a cliff at dusk, watercolor"),
    Example("a bowl of lemons on a blue table, soft morning light"),
)


def examples_for(pipeline: Pipeline) -> tuple[Example, ...]:
    is_nano = pipeline.model.config.chat_template_name == NANO_TEMPLATE
    return NANO_EXAMPLES if is_nano else GENERAL_EXAMPLES
