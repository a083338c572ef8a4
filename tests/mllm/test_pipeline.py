import json
import time

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from mllm import Pipeline, Processor
from mllm.answer import TextSettings
from mllm.batcher import Batcher
from mllm.devices import choose_device, choose_dtype, explain_out_of_memory
from mllm.drawings import DrawingJob, DrawSettings, draw_prompts
from mllm.generation import generate_codes
from mllm.image_tokenizer import check_tokenizer
from mllm.pictures import example_path
from mllm.pipeline import UNDRAWN
from mllm.session import ChatSession
from tests.mllm.tiny_pipeline import build_tiny_pipeline, build_tiny_tokenizer, make_model_say

EOS, BOI, EOI = 2, 3, 4


@pytest.fixture
def pipeline() -> Pipeline:
    return build_tiny_pipeline()


@pytest.fixture
def picture() -> Image.Image:
    return Image.linear_gradient("L").resize((48, 24)).convert("RGB")


def as_bytes(pictures):
    return [each.tobytes() for each in pictures]


# -- chat ------------------------------------------------------------------------------------------


def test_a_chat_about_a_picture_depends_on_it(pipeline, picture):
    other = Image.new("RGB", (40, 40), "red")
    first = pipeline.chat("what color?", image=picture, max_new_tokens=12)
    second = pipeline.chat("what color?", image=other, max_new_tokens=12)
    assert first.text != second.text
    assert [message["role"] for message in first.messages] == ["user", "assistant"]


def test_no_one_or_several_pictures_from_memory_or_disk_are_taken(pipeline, picture, tmp_path):
    path = tmp_path / "a.png"
    picture.save(path)
    from_memory = pipeline.chat("what?", image=picture, max_new_tokens=8).text
    assert pipeline.chat("what?", image=path, max_new_tokens=8).text == from_memory
    assert pipeline.chat("what?", image=[str(path)], max_new_tokens=8).text == from_memory
    several = pipeline.chat("what?", image=[picture, path], max_new_tokens=8)
    assert len(several.messages[0]["content"]) == 3
    assert len(pipeline.chat("what?", max_new_tokens=8).messages[0]["content"]) == 1


def test_a_picture_alone_is_a_question(pipeline, picture):
    answer = pipeline.chat("", image=picture, max_new_tokens=4)
    assert [part["type"] for part in answer.messages[0]["content"]] == ["image"]


def test_history_equals_the_whole_conversation(pipeline, picture):
    first = pipeline.chat("what color?", image=picture, max_new_tokens=6)
    second = pipeline.chat("left of?", history=first.messages, max_new_tokens=6)
    whole = pipeline.chat(
        [*first.messages, {"role": "user", "content": "left of?"}], max_new_tokens=6
    )
    assert second.text == whole.text
    assert len(second.messages) == 4


def test_streamed_pieces_add_up_to_the_answer(pipeline, picture):
    stream = pipeline.stream_chat("what?", image=picture, max_new_tokens=20)
    pieces = list(stream)
    assert len(pieces) > 3
    assert "".join(pieces).strip() == stream.answer.text
    assert stream.answer.text == pipeline.chat("what?", image=picture, max_new_tokens=20).text


