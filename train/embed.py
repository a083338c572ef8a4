"""Make a finished nano run the embedded model: weights, scores, log, samples, README table."""

import json
import re
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from mllm.console import announce, user_errors
from mllm.model import NANO_FOLDER as MLLM_FOLDER
from train.config import CONFIG_COPY, load_config
from train.nano import SCORES_FILE, NanoConfig
from unitok.files import atomic_write
from unitok.model import NANO_FOLDER as TOKENIZER_FOLDER

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
README = ROOT / "README.md"
MAX_MEGABYTES = 30
NOTES_FILE = "notes.md"
SCORE_TABLE = re.compile(r"(<!-- nano-scores -->\n).*?(<!-- /nano-scores -->)", re.DOTALL)
SCORE_TITLES = {
    "reconstruction": "same objects after encode and decode",
    "questions": "questions answered right",
    "drawings": "drawings right by GenEval's rules",
    "drawings_by_count": "drawings by the number of objects",
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def embed_run(run: Path, *, force: bool = False) -> None:
    """Copy what a finished run made into the packages and docs/results; check it first."""
    scores = read_scores(run / SCORES_FILE)
    weights = [run / "unitok", run / "mllm_model"]
    size = sum(file.stat().st_size for folder in weights for file in folder.iterdir()) / 2**20
    if size > MAX_MEGABYTES:
        raise ValueError(f"the weights take {size:.1f} MiB, at most {MAX_MEGABYTES} may ship")
    stored = RESULTS / "nano.json"
    if stored.is_file() and not force and is_worse(scores, read_scores(stored)):
        raise ValueError(f"{run} scores below the embedded model ({stored}); --force replaces it")
    for source, target in zip(weights, (TOKENIZER_FOLDER, MLLM_FOLDER), strict=True):
        copy_files(source, target)
        write_text(target / "README.md", model_card(scores))
    copy_results(run, scores)


def read_scores(path: Path) -> dict[str, Any]:
    """The scores that `python -m eval.nano` or a run stored."""
    if not path.is_file():
        raise FileNotFoundError(f"no scores at {path}; let python -m train.nano finish first")
    scores: dict[str, Any] = json.loads(path.read_text())
    return scores


def is_worse(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether the mean of the three overall scores is lower."""
    names = ("reconstruction", "questions", "drawings")
    return sum(new[name]["all"]["score"] - old[name]["all"]["score"] for name in names) < 0


def copy_files(source: Path, target: Path) -> None:
    """Replace files of the same names in `target`, each in one step."""
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        with atomic_write(target / file.name) as temporary:
            shutil.copyfile(file, temporary)


def copy_results(run: Path, scores: dict[str, Any]) -> None:
    """Settings, logs, scores and the last sample grid of each stage; the tables that show them."""
    folder = RESULTS / "nano"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / CONFIG_COPY, folder / CONFIG_COPY)
    shutil.copyfile(run / SCORES_FILE, RESULTS / "nano.json")
    for stage in ("image_tokenizer", "mllm"):
        shutil.copyfile(run / stage / "log.jsonl", folder / f"{stage}.jsonl")
        newest = max((run / stage / "samples").glob("*.png"))
        shutil.copyfile(newest, folder / f"{stage}.png")
    config = load_config(NanoConfig, run / CONFIG_COPY)
    write_text(RESULTS / "nano.md", results_page(scores, config, run))
    table = f"\\1{overview_table(scores)}\n\\2"
    write_text(README, SCORE_TABLE.sub(table, README.read_text()))


def results_page(scores: dict[str, Any], config: NanoConfig, run: Path) -> str:
    """docs/results/nano.md: every group of every score, and how they came about."""
    images, drawings = stage_summary(run / "image_tokenizer"), stage_summary(run / "mllm")
    picture = config.image_tokenizer.model
    lines = [
        "# The embedded nano model",
        "",
        f"Pictures of {picture.image_size} px, {picture.num_tokens} visual tokens of "
        f"{picture.num_codebooks} sub-codes ({picture.codebook_size} entries each). Trained from "
        "scratch by `python -m train.nano` on the drawn world only; settings and logs are in "
        "[nano/](nano).",
        "",
        f"- Image tokenizer: {images}",
        f"- MLLM: {drawings}",
        *read_notes(run),
        f"- Weights: MLLM `{scores['model_fingerprint']}`, tokenizer "
        f"`{scores['tokenizer_fingerprint']}`, stored and scored in bfloat16.",
        f"- Scores: `{scores['command']}`, {scores['date']}, held-out split, seed "
        f"{scores['items']['seed']}, drawing with {scores['image_sampling']}.",
        f"- Speed once loaded, on {scores['speed']['threads']} CPU threads: "
        f"{scores['speed']['chat_answer_seconds']} s for a chat answer, "
        f"{scores['speed']['four_pictures_seconds']} s for four pictures.",
        "",
        "*shuffled*: the same with the codes (or prompts) of another item; what stays right then "
        "was answered from priors.",
        "",
    ]
    for name, title in SCORE_TITLES.items():
        lines += [f"## {title.capitalize()}", "", *score_table(scores[name]), ""]
    lines += ["## Last samples", ""]
    lines += ["Originals above their reconstructions (held-out scenes):", ""]
    lines += ["![reconstructions](nano/image_tokenizer.png)", ""]
    lines += ["Held-out prompts, one GenEval task per row:", "", "![drawings](nano/mllm.png)", ""]
    return "\n".join(lines)


def read_notes(run: Path) -> list[str]:
    """What someone wrote into notes.md of the run: what logs and settings do not tell."""
    path = run / NOTES_FILE
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def model_card(scores: dict[str, Any]) -> str:
    """What travels with the weights: what they are, what they can do, and what not."""
    return (
        "# nano\n\n"
        "A demonstration model of unitok-mllm: the UniTok architecture (arXiv 2502.20321) with "
        "some ten million parameters, trained from scratch on drawn scenes of one to four coloured "
        "shapes. It answers short English questions about such scenes and draws them; photographs "
        "and any other text mean nothing to it.\n\n"
        "- Training data: generated by `eval/scenes.py`; no photographs, no text from elsewhere.\n"
        "- Recipe: `python -m train.nano`; settings, logs and all scores are in "
        "`docs/results/nano.md`.\n"
        f"- Weights: MLLM `{scores['model_fingerprint']}`, image tokenizer "
        f"`{scores['tokenizer_fingerprint']}`, bfloat16.\n"
        "- Licence: MIT.\n\n"
        f"{overview_table(scores)}\n"
    )


def stage_summary(folder: Path) -> str:
    """Steps, speed and final losses of one stage, from the last line of its log."""
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    losses = [key for key in ("l1", "vq", "clip", "text", "code") if key in last]
    return (
        f"{last['step']} steps at {last['samples_per_second']:.0f} samples/s; last losses "
        + ", ".join(f"{key} {last[key]}" for key in losses)
    )


def score_table(rates: dict[str, Any]) -> list[str]:
    """A Markdown table of one score's groups."""
    rows = [
        f"| {group} | {rate['num_items']} | {rate['score']:.3f} | {rate['shuffled_score']:.3f} |"
        for group, rate in rates.items()
    ]
    return ["| group | items | right | shuffled |", "| --- | --- | --- | --- |", *rows]


def overview_table(scores: dict[str, Any]) -> str:
    """The README's table: one line for each score."""
    rows = [
        f"| {SCORE_TITLES[name]} | {scores[name]['all']['num_items']} | "
        f"{scores[name]['all']['score']:.3f} | {scores[name]['all']['shuffled_score']:.3f} |"
        for name in ("reconstruction", "questions", "drawings")
    ]
    return "\n".join(
        [
            f"| nano, held-out scenes (`{scores['command']}`, {scores['date']}) | items | right "
            "| shuffled |",
            "| --- | --- | --- | --- |",
            *rows,
        ]
    )


def write_text(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text)


@app.command(help="Ship the weights of a finished run.\n\nExample: python -m train.embed runs/nano")
def main(
    run: Annotated[Path, typer.Argument(help="Run folder of python -m train.nano")],
    force: Annotated[bool, typer.Option(help="Even if the scores are lower")] = False,
) -> None:
    with user_errors():
        embed_run(run, force=force)
    announce(f"embedded {run}; look at {RESULTS / 'nano.md'} and commit")


if __name__ == "__main__":
    app()
