import numpy as np
import pytest
from PIL import Image

from eval.examples import EXAMPLES, draw_example, example_scene, write_examples
from eval.inspector import inspect, same_objects
from eval.scenes import is_held_out
from mllm.pictures import EXAMPLES_FOLDER, example_names


def test_every_example_ships_and_nothing_else():
    assert example_names() == sorted(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_shipped_picture_is_the_rendered_scene(name):
    shipped = np.asarray(Image.open(EXAMPLES_FOLDER / f"{name}.png")).astype(int)
    # Equal where it was made; another machine's sine may round a level differently.
    assert np.abs(shipped - np.asarray(draw_example(name)).astype(int)).max() <= 1


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_inspector_reads_every_example(name):
    assert same_objects(inspect(np.asarray(draw_example(name))), example_scene(name))


def test_only_the_unseen_example_is_held_out():
    assert [name for name in EXAMPLES if is_held_out(example_scene(name))] == ["unseen"]


def test_an_unknown_example_is_refused_with_the_choice():
    with pytest.raises(ValueError, match="no example is called 'cat'; choose one of star, pair"):
        example_scene("cat")


def test_examples_can_be_written_again(tmp_path):
    write_examples(tmp_path / "examples")
    written = sorted(path.name for path in (tmp_path / "examples").iterdir())
    assert written == sorted(f"{name}.png" for name in EXAMPLES)