def test_sampled_text_follows_its_seed_and_leaves_the_global_random_state(pipeline):
    state = torch.get_rng_state()
    texts = [
        pipeline.chat("what?", max_new_tokens=12, temperature=2.0, seed=seed).text
        for seed in (0, 0, 1)
    ]
    assert texts[0] == texts[1] != texts[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_picture_drawn_within_an_answer_comes_back_between_its_texts(pipeline):
    make_model_say(pipeline, "a red star", BOI, "left of", EOS)
    stream = pipeline.stream_chat("draw a red star")
    pieces = list(stream)
    kinds = ["text" if isinstance(piece, str) else "image" for piece in pieces]
    assert "".join(
        piece if kind == "text" else "|" for kind, piece in zip(kinds, pieces, strict=True)
    ) == ("a red star|left of")
    answer = stream.answer
    assert [part["type"] for part in answer.messages[-1]["content"]] == ["text", "image", "text"]
    assert answer.text == "a red star left of"
    assert answer.images[0].size == (32, 32)


def test_a_picture_in_a_chat_is_drawn_from_the_whole_conversation(pipeline, picture):
    make_model_say(pipeline, "a red star", BOI, EOS)
    answer = pipeline.chat("draw a red star", image=picture, seed=5)
    question = answer.messages[0]
    prompt = pipeline.processor.encode_chat([question]).input_ids.tolist()
    context = [*prompt, *pipeline.processor.tokenizer.encode("a red star"), BOI]
    unconditional = pipeline.processor.encode_text_to_image(None).input_ids.tolist()
    padding = len(context) - len(unconditional)
    expected = generate_codes(
        pipeline.model,
        torch.tensor([context, [0] * padding + unconditional]),
        torch.tensor([[1] * len(context), [0] * padding + [1] * len(unconditional)]),
        question["content"][0]["codes"][None],
        seeds=[5],
    )
    assert torch.equal(answer.messages[-1]["content"][1]["codes"], expected[0])
    assert as_bytes(answer.images) == as_bytes(pipeline.decode(expected))


def test_the_text_after_a_drawn_picture_sees_it(pipeline):
    prompt = [{"role": "user", "content": "draw a star"}]
    make_model_say(pipeline, BOI, "a", EOS)
    batcher = Batcher(pipeline.model)
    run = batcher.start(pipeline.answering(prompt, TextSettings(), emit=lambda piece: None))
    hidden = []
    while not run.has_ended:
        batcher.step()
        hidden += [batcher.rows.hidden(run.rows[:1])] if run.rows else []
    codes = run.result.messages[-1]["content"][0]["codes"]
    ids = [*pipeline.processor.encode_chat(prompt).input_ids.tolist(), BOI]
    ids += [pipeline.processor.image_token_id] * 4 + [EOI]
    ids += pipeline.processor.tokenizer.encode("a")
    embeds = pipeline.model.embed(torch.tensor([ids]), codes[None])
    with torch.no_grad():
        expected = pipeline.model.decoder(inputs_embeds=embeds).last_hidden_state[:, -1]
    # Measured 2e-6.
    torch.testing.assert_close(hidden[-1], expected, atol=1e-5, rtol=0)


def test_a_conversation_goes_on_after_a_drawing(pipeline):
    make_model_say(pipeline, BOI, EOS, "red", EOS)
    first = pipeline.chat("draw a star")
    second = pipeline.chat("what color?", history=first.messages)
    assert second.text == "red"
    assert second.images == []


def test_text_that_leaves_no_room_for_a_picture_is_kept_and_the_answer_says_so(pipeline):
    make_model_say(pipeline, *([pipeline.processor.tokenizer.encode("a")[0]] * 88), BOI)
    answer = pipeline.chat("a")
    assert answer.text.count("a") == 88
    assert answer.images == []
    assert "leaves no room for a picture of 4 in a context of 96" in answer.notice
    assert pipeline.processor.encode_chat(answer.messages)


def test_a_chat_with_nothing_but_a_picture_without_room_is_refused(pipeline, monkeypatch):
    monkeypatch.setattr("mllm.pipeline.MIN_ANSWER_TOKENS", 1)
    make_model_say(pipeline, BOI)
    question = "a" + " a" * 85
    with pytest.raises(ValueError, match="leaves no room for a picture of 4 in a context of 96"):
        pipeline.chat(question)


def test_a_model_that_draws_without_end_is_stopped(pipeline):
    make_model_say(pipeline, *["a star", BOI] * 20)
    answer = pipeline.chat("draw")
    assert len(answer.images) == TextSettings().max_images == 4
    assert answer.text == " ".join(["a star"] * 5)
    assert answer.notice == "the answer ends here: it may hold at most 4 pictures (max_images)"
    make_model_say(pipeline, BOI, BOI, EOS)
    assert len(pipeline.chat("draw", max_images=1).images) == 1
    make_model_say(pipeline, BOI, EOS)
    answer = pipeline.chat("draw", max_images=1)
    assert (len(answer.images), answer.notice) == (1, None)


def test_an_answer_counts_its_tokens_and_says_whether_it_was_cut(pipeline):
    make_model_say(pipeline, "a", BOI, "b", EOS)
    num_text = len(pipeline.processor.tokenizer.encode("a") * 2)
    answer = pipeline.chat("draw")
    # The picture's two marks and four visual tokens, and the mark of the end.
    assert (answer.num_tokens, answer.is_cut) == (num_text + 6 + 1, False)
    make_model_say(pipeline, "a b c d e f")
    answer = pipeline.chat("go on", max_new_tokens=3)
    assert (answer.num_tokens, answer.is_cut) == (3, True)


def test_a_stream_is_read_once(pipeline):
    make_model_say(pipeline, "a star", EOS)
    stream = pipeline.stream_chat("what?")
    list(stream)
    with pytest.raises(RuntimeError, match=r"a stream is read once; .* ask again"):
        list(stream)
    assert stream.answer.text == "a star"


def test_leaving_a_stream_early_stops_the_model(pipeline):
    calls = []
    pipeline.model.lm_head.register_forward_hook(lambda *_: calls.append(1))
    for _ in pipeline.stream_chat("what?", max_new_tokens=60):
        break
    assert len(calls) < 60


def test_leaving_a_stream_while_it_draws_stops_the_drawing(pipeline, monkeypatch):
    make_model_say(pipeline, "a star", BOI, EOS)
    steps = []
    head = pipeline.model.visual_head
    generate = head.generate

    def slow(*arguments, **options):
        steps.append(time.sleep(0.3))
        return generate(*arguments, **options)

    monkeypatch.setattr(head, "generate", slow)
    for _ in pipeline.stream_chat("draw"):
        break
    assert len(steps) < 4


def test_an_error_while_streaming_reaches_the_reader(pipeline):
    with pytest.raises(ValueError, match="tokens long, but may be at most"):
        list(pipeline.stream_chat("star " * 200))


def test_a_chat_prompt_beyond_the_context_is_refused_with_both_lengths(pipeline):
    with pytest.raises(
        ValueError, match=r"\d+ tokens long, but may be at most 80: .* context is 96"
    ):
        pipeline.chat("star " * 200)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"temperature": -1}, "temperature must be at least 0, got -1"),
        ({"top_p": 2.0}, r"top_p must be in \(0, 1\], or None, got 2.0"),
        ({"max_images": 0}, "max_images must be at least 1, got 0"),
    ],
)
def test_bad_text_settings_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        TextSettings(**values)


