"""Speed, each as a ratio against a plain baseline of the same run.

python -m eval.bench vqa
python -m eval.bench tokenizer
python -m eval.bench generate --shape 200m
"""

import time
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
import typer
from rich.table import Table

from eval import generation_speed
from eval.generation_speed import GenerationRequest, GenerationSpeed
from eval.scene_vqa import MAX_NEW_TOKENS, load_questions
from eval.tokenizer_speed import VARIANTS, Speed, SpeedRequest, agreement, measure_apart
from mllm.batch_answers import answer_prompts, build_prompt
from mllm.console import announce, out, progress_bar, quiet_libraries, say, user_errors
from mllm.devices import choose_device
from mllm.messages import as_messages
from mllm.pipeline import Pipeline
from mllm.processor import Encoded

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Measure how fast models are evaluated.",
)


def scene_prompts(pipeline: Pipeline, num_questions: int) -> list[Encoded]:
    """Questions about drawn scenes, of all kinds."""
    questions = load_questions()
    if num_questions > len(questions):
        raise ValueError(f"there are {len(questions)} questions, got --questions {num_questions}")
    return [
        build_prompt(
            pipeline.processor,
            as_messages(question.prompt, question.image),
            name=f"question {question.question_id}",
        )
        for question in questions[:num_questions]
    ]


def time_answers(
    pipeline: Pipeline, prompts: Sequence[Encoded], *, batch_size: int
) -> tuple[float, list[str]]:
    """Questions per second, pictures included, and the answers; a first batch warms up."""
    answer_prompts(
        pipeline, prompts[:batch_size], max_new_tokens=MAX_NEW_TOKENS, batch_size=batch_size
    )
    started = time.monotonic()
    with progress_bar(f"by {batch_size}") as report:
        answers = answer_prompts(
            pipeline,
            prompts,
            max_new_tokens=MAX_NEW_TOKENS,
            batch_size=batch_size,
            progress=report,
        )
    return len(prompts) / (time.monotonic() - started), answers


@app.command(
    help="Batched answers against answers one by one.\n\n"
    "Example: python -m eval.bench vqa --batch-size 64"
)
def vqa(
    model: Annotated[str, typer.Option(help="nano, a folder or a hub name")] = "nano",
    questions: Annotated[int, typer.Option(min=1, help="About drawn scenes")] = 192,
    batch_size: Annotated[int, typer.Option(min=2, help="Questions at a time")] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; by default those of a run")
    ] = None,
) -> None:
    quiet_libraries()
    if threads is not None:
        torch.set_num_threads(threads)
    with user_errors():
        announce(f"loading model {model}")
        pipeline = Pipeline.from_pretrained(model, device=device)
        prompts = scene_prompts(pipeline, questions)
        alone, answers = time_answers(pipeline, prompts, batch_size=1)
        batched, same_answers = time_answers(pipeline, prompts, batch_size=batch_size)
    table = Table(
        title=f"{questions} questions, {pipeline.device}, {torch.get_num_threads()} threads"
    )
    for heading in ("questions at a time", "questions/s", "ratio"):
        table.add_column(heading, justify="right")
    table.add_row("1", f"{alone:.1f}", "1.00")
    table.add_row(str(batch_size), f"{batched:.1f}", f"{batched / alone:.2f}")
    out.print(table)
    num_same = sum(map(str.__eq__, answers, same_answers))
    say(f"{num_same} of {questions} answers are the same")


def measure_variants(request: SpeedRequest) -> dict[str, Speed]:
    """Every variant by its name; all decode the codes of the plain one, which comes first."""
    speeds: dict[str, Speed] = {}
    for variant in VARIANTS:
        announce(f"measuring {variant}")
        codes = speeds["plain"].codes if speeds else None
        speeds[variant] = measure_apart(request, variant, codes=codes)
    return speeds


def speed_rows(speeds: Mapping[str, Speed]) -> list[list[str]]:
    """Encode and decode of every variant beside the plain one."""
    plain = speeds["plain"]
    return [
        [
            half,
            variant,
            f"{getattr(speed, f'{half}_per_second'):.2f}",
            f"{getattr(speed, f'{half}_per_second') / getattr(plain, f'{half}_per_second'):.2f}",
            f"{getattr(speed, f'{half}_gib'):.3f}",
        ]
        for half in ("encode", "decode")
        for variant, speed in speeds.items()
    ]


