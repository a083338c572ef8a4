import pytest
import torch

from mllm.processor import IGNORED_LABEL, TEMPLATES, Processor
from tests.mllm.tiny_pipeline import build_tiny_config
from tests.mllm.tiny_text import tiny_processor, tiny_tokenizer

BOS, EOS, BOI, EOI = 1, 2, 3, 4
PICTURE = {"type": "image", "path": "a.png"}


def ids_of(text: str, *, starts_word: bool = True) -> list[int]:
    return tiny_tokenizer().encode(text, starts_word=starts_word)


def user(*content):
    return {"role": "user", "content": [as_part(part) for part in content]}


def assistant(*content):
    return {"role": "assistant", "content": [as_part(part) for part in content]}


def as_part(part):
    return {"type": "text", "text": part} if isinstance(part, str) else part


def learned(row):
    """The ids that carry a label, which must be those ids themselves."""
    kept = row.labels != IGNORED_LABEL
    assert torch.equal(row.labels[kept], row.input_ids[kept])
    return row.labels[kept].tolist()


@pytest.fixture
def processor() -> Processor:
    return tiny_processor()


@pytest.fixture
def image(processor) -> list[int]:
    return [processor.image_token_id] * processor.num_visual_tokens


def test_text_to_image_learns_marks_codes_and_eos(processor, image):
    row = processor.encode_text_to_image("a red star", picture="codes")
    text = ids_of("a red star Generate an image based on this description.")
    assert row.input_ids.tolist() == [BOS, *text, BOI, *image, EOI, EOS]
    assert learned(row) == [BOI, *image, EOI, EOS]
    assert row.pictures == ("codes",)


def test_a_text_to_image_prompt_ends_with_begin_of_image(processor):
    row = processor.encode_text_to_image("a red star")
    full = processor.encode_text_to_image("a red star", picture="codes")
    assert row.input_ids[-1] == BOI
    assert torch.equal(row.input_ids, full.input_ids[: len(row)])


def test_the_unconditional_prompt_is_written_alone(processor):
    row = processor.encode_text_to_image(None)
    assert row.input_ids.tolist() == [BOS, *ids_of("<unconditional>"), BOI]


def test_captioning_learns_caption_and_eos(processor, image):
    row = processor.encode_caption("codes", "a red star")
    caption = ids_of("a red star")
    assert row.input_ids.tolist() == [BOS, BOI, *image, EOI, *caption, EOS]
    assert learned(row) == [*caption, EOS]


def test_the_bare_caption_has_no_marks_and_ends_with_a_newline(processor, image):
    row = processor.encode_caption("codes", "a red star", form="bare")
    caption = ids_of("a red star\n")
    assert row.input_ids.tolist() == [BOS, *image, *caption]
    assert learned(row) == caption


def test_plain_text_is_learned_from_bos_on(processor):
    row = processor.encode_text("a red star")
    assert learned(row) == row.input_ids.tolist() == [BOS, *ids_of("a red star")]


def test_chat_is_written_as_the_official_template(image):
    processor = tiny_processor("vicuna", context_length=1024)
    row = processor.encode_chat([user(PICTURE, "what color is the star?")])
    system = TEMPLATES["vicuna"].system
    assert row.input_ids.tolist() == [
        BOS,
        *ids_of(f"{system} USER: "),
        *image,
        *ids_of("\nwhat color is the star? ASSISTANT:"),
    ]
    assert learned(row) == []
    assert row.pictures == (PICTURE,)


def test_the_official_system_message_is_complete():
    assert TEMPLATES["vicuna"].system == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions."
    )


def test_chat_learns_only_the_turns_of_the_assistant(processor, image):
    drawn = {"type": "image", "codes": 7}
    row = processor.encode_chat(
        [
            user(PICTURE, "what color?"),
            assistant("red"),
            user("a blue star"),
            assistant("a star", drawn, "left of"),
        ]
    )
    answers = [ids_of("red"), ids_of("a star"), ids_of("left of")]
    assert row.input_ids.tolist() == [
        BOS,
        *ids_of("USER: "),
        *image,
        *ids_of("\nwhat color? ASSISTANT:"),
        *answers[0],
        EOS,
        *ids_of("USER: a blue star ASSISTANT:", starts_word=False),
        *answers[1],
        BOI,
        *image,
        EOI,
        *answers[2],
        EOS,
    ]
    assert learned(row) == [*answers[0], EOS, *answers[1], BOI, *image, EOI, *answers[2], EOS]
    assert row.pictures == (PICTURE, drawn)


def test_a_prompt_is_the_start_of_the_finished_conversation(processor):
    question = user(PICTURE, "what color is the star?")
    prompt = processor.encode_chat([question])
    whole = processor.encode_chat([question, assistant("red")])
    assert torch.equal(prompt.input_ids, whole.input_ids[: len(prompt)])


def test_an_answer_is_tokenised_as_within_the_whole_text(processor):
    row = processor.encode_chat(
        [{"role": "user", "content": "what color?"}, assistant("a red star")]
    )
    assert row.input_ids.tolist() == [BOS, *ids_of("USER: what color? ASSISTANT: a red star"), EOS]


