"""What a user chooses about drawing: settings of a suite, and options of the commands that draw."""

from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_type_hints

import typer
from pydantic import NonNegativeInt, PositiveInt

from eval.picture_folder import DrawingPlan
from mllm.pipeline import MAX_BATCH_SIZE, Pipeline
from mllm.share import process_device
from unitok.image import Rounding
from unitok.run_config import RunConfig

Model = Annotated[str, typer.Option(help="nano, a folder or a hub name")]
Seed = Annotated[
    NonNegativeInt, typer.Option(min=0, help="Of the first picture; the others follow from it")
]
BatchSize = Annotated[PositiveInt, typer.Option(min=1, help="Pictures drawn at a time")]
Guidance = Annotated[float | None, typer.Option(help="1: none; by default the model's own")]
Temperature = Annotated[float | None, typer.Option(min=0, help="By default the model's own")]
TopK = Annotated[int | None, typer.Option(min=1, help="By default the model's own")]
TopP = Annotated[float | None, typer.Option(help="By default the model's own")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16")]


class Sampling(RunConfig):
    """How pictures are drawn; None leaves a value to the model."""

    seed: Seed = 0
    batch_size: BatchSize = MAX_BATCH_SIZE
    guidance_scale: Guidance = None
    temperature: Temperature = None
    top_k: TopK = None
    top_p: TopP = None


class Drawer(Sampling):
    """Who draws, where, and how."""

    model: Model = "nano"
    device: Device = "auto"
    dtype: Dtype = None

    def load(self) -> Pipeline:
        """The model, on the device of this process."""
        device = process_device(self.device)
        return Pipeline.from_pretrained(self.model, device=device, dtype=self.dtype)

    def plan(self, pipeline: Pipeline, rounding: Rounding = "round") -> DrawingPlan:
        """The choices about sampling, and the model's own where none was made."""
        sampling = pipeline.build_sampling(
            guidance_scale=self.guidance_scale,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
        )
        return DrawingPlan(sampling, rounding, self.batch_size)


def with_drawer_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each field of Drawer in place of its argument `drawer`."""
    hints = get_type_hints(Drawer, include_extras=True)
    options = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[name])
        for name, field in Drawer.model_fields.items()
    ]
    own = [each for each in signature(command).parameters.values() if each.name != "drawer"]
    parameters = [*(each.replace(kind=Parameter.KEYWORD_ONLY) for each in own), *options]

    def run(**values: Any) -> None:
        drawer = Drawer(**{name: values.pop(name) for name in Drawer.model_fields})
        command(drawer=drawer, **values)

    # What typer makes a command line of.
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
