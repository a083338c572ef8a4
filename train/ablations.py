"""The paper's ablations at nano scale: trains what is missing, measures it and tabulates it.

    python -m train.ablations -o runs/ablations

Variants and studies are in train/configs/ablations/. Each variant and seed has a folder of its own,
a tokenizer run with scores.json in the end. Started again, the command goes on where it was. When
all runs are done, results.json, results.md and a plot of each study are written beside them.
"""

import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from mllm.console import announce, quiet_libraries, user_errors
from mllm.pictures import save_png
from train.ablation_config import AblationConfig, QuantizerKind, load_variants, seeded
from train.ablation_plot import draw_study
from train.ablation_results import AblationResults, markdown_table
from train.ablation_scores import ScoreSizes, measure
from train.config import CONFIG_COPY, load_config, saved_settings
from train.residual_quantizer import use_residual_quantizer
from train.tokenizer import initial_weights, open_run
from train.tokenizer_config import TokenizerConfig
from unitok.files import atomic_write, read_json, write_json
from unitok.model import UniTok

VARIANTS = Path(__file__).parent / "configs" / "ablations" / "variants.yaml"
SCORES_FILE = "scores.json"
RESULTS_FILE, TABLES_FILE = "results.json", "results.md"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class AblationRun:
    """One variant with one seed."""

    variant: str
    seed: int
    quantizer: QuantizerKind
    config: TokenizerConfig
    sizes: ScoreSizes

    @property
    def folder(self) -> Path:
        return Path(self.config.output)

    @property
    def is_done(self) -> bool:
        """Whether its scores are there; ValueError if they are those of other settings."""
        if not (self.folder / SCORES_FILE).is_file():
            return False
        found = read_json(self.folder / SCORES_FILE)
        measured_so = all(found[name] == value for name, value in self.described().items())
        if not measured_so or saved_settings(TokenizerConfig, self.folder) != self.config:
            raise ValueError(
                f"{self.folder} was run with other settings than these; name another output "
                "folder, or delete it"
            )
        return True

    def described(self) -> dict[str, Any]:
        """What scores.json says of the run beside its scores."""
        return {
            "variant": self.variant,
            "seed": self.seed,
            "quantizer": self.quantizer,
            "sizes": self.sizes.model_dump(),
        }

    def build_model(self, config: TokenizerConfig) -> UniTok:
        model = initial_weights(config)
        return use_residual_quantizer(model) if self.quantizer == "residual" else model


def plan_runs(
    path: Path, ablation: AblationConfig, *, output: Path, seeds: int, overrides: Sequence[str]
) -> list[AblationRun]:
    """All variants with one seed, then all with the next one."""
    variants = load_variants(path, ablation, overrides)
    return [
        AblationRun(
            name,
            seed,
            ablation.variants[name].quantizer,
            seeded(config, seed=seed, folder=output / name / f"seed_{seed}"),
            ablation.scores,
        )
        for seed in range(seeds)
        for name, config in variants.items()
    ]


def carry_out(run: AblationRun) -> bool:
    """Train and measure; returns False when a signal stopped it before (state is saved)."""
    started = time.monotonic()
    trainer = open_run(
        run.config, resume=(run.folder / CONFIG_COPY).is_file(), build_model=run.build_model
    )
    if not trainer.run():
        return False
    scores = measure(trainer.model.eval(), run.config.weights, run.sizes)
    content = {
        **run.described(),
        "scores": dataclasses.asdict(scores),
        "minutes": round((time.monotonic() - started) / 60, 2),  # of the last start
    }
    write_json(content, run.folder / SCORES_FILE)
    return True


def collect(ablation: AblationConfig, runs: Sequence[AblationRun]) -> AblationResults:
    """The scores of finished runs; the first one's variant is what others change."""
    place = {"seed": True, "output": True}  # these differ from run to run
    base = runs[0].config.model_dump(mode="json", exclude=place)
    return AblationResults(ablation, base, [read_json(run.folder / SCORES_FILE) for run in runs])


def write_results(results: AblationResults, folder: Path) -> None:
    """Everything as JSON, tables as Markdown, and a plot of each study."""
    write_json(results.to_json(), folder / RESULTS_FILE)
    tables = []
    for name, study in results.ablation.studies.items():
        rows = results.rows(name)
        tables.append(f"## {study.title}\n\n{markdown_table(rows)}")
        save_png(draw_study(study.title, rows), folder / f"{name}.png")
    with atomic_write(folder / TABLES_FILE) as temporary:
        temporary.write_text("\n".join(tables), encoding="utf-8")


@app.command(
    help="Train, measure and compare the variants of the paper's ablations; started again, it goes "
    "on.\n\nExample: python -m train.ablations -o runs/ablations"
)
def main(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of all runs")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings of all variants, such as steps=50")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant")] = 3,
    variants: Annotated[Path, typer.Option(help="YAML of variants and studies")] = VARIANTS,
) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    quiet_libraries()
    with user_errors():
        ablation = load_config(AblationConfig, variants)
        runs = plan_runs(variants, ablation, output=output, seeds=seeds, overrides=overrides or [])
        for number, run in enumerate(runs, start=1):
            announce(f"run {number} of {len(runs)}: {run.variant}, seed {run.seed}")
            if not run.is_done and not carry_out(run):
                announce("stopped and saved; the same command goes on")
                return
        write_results(collect(ablation, runs), output)
    announce(f"tables and plots are in {output}")


if __name__ == "__main__":
    app()
