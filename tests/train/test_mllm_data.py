"""Rows of shards as samples: what cannot be learned from is named, batches are filled up."""

from dataclasses import replace
from pathlib import Path

import pytest

from mllm.pipeline import Pipeline
from tests.mllm.tiny_pipeline import build_tiny_pipeline
from tests.train.runs import ROOT
from tests.train.test_mllm import build_config
from tests.train.tiny_shards import build_rows
from train.code_shards import CodeRow
from train.config import load_config
from train.mllm_data import MixtureDataset, MixtureSource, RowConfig, RowEncoder, check_row
from train.mllm_data import open_mixture as open_sources
from train.stage_config import StageConfig
from train.stage_data import open_start


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return build_tiny_pipeline()


def open_mixture(
    materials: dict[str, Path], pipeline: Pipeline, *, num_samples: int, multiple_of: int
) -> MixtureDataset:
    return open_sources(
        [MixtureSource(name="text", codes=str(materials["text"]))],
        RowEncoder(pipeline.processor, RowConfig(max_length=96)),
        tokenizer_fingerprint=pipeline.tokenizer.fingerprint,
        num_samples=num_samples,
        seed=0,
        multiple_of=multiple_of,
    )


def test_a_run_is_filled_up_to_whole_batches_with_samples_that_count_nothing(
    materials: dict[str, Path], pipeline: Pipeline
) -> None:
    data = open_mixture(materials, pipeline, num_samples=5, multiple_of=4)
    samples = [data[index] for index in range(len(data))]
    assert [sample.encoded is not None for sample in samples] == [True] * 5 + [False] * 3
    assert all(sample.problem is None for sample in samples)


def test_whole_batches_are_left_as_they_are(materials: dict[str, Path], pipeline: Pipeline) -> None:
    assert len(open_mixture(materials, pipeline, num_samples=8, multiple_of=4)) == 8


def ids_of(data: MixtureDataset) -> set[str]:
    return {data[number].row_id for number in range(len(data.plan))}


def test_held_out_rows_are_validated_and_never_learned(
    materials: dict[str, Path], tmp_path: Path
) -> None:
    config = build_config(materials, tmp_path)
    sources = tuple(source.model_copy(update={"held_out": 2}) for source in config.data.sources)
    rows = config.data.rows.model_copy(update={"unconditional_share": 1.0})
    changes = {"sources": sources, "validation": (), "rows": rows, "num_samples": 60}
    data = config.data.model_copy(update=changes)
    _, opened = open_start(config.model_copy(update={"data": data}))
    assert opened.validation is not None
    tasks = [source.name for source in sources]
    assert ids_of(opened.training) == {f"{task}-{number}" for task in tasks for number in range(4)}
    assert ids_of(opened.validation) == {f"{task}-{number}" for task in tasks for number in (4, 5)}
    assert opened.training.encoder.config.unconditional_share == 1
    assert opened.validation.encoder.config.unconditional_share == 0


@pytest.mark.parametrize("size", ["nano", "official"])
@pytest.mark.parametrize("stage", ["align", "pretrain", "finetune"])
def test_every_source_of_our_stages_holds_rows_out(size: str, stage: str) -> None:
    data = load_config(StageConfig, ROOT / "train" / "configs" / f"{size}_{stage}.yaml").data
    assert data.all_validation == data.sources


def test_a_source_of_which_all_is_held_out_is_refused(
    materials: dict[str, Path], tmp_path: Path
) -> None:
    config = build_config(materials, tmp_path)
    sources = tuple(source.model_copy(update={"held_out": 6}) for source in config.data.sources)
    data = config.data.model_copy(update={"sources": sources, "validation": ()})
    with pytest.raises(ValueError, match="has 6 rows and held_out is 6; leave some to learn"):
        open_start(config.model_copy(update={"data": data}))


def rows_without(pipeline: Pipeline) -> list[tuple[CodeRow, str]]:
    (chat,) = build_rows(pipeline, "chat", count=1)
    (drawing,) = build_rows(pipeline, "text_to_image", count=1)
    (text,) = build_rows(pipeline, "text", count=1)
    return [
        (replace(text, texts=()), "no text"),
        (replace(text, texts=("",)), "no text"),
        (replace(drawing, pictures=()), "1 pictures are spoken of, 0 are there"),
        (replace(chat, pictures=chat.pictures[:1]), "2 pictures are spoken of, 1 are there"),
        (replace(chat, messages=None), "a chat without messages"),
    ]


def test_a_row_that_lacks_something_is_refused_by_what_it_lacks(pipeline: Pipeline) -> None:
    for row, message in rows_without(pipeline):
        with pytest.raises(ValueError, match=message):
            check_row(row)
