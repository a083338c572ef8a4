"""/v1/images/generations, asked by OpenAI's own client."""

import base64
import io

from PIL import Image

from mllm.serving.pictures import partial_rows
from tests.mllm.serving.held_engine import HeldEngine
from tests.mllm.serving.live_server import live_server
from tests.mllm.tiny_pipeline import build_tiny_pipeline


def opened(data: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_pictures_are_those_of_the_pipeline_with_the_same_seeds(server, nano):
    answer = server.openai().images.generate(
        prompt="a red star", model="nano", n=2, size="64x64", extra_body={"seed": 11}
    )
    pictures = [opened(each.b64_json) for each in answer.data]
    expected = nano.generate_images("a red star", num_images=2, seed=11)
    assert [each.tobytes() for each in pictures] == [each.tobytes() for each in expected]
    assert [each.seed for each in answer.data] == [11, 12]
    assert pictures[0].format == "PNG"
    assert (answer.output_format, answer.size) == ("png", "64x64")
    assert answer.usage.output_tokens == 2 * nano.processor.num_visual_tokens


def test_settings_of_drawing_are_extra_fields(server, nano):
    settings = {"guidance_scale": 5.0, "temperature": 0.5, "top_k": 40, "top_p": 0.9}
    answer = server.openai().images.generate(
        prompt="two blue circles", extra_body={"seed": 2, **settings}
    )
    (expected,) = nano.generate_images("two blue circles", num_images=1, seed=2, **settings)
    assert opened(answer.data[0].b64_json).tobytes() == expected.tobytes()


def test_without_a_seed_pictures_differ_and_say_how_to_get_them_again(server, nano):
    first, second = (server.draw(temperature=1.0).json()["data"][0] for _ in range(2))
    assert first["seed"] != second["seed"]
    (again,) = nano.generate_images("a red star", num_images=1, seed=first["seed"], temperature=1.0)
    assert opened(first["b64_json"]).tobytes() == again.tobytes()


def test_a_streamed_picture_is_the_whole_one_at_last(server, nano):
    *partial, last = server.openai().images.generate(
        prompt="a red star", stream=True, partial_images=2, extra_body={"seed": 11}
    )
    (expected,) = nano.generate_images("a red star", num_images=1, seed=11)
    assert last.type == "image_generation.completed"
    assert opened(last.b64_json).tobytes() == expected.tobytes()
    assert last.seed == 11
    assert [each.partial_image_index for each in partial] == [0, 1]
    assert opened(partial[1].b64_json).tobytes() != expected.tobytes()


def test_previews_are_spread_over_the_rows():
    assert [partial_rows(16, number) for number in (0, 1, 3)] == [set(), {8}, {4, 8, 12}]
    assert partial_rows(2, 3) == {1, 2}


def test_a_picture_is_shown_while_it_is_drawn():
    engine = HeldEngine(build_tiny_pipeline())
    engine.release()
    with live_server(engine.pipeline, engine=engine) as server:
        events = list(
            server.openai().images.generate(prompt="a star", stream=True, partial_images=1)
        )
    assert [each.type.partition(".")[2] for each in events] == ["partial_image", "completed"]
    assert events[0].partial_image_index == 0
    assert opened(events[0].b64_json).getpixel((0, 0)) == (0, 0, 1)


def test_parameters_that_change_nothing_are_taken(server):
    answer = server.draw(
        response_format="b64_json",
        quality="auto",
        output_format="png",
        background="auto",
        style=None,
    )
    assert answer.status_code == 200
