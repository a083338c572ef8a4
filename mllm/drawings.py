"""From prompts to picture files: names, checks before drawing, and notes inside each PNG."""

from dataclasses import asdict, dataclass
from itertools import islice
from os import PathLike
from pathlib import Path

from mllm.console import DISTRIBUTION, project_version
from mllm.generation import Progress
from mllm.pictures import check_png, drawing_paths, save_drawings
from mllm.pipeline import MAX_BATCH_SIZE, Pipeline
from mllm.progress import part_of_progress


@dataclass(frozen=True)
class DrawSettings:
    """What to draw of a prompt; None leaves a value to the model."""

    num_images: int = 1
    seed: int = 0
    guidance_scale: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None


@dataclass(frozen=True)
class DrawingJob:
    """Prompts, and the PNG file of each."""

    prompts: list[str]
    outputs: list[Path]


def plan_drawings(
    prompt: str | None,
    prompts_file: str | PathLike[str] | None = None,
    *,
    output: str | PathLike[str],
    num_images: int,
    force: bool = False,
) -> DrawingJob:
    """One prompt for the PNG `output`, or a file of prompts for the folder `output`.

    The lines of the file become 0001.png, 0002.png, ... All that could keep a picture from being
    written is said here, before anything is loaded or drawn.
    """
    if (prompt is None) == (prompts_file is None):
        raise ValueError("give either a prompt or a file of prompts (--prompts FILE)")
    if prompts_file is not None:
        prompts = read_prompts(prompts_file)
        folder = prepare_folder(output)
        outputs = [folder / f"{number:04d}.png" for number in range(1, len(prompts) + 1)]
    else:
        prompts, outputs = [str(prompt)], [Path(output)]
    for path in outputs:
        for each in drawing_paths(path, num_images):
            check_png(each, force=force)
    return DrawingJob(prompts, outputs)


def draw_prompts(
    pipeline: Pipeline,
    job: DrawingJob,
    *,
    settings: DrawSettings,
    progress: Progress | None = None,
) -> list[Path]:
    """Draw each prompt into its file; several pictures become a grid and single files.

    Files are written as soon as their pictures are there; a prompt that cannot be drawn is refused
    before the first one.
    """
    for prompt in job.prompts:
        pipeline.encode_prompt(prompt)
    notes = build_notes(pipeline, settings)
    chunk_size = max(1, MAX_BATCH_SIZE // settings.num_images)
    written = []
    for start in range(0, len(job.prompts), chunk_size):
        chunk = slice(start, min(start + chunk_size, len(job.prompts)))
        report = part_of_progress(progress, chunk, len(job.prompts))
        prompts = job.prompts[chunk]
        pictures = iter(pipeline.generate_images(prompts, **asdict(settings), progress=report))
        for prompt, output in zip(prompts, job.outputs[chunk], strict=True):
            own = list(islice(pictures, settings.num_images))
            written += save_drawings(own, output, notes={"prompt": prompt, **notes})
    return written


def read_prompts(path: str | PathLike[str]) -> list[str]:
    """The lines of a text file that are not blank."""
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text file; expected one prompt per line") from error
    if not any(lines):
        raise ValueError(f"{path} has no prompts; expected one per line")
    return [line for line in lines if line]


def prepare_folder(path: str | PathLike[str]) -> Path:
    """The folder at `path`, made if it is missing."""
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; name a folder to write to")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def build_notes(pipeline: Pipeline, settings: DrawSettings) -> dict[str, object]:
    """Everything that drawing the same picture again takes, except the prompt."""
    sampling = pipeline.build_sampling(
        guidance_scale=settings.guidance_scale,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
    )
    software = f"{DISTRIBUTION} {project_version()}"
    notes = {"seed": settings.seed, **asdict(sampling), "software": software}
    return {**notes, **pipeline.fingerprints()}