def test_pictures_of_whole_messages_must_name_what_to_show(pipeline):
    with pytest.raises(ValueError, match='a picture part needs an "image"'):
        pipeline.chat([{"role": "user", "content": [{"type": "image", "file": "a.png"}]}])
    with pytest.raises(ValueError, match="belong into their parts"):
        pipeline.chat([{"role": "user", "content": "a"}], image="a.png")


def test_texts_in_place_of_messages_are_explained(pipeline):
    message = r'a message must be \{"role": ..., "content": ...\}, got \'hello\''
    with pytest.raises(ValueError, match=message):
        pipeline.chat(["hello"])
    with pytest.raises(ValueError, match=message):
        pipeline.chat("what?", history=["hello"])
    with pytest.raises(ValueError, match=message):
        pipeline.processor.encode_chat(["hello"])


# -- drawing ---------------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_picture_in_any_batch(pipeline):
    prompts = ["a red star", "a blue circle left of a black square"]
    together = pipeline.generate_images(prompts, num_images=3, seed=1)
    in_pairs = pipeline.generate_images(prompts, num_images=3, seed=1, batch_size=2)
    alone = pipeline.generate_images(prompts[1], num_images=1, seed=2)
    assert len(together) == 6
    assert as_bytes(together) == as_bytes(in_pairs)
    assert as_bytes(together)[4] == as_bytes(alone)[0]
    assert len(set(as_bytes(together))) == 6


