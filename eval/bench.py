"""Speed of evaluation, each as a ratio against a plain baseline of the same run.

python -m eval.bench vqa
"""

import time
from collections.abc import Sequence
from typing import Annotated

import torch
import typer
from rich.table import Table

from eval.scene_vqa import MAX_NEW_TOKENS, load_questions
from mllm.batch_answers import answer_prompts, build_prompt
from mllm.console import announce, out, progress_bar, quiet_libraries, say, user_errors
from mllm.messages import as_messages
from mllm.pipeline import Pipeline
from mllm.processor import Encoded

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback(help="Measure how fast models are evaluated.")
def benchmarks() -> None:
    """Makes typer expect the name of a benchmark even while there is only one."""


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
    threads: Annotated[int, typer.Option(min=1, help="CPU threads")] = 1,
) -> None:
    quiet_libraries()
    torch.set_num_threads(threads)
    with user_errors():
        announce(f"loading model {model}")
        pipeline = Pipeline.from_pretrained(model, device=device)
        prompts = scene_prompts(pipeline, questions)
        alone, answers = time_answers(pipeline, prompts, batch_size=1)
        batched, same_answers = time_answers(pipeline, prompts, batch_size=batch_size)
    table = Table(title=f"{questions} questions, {pipeline.device}, {threads} threads")
    for heading in ("questions at a time", "questions/s", "ratio"):
        table.add_column(heading, justify="right")
    table.add_row("1", f"{alone:.1f}", "1.00")
    table.add_row(str(batch_size), f"{batched:.1f}", f"{batched / alone:.2f}")
    out.print(table)
    num_same = sum(map(str.__eq__, answers, same_answers))
    say(f"{num_same} of {questions} answers are the same")


if __name__ == "__main__":
    app()
