"""The whole nano recipe in one command: text tokenizer, image tokenizer, MLLM, scores.

A run folder holds config.yaml, text/tokenizer.model, image_tokenizer/ and mllm/ (checkpoints,
log.jsonl, samples), codes.safetensors, and in the end unitok/ and mllm_model/: the weights as they
are shipped, in bfloat16, and scores.json measured on exactly these.
"""

import logging
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from pydantic import Field

from eval.nano import DEFAULT_ITEMS, ScoreItems, measure, write_scores
from mllm.console import announce, progress_bar, user_errors
from mllm.pipeline import Pipeline
from mllm.processor import Processor
from mllm.text_tokenizer import TOKENIZER_FILE, TextTokenizer
from train.config import CONFIG_COPY, RunConfig, begin_run, load_config, saved_settings
from train.nano_mllm import MLLMConfig, train_mllm
from train.nano_tokenizer import NanoTokenizerConfig, train_tokenizer
from train.scene_data import extract_scene_codes, text_lines
from train.text_tokenizer import train_text_tokenizer
from unitok.model import WEIGHTS_FILE, UniTok

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "nano.yaml"
SCORES_FILE = "scores.json"

logger = logging.getLogger(__name__)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class TextConfig(RunConfig):
    """The text tokenizer."""

    vocab_size: int
    num_examples: int


class CodesConfig(RunConfig):
    """Pictures that are encoded once for the MLLM."""

    num_examples: int = Field(gt=0)
    num_dialogues: int = Field(gt=0)


class NanoConfig(RunConfig):
    """The whole recipe."""

    budget_minutes: float = Field(gt=0)  # of training; stages without a number of steps share it
    image_tokenizer_share: float = Field(gt=0, lt=1)
    text: TextConfig
    image_tokenizer: NanoTokenizerConfig
    codes: CodesConfig
    mllm: MLLMConfig


class NanoRun:
    """One run folder and the stages that fill it; a stage whose result is there is not repeated."""

    def __init__(self, config: NanoConfig, folder: Path, *, resume: bool) -> None:
        self.config = config
        self.folder = folder
        self.resume = resume

    def train(self) -> Pipeline | None:
        """All stages; returns the pipeline as stored, or None when a signal stopped one."""
        text_tokenizer = self._text_tokenizer()
        if not self._train_image_tokenizer():
            return None
        image_tokenizer = UniTok.from_pretrained(self.folder / "unitok")
        self._extract_codes(image_tokenizer)
        if not self._train_mllm(text_tokenizer, image_tokenizer):
            return None
        return Pipeline.from_pretrained(
            self.folder / "mllm_model", tokenizer=self.folder / "unitok", device="cpu"
        )

    def _text_tokenizer(self) -> TextTokenizer:
        path = self.folder / "text" / TOKENIZER_FILE
        if path.is_file():
            return TextTokenizer.from_file(path)
        if self.config.mllm.init_from is not None:  # its embeddings belong to its own vocabulary
            processor = Processor.from_pretrained(self.config.mllm.init_from)
            path.parent.mkdir()
            processor.tokenizer.save(path.parent)
            return processor.tokenizer
        logger.info("text tokenizer: reading %d scenes", self.config.text.num_examples)
        lines = text_lines(self.config.text.num_examples)
        return train_text_tokenizer(lines, path.parent, self.config.text.vocab_size, lowercase=True)

    def _train_image_tokenizer(self) -> bool:
        """Whether the trained image tokenizer is in unitok/, in bfloat16."""
        target = self.folder / "unitok"
        if (target / WEIGHTS_FILE).is_file():
            return True
        model = train_tokenizer(
            self.config.image_tokenizer,
            self.folder / "image_tokenizer",
            minutes=self.config.budget_minutes * self.config.image_tokenizer_share,
            resume=self.resume,
        )
        if model is not None:
            model.to(torch.bfloat16).save_pretrained(target)
        return model is not None

    def _extract_codes(self, image_tokenizer: UniTok) -> None:
        path = self.folder / "codes.safetensors"
        if path.is_file():
            return
        with progress_bar("extracting codes") as report:
            extract_scene_codes(
                image_tokenizer,
                path,
                num_examples=self.config.codes.num_examples,
                num_dialogues=self.config.codes.num_dialogues,
                report=report,
            )

    def _train_mllm(self, text_tokenizer: TextTokenizer, image_tokenizer: UniTok) -> bool:
        """Whether the trained MLLM is in mllm_model/, in bfloat16."""
        target = self.folder / "mllm_model"
        if (target / WEIGHTS_FILE).is_file():
            return True
        pipeline = train_mllm(
            self.config.mllm,
            self.folder / "mllm",
            text_tokenizer=text_tokenizer,
            tokenizer=image_tokenizer,
            codes=self.folder / "codes.safetensors",
            minutes=self.config.budget_minutes * (1 - self.config.image_tokenizer_share),
            resume=self.resume,
        )
        if pipeline is not None:
            pipeline.model.to(torch.bfloat16).save_pretrained(target)
            pipeline.processor.save_pretrained(target)
        return pipeline is not None


def start_run(config: Path, overrides: list[str], folder: Path, *, resume: bool) -> NanoRun:
    """A new run in an empty folder, or the one in `folder` with the settings saved there."""
    if resume:
        settings = saved_settings(NanoConfig, folder)
        if overrides:
            raise ValueError(
                f"a resumed run keeps the settings in {folder / CONFIG_COPY}; drop {overrides}"
            )
    else:
        settings = load_config(NanoConfig, config, overrides)
        begin_run(settings, folder)
    return NanoRun(settings, folder, resume=resume)


@app.command(
    help="Train the nano model from scratch and score it.\n\n"
    "Example: python -m train.nano --budget 3 -o runs/smoke"
)
def main(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings, such as mllm.loop.lr=5e-4")
    ] = None,
    output: Annotated[Path, typer.Option("-o", help="Run folder")] = Path("runs/nano"),
    budget: Annotated[
        float | None, typer.Option(help="Training time in minutes; by default the recipe's")
    ] = None,
    config: Annotated[Path, typer.Option(help="YAML recipe")] = DEFAULT_CONFIG,
    items: Annotated[int, typer.Option(help="Held-out items per score")] = DEFAULT_ITEMS,
    resume: Annotated[bool, typer.Option(help="Go on with the run in the folder")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads", min=1)] = 2,
) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    started = time.monotonic()
    changes = [*(overrides or []), *([] if budget is None else [f"budget_minutes={budget}"])]
    with user_errors():
        run = start_run(config, changes, output, resume=resume)
        pipeline = run.train()
    if pipeline is None:
        announce(f"stopped; go on with: python -m train.nano -o {output} --resume")
        return
    scores = measure(pipeline, ScoreItems.spread(items))
    write_scores(scores, output / SCORES_FILE)
    announce(f"{(time.monotonic() - started) / 60:.1f} min; weights and scores are in {output}")


if __name__ == "__main__":
    app()