def test_seeds_are_whole_numbers_of_any_kind(pipeline):
    expected = as_bytes(pipeline.generate_images("a star", num_images=2, seed=3))
    for seed in (np.int64(3), torch.tensor(3), [3, np.int32(4)], np.array([3, 4])):
        drawn = pipeline.generate_images("a star", num_images=2, seed=seed)
        assert as_bytes(drawn) == expected
    with pytest.raises(ValueError, match=r"a seed must be a whole number, got 0\.5"):
        pipeline.generate_images("a star", seed=0.5)
    with pytest.raises(ValueError, match=r"a seed must be a whole number, got None"):
        pipeline.generate_images("a star", num_images=2, seed=[1, None])
    with pytest.raises(ValueError, match="expected 2 seeds, one for each picture, got 3"):
        pipeline.generate_images("a star", num_images=2, seed=[1, 2, 3])


def test_sampling_settings_come_from_the_model_unless_given(pipeline):
    assert pipeline.build_sampling().guidance_scale == 3.0
    chosen = pipeline.build_sampling(guidance_scale=1.0, top_k=5, temperature=None)
    assert (chosen.guidance_scale, chosen.top_k, chosen.temperature) == (1.0, 5, 1.0)
    guided = pipeline.generate_images("a red star", num_images=1)
    unguided = pipeline.generate_images("a red star", num_images=1, guidance_scale=1.0)
    assert as_bytes(guided) != as_bytes(unguided)


def test_progress_counts_the_visual_tokens_of_all_batches(pipeline):
    seen = []
    pipeline.generate_images(
        "a star",
        num_images=3,
        batch_size=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(2, 12), (4, 12), (6, 12), (8, 12), (9, 12), (10, 12), (11, 12), (12, 12)]


def test_each_row_of_a_grid_is_reported_with_a_preview_if_asked_for(pipeline):
    rows = []
    pictures = pipeline.generate_images(
        "a star",
        num_images=2,
        on_row=lambda number, row: rows.append((number, row)),
        preview=True,
    )
    assert sorted((number, row.row, row.num_rows) for number, row in rows) == [
        (0, 1, 2),
        (0, 2, 2),
        (1, 1, 2),
        (1, 2, 2),
    ]
    last = {number: row.preview for number, row in rows if row.row == 2}
    assert as_bytes([last[0], last[1]]) == as_bytes(pictures)
    first = next(row.preview for _, row in rows)
    assert first.size == pictures[0].size
    assert first.getpixel((0, 31)) == UNDRAWN


