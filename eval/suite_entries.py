"""What a suite may hold: one kind of entry for each way of measuring.

An entry is a strict setting that can check, before anything runs, whether all it needs is there,
and run in a folder of its own, going on where it was stopped. What it runs is what the command of
its benchmark runs.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt

from eval import genai_bench, mjhq_fid
from eval.asking import AskConfig, Asking
from eval.benchmarks import load_benchmark, submission_name
from eval.drawing_options import Drawer, Sampling
from eval.genai_skills import read_prompts, read_skills
from eval.geneval import PICTURES_FOLDER, find_prompts
from eval.geneval_judge import JudgeChoice
from eval.geneval_pictures import generate
from eval.geneval_prompts import NUM_OFFICIAL_IMAGES, PromptSet
from eval.geneval_scoring import ScoringRun, score
from eval.inception import Inception
from eval.mjhq_fid import Comparison, check_folder, read_entries
from eval.mmvet_grader import OFFICIAL_GRADER, EndpointGrader, read_table
from eval.picture_commands import draw_benchmark
from eval.picture_features import find_pictures
from eval.picture_scorers import load_scorer
from eval.report import BenchmarkReport, read_report, write_report
from eval.vqa import ask
from mllm.devices import choose_device
from unitok.run_config import RunConfig

REPORT_FILE = "report.json"  # of an entry; only a file for a test server comes after it
GRADES_FILE = "grades.json"
MMVET_FOLDER = "mm-vet"  # below the data of the understanding benchmarks


@dataclass(frozen=True)
class RunSetup:
    """What all entries of a run have in common."""

    model: str = "nano"  # nano, a folder or a hub name
    data: Path | None = None  # of the understanding benchmarks
    device: str = "auto"
    dtype: str | None = None
    num_processes: int = 1
    limit: int | None = None  # only so many questions or prompts of each entry, for a first look

    def drawer(self, sampling: Sampling) -> Drawer:
        """The model, drawing in this way."""
        return Drawer(
            **sampling.model_dump(), model=self.model, device=self.device, dtype=self.dtype
        )


class SuiteEntry(RunConfig):
    """What entries of all kinds have in common."""

    def is_finished(self, folder: Path) -> bool:
        """Whether nothing is left to do in the entry's folder."""
        return (folder / REPORT_FILE).is_file()


class QuestionEntry(SuiteEntry):
    """Questions of a benchmark: what `python -m eval.vqa` asks."""

    benchmark: str
    batch_size: PositiveInt = 16
    options: tuple[str, ...] = ()  # of the benchmark, as NAME=VALUE

    def check(self, setup: RunSetup) -> None:
        """Raise FileNotFoundError and its kin for data, ValueError for settings."""
        self._asking(Path(), setup).rehearse()
        self._check_more(setup)

    def is_finished(self, folder: Path) -> bool:
        """The file for a test server comes after the report; a limited run has none."""
        if not super().is_finished(folder):
            return False
        submission = submission_name(load_benchmark(self.benchmark))
        is_whole = read_report(folder / REPORT_FILE).settings.get("is_complete", True)
        return submission is None or not is_whole or (folder / submission).exists()

    def run(self, folder: Path, setup: RunSetup) -> BenchmarkReport:
        """Ask and score what is missing."""
        asking = self._asking(folder, setup)
        ask(asking, setup.num_processes)
        return asking.finish(**self._more_options(folder))

    def _asking(self, folder: Path, setup: RunSetup) -> Asking:
        return Asking(
            AskConfig(
                self.benchmark,
                folder,
                data=setup.data,
                model=setup.model,
                limit=setup.limit,
                batch_size=self.batch_size,
                device=setup.device,
                dtype=setup.dtype,
                options=self.options,
            )
        )

    def _check_more(self, setup: RunSetup) -> None:
        """Raise unless what an entry needs besides questions and answers is there."""

    def _more_options(self, folder: Path) -> Mapping[str, Any]:
        """Of the scorer, where they have no text form."""
        return {}


class UnderstandingEntry(QuestionEntry):
    """A benchmark whose scorer needs nothing but answers and files."""

    kind: Literal["vqa"]


class MmvetEntry(QuestionEntry):
    """MM-Vet, whose answers a language model grades; without one it is asked, but not scored."""

    kind: Literal["mmvet"]
    benchmark: Literal["mmvet"] = "mmvet"
    grader_url: str | None = None  # an OpenAI-compatible endpoint
    grader: str = OFFICIAL_GRADER
    key_variable: str = "OPENAI_API_KEY"  # environment variable with the endpoint's key
    num_runs: PositiveInt = 1  # grades for each answer; 5 in the paper

    def _check_more(self, setup: RunSetup) -> None:
        if self._grader() is not None:
            read_table(Path(setup.data or "") / MMVET_FOLDER)  # the grader's examples

    def _more_options(self, folder: Path) -> Mapping[str, Any]:
        if (grader := self._grader()) is None:
            return {}
        return {"grader": grader, "grades": folder / GRADES_FILE, "num_runs": self.num_runs}

    def _grader(self) -> EndpointGrader | None:
        if self.grader_url is None:
            return None
        key = os.environ.get(self.key_variable)
        return EndpointGrader(self.grader, self.grader_url, api_key=key)