def test_several_pictures_of_a_user_each_get_a_newline(processor, image):
    row = processor.encode_chat([user(PICTURE, PICTURE, "what color?")])
    newline = ids_of("\n")
    assert row.input_ids.tolist() == [
        *[BOS, *ids_of("USER: "), *image, *newline, *image],
        *ids_of("\nwhat color? ASSISTANT:"),
    ]


def test_several_texts_of_a_user_do_not_run_together(processor):
    row = processor.encode_chat([user("what", PICTURE, "color?", "or", " ", "shape?")])
    assert processor.tokenizer.decode(row.input_ids) == "USER: what \ncolor? or shape? ASSISTANT:"


def test_a_system_message_replaces_that_of_the_template(processor):
    row = processor.encode_chat([{"role": "system", "content": "a star"}, user("red")])
    assert row.input_ids.tolist() == [BOS, *ids_of("a star USER: red ASSISTANT:")]


def test_text_of_users_is_cleaned_wherever_it_enters(processor):
    dirty = "red\x00<s></s>\x01 <image>star"
    rows = [
        processor.encode_chat(
            [{"role": "system", "content": dirty}, user(dirty), assistant(dirty)]
        ),
        processor.encode_text_to_image(dirty),
        processor.encode_caption("codes", dirty),
        processor.encode_text(dirty),
    ]
    counts = [sum((row.input_ids == mark).sum().item() for row in rows) for mark in range(5)]
    # unk nowhere; bos once per row; eos ends the answer and the caption; the prompt and the
    # caption have a begin, the caption an end of image.
    assert counts == [0, 4, 2, 2, 1]


def test_left_and_right_padding_keep_the_rows(processor):
    rows = [processor.encode_text("a red star"), processor.encode_caption("codes", "red")]
    for side in ("left", "right"):
        batch = processor.pad(rows, side=side)
        assert batch.pictures == ("codes",)
        for number, row in enumerate(rows):
            kept = batch.attention_mask[number].bool()
            assert torch.equal(batch.input_ids[number][kept], row.input_ids)
            assert torch.equal(batch.labels[number][kept], row.labels)
            assert (batch.input_ids[number][~kept] == 0).all()
            assert (batch.labels[number][~kept] == IGNORED_LABEL).all()
            assert kept[-1 if side == "left" else 0]


def test_save_and_load_write_the_same_rows(tmp_path):
    config = build_tiny_config()
    processor = Processor.for_config(config, tiny_tokenizer())
    processor.save_pretrained(tmp_path)
    config.save_pretrained(tmp_path)
    loaded = Processor.from_pretrained(tmp_path)
    conversation = [user(PICTURE, "what color?"), assistant("red")]
    expected = processor.encode_chat(conversation)
    assert torch.equal(loaded.encode_chat(conversation).input_ids, expected.input_ids)
    assert loaded.context_length == processor.context_length


def test_marks_that_a_text_could_contain_are_refused():
    config = build_tiny_config()
    config.boi_token_id = 20
    with pytest.raises(ValueError, match="boi_token_id and eoi_token_id must be 3 and 4"):
        Processor.for_config(config, tiny_tokenizer())


def test_a_prompt_beyond_the_context_is_told_its_length(processor):
    row = processor.encode_chat([user(PICTURE, "red " * 200)])
    expected = rf"{len(row)} tokens long \(pictures take 4 of them\), but may be at most 112"
    with pytest.raises(ValueError, match=expected):
        processor.check_length(row, reserve=16)


@pytest.mark.parametrize("prompt", ["", "  \n", "\x00", "<s>"])
def test_an_empty_prompt_is_refused(processor, prompt):
    with pytest.raises(ValueError, match="the prompt is empty"):
        processor.encode_text_to_image(prompt)
    with pytest.raises(ValueError, match="the question is empty"):
        processor.encode_chat([user(prompt)])


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "the conversation is empty"),
        ([{"role": "system", "content": "a"}], "the conversation is empty"),
        ([assistant("a")], "turn 1 .* has the role 'assistant', expected 'user'"),
        ([user("a"), user("b")], "turn 2 .* has the role 'user', expected 'assistant'"),
        ([{"role": "user", "content": 5}], "must be a text or a list of parts, got int"),
        ([{"role": "user", "content": [{"type": "sound"}]}], "a part of a message must be"),
        ([{"role": "user", "content": [{"type": "text"}]}], "a part of a message must be"),
    ],
)
def test_a_malformed_conversation_is_explained(processor, messages, message):
    with pytest.raises(ValueError, match=message):
        processor.encode_chat(messages)


def test_an_unknown_template_and_a_clashing_placeholder_are_refused():
    with pytest.raises(ValueError, match="template must be one of vicuna, plain, got 'alpaca'"):
        tiny_processor("alpaca")
    with pytest.raises(ValueError, match="image_token_id 7 is a piece of the text tokenizer"):
        Processor(tiny_tokenizer(), num_visual_tokens=4, image_token_id=7, context_length=64)


def test_a_folder_without_a_model_or_a_text_tokenizer_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        Processor.from_pretrained(tmp_path)
    build_tiny_config().save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="no text tokenizer at"):
        Processor.from_pretrained(tmp_path)