@pytest.mark.parametrize(
    ("prompt", "values", "message"),
    [
        ("", {}, "the prompt is empty"),
        ("star " * 200, {}, r"tokens long, but may be at most 92: .* 4 are kept"),
        ("a star", {"num_images": 0}, "num_images must be at least 1, got 0"),
        ("a star", {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ("a star", {"temperature": -1.0}, "temperature must be at least 0"),
    ],
)
def test_bad_drawing_requests_are_refused(pipeline, prompt, values, message):
    with pytest.raises(ValueError, match=message):
        pipeline.generate_images(prompt, **values)


def test_a_file_of_prompts_is_drawn_in_parts_with_one_progress(pipeline, tmp_path):
    prompts = [f"a star {number}" for number in range(9)]
    job = DrawingJob(prompts, [tmp_path / f"{number}.png" for number in range(9)])
    seen = []
    draw_prompts(
        pipeline,
        job,
        settings=DrawSettings(num_images=2, seed=3),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert len(list(tmp_path.iterdir())) == 27
    assert seen == [(16, 72), (32, 72), (48, 72), (64, 72), (66, 72), (68, 72), (70, 72), (72, 72)]
    alone = pipeline.generate_images(prompts[8], num_images=1, seed=4)
    assert Image.open(tmp_path / "8-1.png").tobytes() == alone[0].tobytes()


# -- loading ---------------------------------------------------------------------------------------


def test_save_and_load_give_the_same_answers_and_pictures(pipeline, picture, tmp_path):
    pipeline.save_pretrained(tmp_path)
    loaded = Pipeline.from_pretrained(tmp_path, device="cpu")
    assert loaded.fingerprints() == pipeline.fingerprints()
    asked = [
        pipe.chat("what?", image=picture, max_new_tokens=8).text for pipe in (pipeline, loaded)
    ]
    drawn = [as_bytes(pipe.generate_images("a star", num_images=1)) for pipe in (pipeline, loaded)]
    assert asked[0] == asked[1]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_fingerprints_are_those_on_disk_in_any_precision(pipeline, tmp_path, dtype):
    with torch.no_grad():
        # Halfway between two float16 numbers and just above halfway between two bfloat16 ones:
        # rounded to float16 first, it becomes another bfloat16 number.
        pipeline.model.lm_head.weight.fill_(1 + 2**-8 + 2**-14)
    pipeline.save_pretrained(tmp_path)
    loaded = Pipeline.from_pretrained(tmp_path, device="cpu", dtype=dtype)
    assert loaded.fingerprints() == pipeline.fingerprints()


def test_the_processor_loads_through_transformers(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, Processor)
    row, expected = (each.encode_text_to_image("a star") for each in (loaded, pipeline.processor))
    assert torch.equal(row.input_ids, expected.input_ids)


def test_another_tokenizer_is_refused_by_fingerprint(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    other = build_tiny_tokenizer()
    with torch.no_grad():
        other.projection.weight.add_(1.0)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(
        ValueError, match=r"trained on the codes of tokenizer \w{16}, got tokenizer"
    ):
        Pipeline.from_pretrained(tmp_path, tokenizer=tmp_path / "other")


def test_a_model_that_names_no_tokenizer_takes_one_with_its_codebooks(pipeline):
    pipeline.model.config.tokenizer_fingerprint = None
    check_tokenizer(pipeline.model, pipeline.tokenizer)
    other = build_tiny_tokenizer()
    with torch.no_grad():
        other.quantizer.codebooks_KVD.add_(1.0)
    with pytest.raises(ValueError, match="the model names no tokenizer"):
        check_tokenizer(pipeline.model, other)


def test_unknown_models_and_folders_of_another_kind_are_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder and no reachable hub model"):
        Pipeline.from_pretrained("nobody/nothing")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="holds a model of type 'bert', expected 'unitok_mllm'"):
        Pipeline.from_pretrained(tmp_path)


def test_unknown_devices_and_dtypes_are_refused():
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda or mps, got 'tpu!'"):
        choose_device("tpu!")
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, float16"):
        choose_dtype("int8", torch.device("cpu"))
    assert choose_dtype(None, torch.device("cpu")) == torch.float32
    assert choose_dtype(None, torch.device("cuda")) == torch.bfloat16


def test_running_out_of_memory_says_what_would_fit():
    with (
        pytest.raises(RuntimeError, match="out of GPU memory while drawing; draw fewer pictures"),
        explain_out_of_memory("drawing", "draw fewer pictures at a time"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with (
        pytest.raises(RuntimeError, match="out of memory while loading; use dtype bfloat16"),
        explain_out_of_memory("loading", "use dtype bfloat16"),
    ):
        torch.empty(2**62, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="unrelated"), explain_out_of_memory("a", "b"):
        raise RuntimeError("unrelated")


def test_an_unknown_example_picture_is_refused():
    with pytest.raises(FileNotFoundError, match="no example picture is called 'nothing'"):
        example_path("nothing")


# -- sessions --------------------------------------------------------------------------------------


def test_a_session_remembers_turns_and_pictures(pipeline, picture):
    make_model_say(pipeline, "red", EOS, BOI, EOS)
    session = ChatSession(pipeline)
    session.add_picture(picture)
    assert "".join(session.ask("what color?")) == "red"
    assert session.pending == []
    assert session.last_drawing() is None
    assert [type(piece) for piece in session.ask("a star")] == [Image.Image]
    assert session.last_drawing().picture.size == (32, 32)
    assert session.last_drawing().question == "a star"
    assert session.transcript() == (
        "user: [picture] what color?\nassistant: red\nuser: a star\nassistant: [picture]\n"
    )
    session.reset()
    assert session.messages == []


def test_a_failed_or_abandoned_question_leaves_the_session_as_it_was(pipeline, picture):
    session = ChatSession(pipeline)
    session.add_picture(picture)
    with pytest.raises(ValueError, match="tokens long"):
        list(session.ask("star " * 200))
    for _ in session.ask("what color?"):
        break
    assert session.messages == []
    assert len(session.pending) == 1