@app.command(
    help="A tokenizer's encode and decode against plain eager float32, at equal and at our fastest "
    "precision.\n\n"
    "Example: python -m eval.bench tokenizer --model large --batch-size 2"
)
def tokenizer(
    model: Annotated[
        str, typer.Option(help="nano, a folder, a hub name; base or large: random weights")
    ] = "nano",
    image_size: Annotated[
        int | None, typer.Option(min=16, help="Pixels per side; by default the model's own")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at a time")] = 8,
    seconds: Annotated[float, typer.Option(min=0, help="Of each measurement, at least")] = 10.0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads")] = 1,
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Compile ours; by default on CUDA only"),
    ] = None,
) -> None:
    quiet_libraries()
    with user_errors():
        where = choose_device(device).type
        use_compile = where == "cuda" if compiled is None else compiled
        request = SpeedRequest(model, image_size, batch_size, seconds, where, threads, use_compile)
        speeds = measure_variants(request)
    form = "ours compiled" if use_compile else "nothing compiled"
    table = Table(title=f"{model}, {batch_size} at a time, {where}, {threads} threads, {form}")
    for heading in ("half", "variant", "pictures/s", "ratio", "peak GiB"):
        table.add_column(heading, justify="right" if heading[0] in "pr" else "left")
    for row in speed_rows(speeds):
        table.add_row(*row)
    out.print(table)
    for variant in VARIANTS[1:]:
        say(f"{variant}: {agreement(speeds['plain'], speeds[variant]):.2%} of sub-codes as plain")


def generation_rows(
    speeds: Mapping[str, GenerationSpeed], batch_size: int, *, bandwidth: float | None
) -> list[list[str]]:
    """Every variant beside the plain one; `bandwidth` in GB/s gives the share of the floor."""
    plain, rows = speeds["plain"], []
    for variant, speed in speeds.items():
        sub_codes = speed.num_sub_codes * batch_size / speed.seconds
        forced = speed.forced_agreement
        row = [
            str(batch_size),
            variant,
            f"{speed.seconds / batch_size:.2f}",
            f"{sub_codes:.0f}",
            f"{plain.seconds / speed.seconds:.2f}",
            f"{speed.peak_gib:.3f}",
            f"{generation_speed.agreement(plain, speed):.1%}",
            "" if forced is None else f"{forced:.1%}",
        ]
        if bandwidth is not None:
            row.append(f"{speed.floor_seconds(bandwidth) / speed.seconds:.0%}")
        rows.append(row)
    return rows


@app.command(
    help="Drawing against a plain eager float32 loop, at equal precision and in bfloat16.\n\n"
    "Example: python -m eval.bench generate --shape 200m --batch-size 1 --batch-size 8 --rows 1"
)
def generate(
    shape: Annotated[str, typer.Option(help="nano; 200m, 1b or 7b: random weights")] = "nano",
    batch_size: Annotated[list[int], typer.Option(min=1, help="Pictures at a time")] = [1, 8],  # noqa: B006
    rows: Annotated[
        int | None,
        typer.Option(min=1, help="Rows of the grid to time; a picture counts as all 16"),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs, the fastest counts")] = 3,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads")] = 1,
    bandwidth: Annotated[
        float | None, typer.Option(min=1, help="GB/s of the GPU's memory: prints share of floor")
    ] = None,
) -> None:
    quiet_libraries()
    with user_errors():
        where = choose_device(device).type
        table = Table(title=f"drawing, {shape}, {where}, {threads} threads")
        headings = ["pictures", "variant", "s/picture", "sub-codes/s", "ratio", "peak GiB"]
        headings += ["same codes", "same choices"] + ["of floor"] * (bandwidth is not None)
        for heading in headings:
            table.add_column(heading, justify="left" if heading == "variant" else "right")
        for size in batch_size:
            request = GenerationRequest(shape, size, rows, repeats, where, threads)
            speeds = measure_generation(request)
            for row in generation_rows(speeds, size, bandwidth=bandwidth):
                table.add_row(*row)
    out.print(table)


def measure_generation(request: GenerationRequest) -> dict[str, GenerationSpeed]:
    """Every variant by its name; the plain one comes first."""
    speeds: dict[str, GenerationSpeed] = {}
    for variant in generation_speed.VARIANTS:
        announce(f"measuring {variant}, {request.batch_size} at a time")
        codes = speeds["plain"].codes if speeds else None
        speeds[variant] = generation_speed.measure_apart(request, variant, codes=codes)
    return speeds


if __name__ == "__main__":
    app()
