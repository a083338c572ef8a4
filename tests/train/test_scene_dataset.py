"""The drawn world as raw files: what is shown, asked and left out."""

import io
import json
import random
import tarfile
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eval.scene_scores import scene_pixels
from eval.scenes import render
from train.config import load_config
from train.extraction import ExtractConfig
from train.scene_data import training_example
from train.scene_dataset import (
    CHAT_SHARES,
    interview,
    llava_sample,
    png_bytes,
    thinned_examples,
    write_dataset,
)
from train.scene_lessons import drill
from unitok.image import preprocess

CODES_CONFIG = Path(__file__).parents[2] / "train/configs/nano_codes.yaml"
NUM_EXAMPLES = 40


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "new"
    write_dataset(folder, num_examples=NUM_EXAMPLES, image_size=16, progress=lambda *_: None)
    return folder


def read_chats(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "chats.jsonl").read_text().splitlines()]


def test_every_caption_has_its_picture(dataset: Path) -> None:
    with tarfile.open(dataset / "captions.tar") as tar:
        files = {entry.name: tar.extractfile(entry).read() for entry in tar}
    for index, (scene, caption) in enumerate(islice(thinned_examples(), NUM_EXAMPLES)):
        assert files[f"{index:07d}.txt"].decode() == caption
        pixels = np.asarray(Image.open(io.BytesIO(files[f"{index:07d}.png"])))
        assert np.array_equal(pixels, render(scene, 16))
    assert len(files) == 2 * NUM_EXAMPLES


def test_the_codes_of_the_nano_stages_are_those_of_whole_pictures() -> None:
    # Cropped ones would teach drawing scenes whose objects are cut off.
    config = load_config(ExtractConfig, CODES_CONFIG)
    scenes = [scene for scene, _ in islice(thinned_examples(), 4)]
    pictures = [Image.open(io.BytesIO(png_bytes(scene, 64))) for scene in scenes]
    for source in config.sources:
        recipe = config.recipe_of(source)
        read = torch.cat([preprocess(each, recipe, image_size=64) for each in pictures])
        assert torch.equal(read, scene_pixels(scenes, 64)), recipe


def test_chats_show_other_pictures_than_captions_and_texts_tell_of_these(dataset: Path) -> None:
    examples = list(islice(thinned_examples(), 2 * NUM_EXAMPLES))[NUM_EXAMPLES:]
    texts = (dataset / "texts.txt").read_text().splitlines()
    assert texts == [caption for _, caption in examples]
    for chat, (scene, _) in zip(read_chats(dataset), examples, strict=True):
        if not chat["id"].startswith("dialogue"):
            shown = np.asarray(Image.open(dataset / "images" / chat["image"][0]))
            assert np.array_equal(shown, render(scene, 16))


def test_marks_and_pictures_of_a_chat_are_as_many_and_are_there(dataset: Path) -> None:
    chats = read_chats(dataset)
    assert len(chats) == NUM_EXAMPLES
    for chat in chats:
        marks = sum(turn["value"].count("<image>") for turn in chat["conversations"])
        assert marks == len(chat["image"])
        assert all((dataset / "images" / name).is_file() for name in chat["image"])


def test_drills_are_a_share_of_the_chats_and_short(tmp_path: Path) -> None:
    kinds, turns = Counter(), Counter()
    for index in range(200):
        scene, _ = training_example(index)
        sample = llava_sample(index, scene, tmp_path, image_size=16)
        kind = sample["id"].split("_")[0]
        kinds[kind] += 1
        turns[kind] = max(turns[kind], len(sample["conversations"]))
    for kind, share in CHAT_SHARES.items():
        assert abs(kinds[kind] / 200 - share) < 0.1
    assert turns["drill"] <= 6  # three questions, answered
    assert turns["questions"] > 6


def test_a_drill_asks_about_places_with_the_picture_before_its_first_question() -> None:
    for index in range(20):
        scene, _ = training_example(index)
        turns = interview(scene, random.Random(index), drill)
        expected = drill(scene, random.Random(index))
        assert [turn["value"] for turn in turns[1::2]] == [asked.answer for asked in expected]
        assert turns[0]["value"] == f"<image>\n{expected[0].question}"
        assert not any("<image>" in turn["value"] for turn in turns[1:])


def test_pictures_of_one_object_are_thinned_out() -> None:
    kept = [len(scene.objects) for scene, _ in islice(thinned_examples(), 400)]
    all_of_them = [len(training_example(index)[0].objects) for index in range(400)]
    assert kept.count(1) < 0.7 * all_of_them.count(1)
    assert kept.count(2) > all_of_them.count(2)


def test_the_same_number_gives_the_same_files(dataset: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, num_examples=NUM_EXAMPLES, image_size=16, progress=lambda *_: None)
    assert read_chats(tmp_path) == read_chats(dataset)
    names = sorted(path.name for path in (dataset / "images").iterdir())
    for name in names:
        got, expected = ((each / "images" / name).read_bytes() for each in (tmp_path, dataset))
        assert got == expected


def test_a_folder_in_use_is_refused(dataset: Path) -> None:
    with pytest.raises(ValueError, match="is not empty; name a new folder"):
        write_dataset(dataset, num_examples=1, image_size=16, progress=lambda *_: None)