class GenEvalEntry(SuiteEntry):
    """GenEval's prompts or drawn scenes: what `python -m eval.geneval run` draws and judges."""

    kind: Literal["geneval"]
    prompts: str  # evaluation_metadata.jsonl, a file like it, or drawn
    detector: str
    colors: str | None = None
    options: tuple[str, ...] = ()  # official key=value
    per_task: PositiveInt = 10  # of drawn scenes
    num_images: PositiveInt = NUM_OFFICIAL_IMAGES
    sampling: Sampling = Sampling()

    def check(self, setup: RunSetup) -> None:
        """Raise unless prompts are there and detector and colour classifier load."""
        self._prompts(setup)
        judge = self._choice(setup).load()
        _ = judge.colors

    def run(self, folder: Path, setup: RunSetup) -> BenchmarkReport:
        """Draw and judge what is missing."""
        run = ScoringRun(folder / PICTURES_FOLDER, folder)
        run.check()
        generate(
            self._prompts(setup),
            run.images,
            drawer=setup.drawer(self.sampling),
            num_images=self.num_images,
            num_processes=setup.num_processes,
        )
        return score(run, self._choice(setup), num_processes=setup.num_processes)

    def _choice(self, setup: RunSetup) -> JudgeChoice:
        return JudgeChoice(self.detector, None, self.colors, self.options, setup.device)

    def _prompts(self, setup: RunSetup) -> PromptSet:
        return find_prompts(self.prompts, per_task=self.per_task, limit=setup.limit)


class GenAiBenchEntry(SuiteEntry):
    """GenAI-Bench: what `python -m eval.genai_bench` draws and scores."""

    kind: Literal["genai_bench"]
    prompts: Path  # prompts.txt
    skills: Path  # genai_skills.json
    scorer: str  # module:name
    sampling: Sampling = Sampling()

    def check(self, setup: RunSetup) -> None:
        """Raise unless the official files are there and the scorer loads."""
        read_skills(self.skills, num_prompts=len(read_prompts(self.prompts)))
        load_scorer(self.scorer)

    def run(self, folder: Path, setup: RunSetup) -> BenchmarkReport:
        """Draw and score what is missing."""
        prompts = read_prompts(self.prompts)
        pictures = folder / PICTURES_FOLDER
        paths = [
            genai_bench.picture_path(pictures, number) for number in range(1, len(prompts) + 1)
        ]
        draw_benchmark(
            setup.drawer(self.sampling),
            prompts,
            paths,
            folder=pictures,
            benchmark=genai_bench.BENCHMARK,
            num_processes=setup.num_processes,
            limit=setup.limit,
        )
        request = genai_bench.ScoreRequest(
            self.prompts,
            self.skills,
            pictures,
            scorer=self.scorer,
            is_partial=setup.limit is not None,
        )
        report = genai_bench.score(request)
        write_report(report, folder / REPORT_FILE)
        return report


class MjhqEntry(SuiteEntry):
    """MJHQ-30K: what `python -m eval.mjhq` draws and compares."""

    kind: Literal["mjhq"]
    metadata: Path  # meta_data.json
    references: Path  # the data set's pictures, of the size that one compares with
    inception: Path | None = None  # None: where torch-fidelity keeps its download
    per_category: bool = False
    sampling: Sampling = Sampling()

    def check(self, setup: RunSetup) -> None:
        """Raise unless prompts, all references and the Inception weights are there."""
        entries = read_entries(self.metadata)
        if not self.references.is_dir():
            raise FileNotFoundError(
                f"no folder {self.references}; unpack mjhq30k_imgs.zip of the data set "
                "playgroundai/MJHQ-30K there"
            )
        found = check_folder(self.references, find_pictures(self.references), entries)
        if problems := list(found.problems()):
            raise FileNotFoundError(f"{'; '.join(problems)}; unpack the data set again")
        self._inception(setup)

    def run(self, folder: Path, setup: RunSetup) -> BenchmarkReport:
        """Draw what is missing and compare."""
        entries = read_entries(self.metadata)
        pictures = folder / PICTURES_FOLDER
        paths = [pictures / f"{entry.stem}.jpg" for entry in entries]
        prompts = [entry.prompt for entry in entries]
        draw_benchmark(
            setup.drawer(self.sampling),
            prompts,
            paths,
            folder=pictures,
            benchmark=mjhq_fid.BENCHMARK,
            num_processes=setup.num_processes,
            limit=setup.limit,
        )
        is_partial = setup.limit is not None
        comparison = Comparison(
            pictures, self.references, self.metadata, is_partial, self.per_category
        )
        return mjhq_fid.score(comparison, self._inception(setup), output=folder / REPORT_FILE)

    def _inception(self, setup: RunSetup) -> Inception:
        return Inception.from_file(self.inception, device=choose_device(setup.device))


Entry = UnderstandingEntry | MmvetEntry | GenEvalEntry | GenAiBenchEntry | MjhqEntry
