"""Whether the pictures of a GenEval run are all there: partial runs must not pass as complete."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.geneval_prompts import (
    NUM_OFFICIAL_IMAGES,
    NUM_OFFICIAL_PROMPTS,
    OFFICIAL_SHA256,
    prompts_sha256,
)
from eval.geneval_results import PromptFolder

OFFICIAL_PROMPTS = {
    "name": "official",
    "num_prompts": NUM_OFFICIAL_PROMPTS,
    "sha256": OFFICIAL_SHA256,
}


@dataclass(frozen=True)
class Coverage:
    """The pictures of a run against what it should have."""

    prompts: Mapping[str, Any]  # name, num_prompts, sha256 of the expected; num_all of a choice
    num_images: int  # expected of each prompt
    found_prompts: int
    found_sha256: str
    found_images: tuple[tuple[str, int], ...]  # folder and number of pictures

    @property
    def num_expected(self) -> int:
        return int(self.prompts["num_prompts"]) * self.num_images

    @property
    def num_found(self) -> int:
        return sum(number for _, number in self.found_images)

    @property
    def num_missing(self) -> int:
        """Pictures that should be there; folders that are not there count in full."""
        in_folders = sum(max(self.num_images - number, 0) for _, number in self.found_images)
        lost_prompts = max(int(self.prompts["num_prompts"]) - self.found_prompts, 0)
        return in_folders + lost_prompts * self.num_images

    @property
    def num_extra(self) -> int:
        """Pictures beyond the expected number of each prompt."""
        return sum(max(number - self.num_images, 0) for _, number in self.found_images)

    @property
    def is_complete(self) -> bool:
        """Whether all prompts, not a choice of them, have all their pictures."""
        return "num_all" not in self.prompts and not self.problems()

    def problems(self) -> list[str]:
        """What is missing of the pictures that the run should have, in words."""
        found = []
        if self.found_sha256 != self.prompts["sha256"]:
            found.append(
                f"its {self.found_prompts} prompts are not the {self.prompts['num_prompts']} "
                f"{self.prompts['name']} ones"
            )
        odd = [(name, number) for name, number in self.found_images if number != self.num_images]
        if odd:
            found.append(
                f"folders without exactly {self.num_images} pictures: {len(odd)}, such as "
                f"{odd[0][0]} with {odd[0][1]}"
            )
        return found


def measure_coverage(
    folders: Sequence[PromptFolder],
    generation: Mapping[str, Any] | None,
    *,
    num_images: int | None = None,
) -> Coverage:
    """What is there against what `generation` (settings of ours) or else the benchmark demands.

    `num_images` is the number of pictures of each prompt where they are not of our making.
    """
    settings = generation or {"prompts": OFFICIAL_PROMPTS, "num_images": NUM_OFFICIAL_IMAGES}
    return Coverage(
        prompts=settings["prompts"],
        num_images=num_images or settings["num_images"],
        found_prompts=len(folders),
        found_sha256=prompts_sha256(folder.metadata_json for folder in folders),
        found_images=tuple((folder.path.name, len(folder.images)) for folder in folders),
    )


def check_coverage(coverage: Coverage, images: Path, *, is_partial: bool) -> None:
    """Refuse to score an incomplete run unless it is to be labelled partial."""
    problems = coverage.problems()
    if problems and not is_partial:
        raise ValueError(
            f"{images} is not complete, {coverage.num_found} of {coverage.num_expected} pictures: "
            f"{'; '.join(problems)}; finish it, or score what is there with --partial, which "
            "labels the scores"
        )
