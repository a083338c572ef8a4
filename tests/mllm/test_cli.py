import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from mllm.cli import app
from mllm.convert import read_codebooks
from mllm.pictures import read_notes
from mllm.pipeline import Pipeline
from mllm.processor import Processor
from tests.mllm.conftest import load_reference_settings
from tests.mllm.tiny_pipeline import build_tiny_pipeline, build_tiny_tokenizer, make_model_say
from tests.mllm.tiny_text import tiny_lines
from train.text_tokenizer import train_text_tokenizer
from unitok.codes import load_codes
from unitok.model import UniTok

EOS, BOI = 2, 3
COMMANDS = ("chat", "generate", "reconstruct", "encode", "decode", "convert", "serve", "info")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A folder with a whole tiny model."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_tiny_pipeline().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def picture(tmp_path) -> str:
    path = tmp_path / "picture.png"
    Image.linear_gradient("L").resize((48, 40)).convert("RGB").save(path)
    return str(path)


@pytest.fixture
def scripted(monkeypatch):
    """Lets the model that the command loads write what a test gives."""

    def script(*parts):
        pipeline = build_tiny_pipeline()
        make_model_say(pipeline, *parts)
        monkeypatch.setattr(Pipeline, "from_pretrained", lambda *_, **__: pipeline)

    return script


def run(*arguments, stdin=None):
    return CliRunner().invoke(app, [str(each) for each in arguments], input=stdin)


def succeed(*arguments, stdin=None):
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result


def fail(*arguments):
    """Exit code 1 and one line that starts with `error:`; returns that line."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    notices = ("loading ", "converting ", "reading ")
    lines = [line for line in result.stderr.splitlines() if not line.startswith(notices)]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


# -- help ------------------------------------------------------------------------------------------


def test_version_and_help_list_every_command():
    assert re.match(r"unitok-mllm \S+\n", succeed("--version").stdout)
    overview = succeed("--help").stdout
    for command in COMMANDS:
        assert command in overview
        assert f"unitok {command}" in succeed(command, "--help").stdout, "no example"


# -- chat ------------------------------------------------------------------------------------------


def test_chat_prints_one_answer_on_stdout(scripted, picture):
    scripted("a red star", EOS)
    result = succeed("chat", "what is it?", "--image", picture, "-i", picture)
    assert result.stdout == "a red star\n"
    assert result.stderr == "loading nano\n"


def test_chat_runs_with_loaded_weights_and_every_option(model, picture):
    options = ["--max-new-tokens", 5, "--temperature", 0.7, "--top-k", 20, "--top-p", 0.9]
    arguments = ["chat", "what?", "-i", picture, "--model", model, "--seed", 3, *options]
    place = ["--device", "cpu", "--dtype", "float32"]
    assert succeed(*arguments, *place).stdout == succeed(*arguments).stdout


def test_a_picture_in_the_answer_is_written_where_asked(scripted, tmp_path):
    scripted("a star", BOI, EOS)
    result = succeed("chat", "draw", "-o", tmp_path / "drawn.png")
    assert result.stdout == "a star\n[picture 32x32]\n"
    assert Image.open(tmp_path / "drawn.png").size == (32, 32)
    scripted(BOI, EOS)
    assert "pass -o out.png to keep it" in succeed("chat", "draw").stderr


def test_a_picture_in_the_answer_keeps_what_it_was_made_from(scripted, tmp_path):
    scripted(BOI, EOS)
    succeed("chat", "draw", "-o", tmp_path / "drawn.png", "--seed", 5)
    notes = read_notes(tmp_path / "drawn.png")
    assert (notes["question"], notes["seed"], notes["guidance_scale"]) == ("draw", "5", "3.0")
    assert re.fullmatch(r"\w{16}", notes["model_fingerprint"])


def test_a_saved_drawing_of_a_session_keeps_the_same_notes(scripted, tmp_path):
    scripted(BOI, EOS)
    succeed("chat", "draw a star", "-o", tmp_path / "asked.png", "--seed", 5)
    scripted("red", EOS, BOI, EOS, "blue", EOS)
    lines = ["what?", "draw a star", "and now?", f"/save {tmp_path / 'saved.png'}"]
    succeed("chat", "--seed", 5, stdin="\n".join(lines))
    notes = read_notes(tmp_path / "saved.png")
    assert notes == read_notes(tmp_path / "asked.png")
    assert (notes["question"], notes["seed"]) == ("draw a star", "5")


def test_an_answer_that_may_draw_no_more_says_so_beside_it(scripted):
    scripted(*[BOI] * 9)
    result = succeed("chat", "draw", "--max-images", 2)
    assert result.stdout == "[picture 32x32]\n" * 2
    assert "at most 2 pictures" in result.stderr


def test_several_pictures_in_the_answer_become_a_grid(scripted, tmp_path):
    scripted(BOI, "and", BOI, EOS)
    succeed("chat", "draw two", "-o", tmp_path / "drawn.png")
    assert Image.open(tmp_path / "drawn.png").size == (68, 32)


def test_an_answer_without_a_picture_says_that_nothing_was_written(scripted, tmp_path):
    scripted("no", EOS)
    result = succeed("chat", "draw", "-o", tmp_path / "drawn.png")
    assert "nothing was drawn" in result.stderr
    assert not (tmp_path / "drawn.png").exists()


def test_an_empty_question_is_refused_before_a_model_is_loaded():
    assert "the question is empty" in fail("chat", " ", "--model", "no/model")


def test_chat_explains_a_wrong_output_before_it_loads_a_model(picture, tmp_path):
    assert "exists already; pass --force" in fail("chat", "draw", "-o", picture)
    assert "must end in .png" in fail("chat", "draw", "-o", tmp_path / "a.jpg")
    assert "in a session use /save" in fail("chat", "-o", tmp_path / "a.png")


def test_an_answer_with_square_brackets_is_printed_as_it_is(scripted, monkeypatch):
    scripted("[red]star[/red]", EOS)
    assert succeed("chat", "what?").stdout == "[red]star[/red]\n"


def test_a_session_reads_questions_and_commands_from_a_pipe(scripted, picture, tmp_path):
    scripted("red", EOS, "a star", BOI, EOS, "blue", EOS)
    drawing, talk = tmp_path / "drawing.png", tmp_path / "talk.txt"
    lines = [f"/image {picture}", "what color?", "", "draw a star", f"/save {drawing}"]
    lines += [f"/save {talk}", "/reset", "and now?", "/quit", "never asked"]
    result = succeed("chat", stdin="\n".join(lines))
    assert result.stdout == (
        "> what color?\nred\n> draw a star\na star\n[picture 32x32]\n> and now?\nblue\n"
    )
    assert "/save FILE.png keeps the drawing" in result.stderr
    assert Image.open(drawing).size == (32, 32)
    assert talk.read_text() == (
        "user: [picture] what color?\nassistant: red\n"
        "user: draw a star\nassistant: a star [picture]\n"
    )


def test_mistakes_in_a_session_are_explained_and_it_goes_on(scripted, tmp_path):
    scripted("red", EOS)
    lines = ["/image", "/image nothing.png", "/paint", "/save a.png", f"/save {tmp_path}/a/b.txt"]
    result = succeed("chat", stdin="\n".join([*lines, "/save", "star " * 200, "/help", "what?"]))
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    expected = [
        "/image needs a path",
        "no image file at nothing.png",
        "no command /paint",
        "nothing was drawn yet",
        "create the folder",
        "/save needs a path",
        "tokens long",
    ]
    assert len(errors) == len(expected)
    for error, part in zip(errors, expected, strict=True):
        assert part in error
    assert result.stdout.endswith("red\n")
    assert "/reset" in result.stdout


def test_breaking_off_an_answer_keeps_the_session(scripted, monkeypatch):
    scripted("red", EOS)
    asked = []

    def interrupted(session, question):
        asked.append(question)
        raise KeyboardInterrupt

    monkeypatch.setattr("mllm.terminal.print_answer", interrupted)
    assert "(broken off)" in succeed("chat", stdin="one\ntwo\n").stderr
    assert asked == ["one", "two"]


# -- generate --------------------------------------------------------------------------------------


def test_generate_writes_a_picture_with_its_notes(model, tmp_path):
    output = tmp_path / "star.png"
    options = [
        "--seed",
        7,
        "--guidance-scale",
        2,
        "--temperature",
        0.9,
        "--top-k",
        9,
        "--top-p",
        0.8,
    ]
    result = succeed("generate", "a red star", "-o", output, "--model", model, *options)
    assert result.stdout == f"wrote {output}\n"
    notes = read_notes(output)
    assert re.fullmatch(r"\w{16}", notes.pop("model_fingerprint"))
    assert re.fullmatch(r"\w{16}", notes.pop("tokenizer_fingerprint"))
    assert notes.pop("software").startswith("unitok-mllm ")
    assert notes == {
        "prompt": "a red star",
        "seed": "7",
        "guidance_scale": "2.0",
        "temperature": "0.9",
        "top_k": "9",
        "top_p": "0.8",
    }


def test_generate_makes_a_grid_and_single_files(model, tmp_path):
    output = tmp_path / "stars.png"
    succeed("generate", "a red star", "-o", output, "--model", model, "-n", 3)
    single = tmp_path / "second.png"
    succeed("generate", "a red star", "-o", single, "--model", model, "--seed", 1)
    assert Image.open(output).size == (68, 68)
    assert Image.open(single).tobytes() == Image.open(tmp_path / "stars-1.png").tobytes()
    assert len(list(tmp_path.glob("stars-?.png"))) == 3


def test_generate_draws_a_file_of_prompts_into_a_folder(model, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red star\n\na blue circle\n")
    folder = tmp_path / "drawings"
    succeed("generate", "--prompts", prompts, "-o", folder, "--model", model)
    assert read_notes(folder / "0001.png")["prompt"] == "a red star"
    assert read_notes(folder / "0002.png")["prompt"] == "a blue circle"
    assert len(list(folder.iterdir())) == 2


def test_a_prompt_that_cannot_be_drawn_stops_a_file_before_the_first_picture(model, tmp_path):
    prompts, folder = tmp_path / "prompts.txt", tmp_path / "drawings"
    prompts.write_text("a star\n" * 20 + "a " * 300)
    arguments = ["generate", "--prompts", prompts, "-o", folder, "--model", model]
    assert "tokens long" in fail(*arguments)
    assert list(folder.iterdir()) == []


def test_generate_explains_mistakes_before_it_loads_a_model(tmp_path):
    output = tmp_path / "a.png"
    output.write_bytes(b"precious")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    assert "exists already; pass --force" in fail("generate", "a", "-o", output)
    assert "must end in .png" in fail("generate", "a", "-o", tmp_path / "a.jpg")
    assert "create the folder" in fail("generate", "a", "-o", tmp_path / "no" / "a.png")
    assert "either a prompt or a file" in fail("generate", "-o", tmp_path / "b.png")
    assert "has no prompts" in fail("generate", "--prompts", empty, "-o", tmp_path / "d")
    assert "No such file" in fail("generate", "--prompts", tmp_path / "x", "-o", tmp_path / "d")
    assert output.read_bytes() == b"precious"


def test_generate_refuses_empty_and_endless_prompts(model, tmp_path):
    output = tmp_path / "a.png"
    arguments = ["-o", output, "--model", model]
    assert "the prompt is empty" in fail("generate", " ", *arguments)
    assert re.search(
        r"\d+ tokens long, but may be at most 92", fail("generate", "a " * 300, *arguments)
    )
    assert not output.exists()


def test_force_replaces_what_is_there(model, tmp_path):
    output = tmp_path / "a.png"
    output.write_bytes(b"old")
    succeed("generate", "a star", "-o", output, "--model", model, "--force")
    assert Image.open(output).size == (32, 32)


# -- tokenizer -------------------------------------------------------------------------------------


def test_reconstruct_shows_both_pictures_and_the_psnr(model, picture, tmp_path):
    output = tmp_path / "both.png"
    result = succeed("reconstruct", picture, "-o", output, "--model", f"{model}/unitok")
    assert re.match(r"PSNR \d+\.\d\d dB, wrote ", result.stdout)
    assert Image.open(output).size == (68, 32)
    native = ["--recipe", "native", "--force"]
    succeed("reconstruct", picture, "-o", output, "--model", f"{model}/unitok", *native)
    assert Image.open(output).size == (100, 48)


def test_decode_of_encode_gives_the_reconstructions(model, picture, tmp_path):
    codes, folder = tmp_path / "codes.safetensors", tmp_path / "pictures"
    tokenizer = ["--model", f"{model}/unitok"]
    other = tmp_path / "other.png"
    Image.new("RGB", (64, 32), "red").save(other)
    result = succeed("encode", picture, other, "-o", codes, "--recipe", "native", *tokenizer)
    assert f"wrote {codes}: 2 pictures" in result.stdout
    succeed("decode", codes, "-o", folder, *tokenizer)
    assert Image.open(folder / "picture.png").size == (48, 48)
    assert Image.open(folder / "other.png").size == (64, 32)
    both = tmp_path / "both.png"
    succeed("reconstruct", other, "-o", both, "--recipe", "native", *tokenizer)
    right = Image.open(both).crop((68, 0, 132, 32))
    assert right.tobytes() == Image.open(folder / "other.png").tobytes()
    assert "exists already" in fail("decode", codes, "-o", folder, *tokenizer)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_tokenizer_runs_in_the_precision_asked_for(model, picture, tmp_path, dtype):
    codes, folder = tmp_path / "codes.safetensors", tmp_path / "pictures"
    options = ["--model", f"{model}/unitok", "--device", "cpu"]
    succeed("encode", picture, "-o", codes, *options, "--dtype", dtype)
    assert load_codes(codes).dtype == dtype
    # The same weights in any precision: their codes stay readable.
    succeed("decode", codes, "-o", folder, *options, "--dtype", dtype)
    succeed("decode", codes, "-o", folder, *options, "--force")
    result = succeed("reconstruct", picture, "-o", folder / "r.png", *options, "--dtype", dtype)
    assert re.match(r"PSNR \d+\.\d\d dB", result.stdout)
    succeed("encode", picture, "-o", codes, *options, "--force")
    assert load_codes(codes).dtype == "float32"
    for command in (["encode", picture], ["decode", codes], ["reconstruct", picture]):
        line = fail(*command, "-o", tmp_path / "x.png", *options, "--dtype", "int3")
        assert "dtype must be one of" in line


def test_a_tokenizer_that_does_not_fit_says_what_would(model, picture, tmp_path, monkeypatch):
    def fill_up(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(UniTok, "from_pretrained", fill_up)
    arguments = ["-o", tmp_path / "c.png", "--model", f"{model}/unitok"]
    line = fail("encode", picture, *arguments)
    assert re.search(r"out of GPU memory while loading .*; its files are .* bfloat16", line)


def test_tokenizer_commands_explain_mistakes(model, picture, tmp_path):
    tokenizer = ["--model", f"{model}/unitok"]
    broken, text = tmp_path / "broken.safetensors", tmp_path / "a.txt"
    broken.write_bytes(b"\x00" * 40)
    text.write_text("no picture")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(2)}, foreign)
    output = tmp_path / "out.png"
    assert "is a folder" in fail("reconstruct", tmp_path, "-o", output, *tokenizer)
    assert "no image can be read" in fail("reconstruct", text, "-o", output, *tokenizer)
    assert "no image file at" in fail("reconstruct", "x.png", "-o", output, *tokenizer)
    assert "no recipe is called 'odd'" in fail(
        "reconstruct", picture, "-o", output, "--recipe", "odd", *tokenizer
    )
    assert "is no codes file" in fail("decode", broken, "-o", tmp_path / "d", *tokenizer)
    assert "holds no codes of ours" in fail("decode", foreign, "-o", tmp_path / "d", *tokenizer)
    assert "two images are named 'picture'" in fail(
        "encode", picture, picture, "-o", tmp_path / "c.safetensors", *tokenizer
    )
    assert "holds a model of type" in fail("reconstruct", picture, "-o", output, "--model", model)
    assert "is a file, not a folder" in fail(
        "reconstruct", picture, "-o", f"{text}/a.png", *tokenizer
    )
    assert "must end in .png" in fail("reconstruct", picture, "-o", tmp_path / "a.jpg", *tokenizer)
    small = tmp_path / "small.png"
    Image.new("L", (20, 20)).save(small)
    codes = ["-o", tmp_path / "c.safetensors", "--recipe", "rfid"]
    assert f"cannot use {small}: the image must be at least 32x32" in fail(
        "encode", picture, small, *codes, *tokenizer
    )


# -- models ----------------------------------------------------------------------------------------


def test_info_names_sizes_and_fingerprints_of_model_and_tokenizer(model):
    output = succeed("info", model).stdout
    for name in ("decoder", "codebooks", "parameters", "fingerprint", "context"):
        assert re.search(rf"^{name} ", output, re.MULTILINE), name
    assert "4 of 32 entries, 4 wide" in output
    assert "2 x 2 visual tokens of 4 codes, 32 x 32 px" in output
    assert re.search(r"^image size +32 x 32 px, 2 x 2 visual tokens", output, re.MULTILINE)
    pipeline = build_tiny_pipeline()
    for net, part in (
        (pipeline.model, "decoder"),
        (pipeline.model, "visual_head"),
        (pipeline.model, "visual_embedder"),
        (pipeline.tokenizer, "encoder"),
        (pipeline.tokenizer, "decoder"),
        (pipeline.tokenizer, "text_encoder"),
    ):
        weights = getattr(net, part).state_dict().values()
        count = f"{sum(value.numel() for value in weights):,}"
        assert re.search(rf"^  {part.replace('_', ' ')} +{count}$", output, re.MULTILINE), part
    assert output.count("float32") == 2
    fingerprints = build_tiny_pipeline().fingerprints()
    assert output.count(fingerprints["model_fingerprint"]) == 1
    assert output.count(fingerprints["tokenizer_fingerprint"]) == 2
    assert "decoder" not in succeed("info", f"{model}/unitok").stdout.split("encoder, decoder")[0]


def test_unknown_and_released_only_models_are_explained(tmp_path):
    assert "no folder and no reachable hub model" in fail("chat", "a", "--model", "nobody/nothing")
    (tmp_path / "model.pth").write_bytes(b"")
    line = fail("chat", "a", "--model", tmp_path)
    assert "released weights are converted first" in line
    assert f"unitok convert {tmp_path} -o FOLDER" in line
    assert "no folder and no reachable" in fail("info", "nobody/nothing")


def test_an_empty_question_is_refused(model):
    assert "the question is empty" in fail("chat", " ", "--model", model)


def test_unknown_devices_and_dtypes_are_explained(model):
    assert "device must be auto, cpu, cuda or mps" in fail(
        "chat", "a", "--model", model, "--device", "abacus"
    )
    assert "dtype must be one of" in fail("chat", "a", "--model", model, "--dtype", "int3")


def test_convert_makes_a_released_mllm_loadable(official_weights, model, tmp_path):
    released, output = tmp_path / "released", tmp_path / "converted"
    released.mkdir()
    save_file(official_weights, released / "model.safetensors")
    (released / "config.json").write_text(json.dumps(load_reference_settings()))
    train_text_tokenizer(tiny_lines(), released, 320)
    arguments = ["convert", released, "-o", output, "--tokenizer"]
    # Codes of another tokenizer mean something else, and nothing would show it.
    assert "are not those of the tokenizer" in fail(*arguments, f"{model}/unitok")
    assert not output.exists()
    arguments.append(save_tokenizer_of(released, tmp_path / "tokenizer"))
    assert succeed(*arguments).stdout == f"wrote the MLLM to {output}\n"
    assert Processor.from_pretrained(output).num_visual_tokens == 256
    assert "2 layers of width 128" in succeed("info", output).stdout
    assert "holds a model already" in fail(*arguments)


def save_tokenizer_of(released, folder):
    """A tokenizer with the codebooks of a released MLLM."""
    codebooks = read_codebooks(released)
    sizes = ("num_codebooks", "codebook_size", "codebook_dim")
    tiny = build_tiny_tokenizer().config
    tokenizer = UniTok(replace(tiny, width=64, **dict(zip(sizes, codebooks.shape, strict=True))))
    tokenizer.quantizer.codebooks_KVD.data.copy_(codebooks)
    tokenizer.save_pretrained(folder)
    return folder


def test_convert_explains_mistakes(tmp_path):
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"not a checkpoint")
    (tmp_path / "mllm").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "config.json").write_text(json.dumps({}))
    assert re.search(
        r"no model called .*x\.pth'; expected a released \.pth file, a folder, or a hub name",
        fail("convert", tmp_path / "x.pth", "-o", tmp_path / "out"),
    )
    assert "--tokenizer FOLDER" in fail("convert", tmp_path / "mllm", "-o", tmp_path / "out")
    assert "holds a model already" in fail("convert", broken, "-o", tmp_path / "full")
    assert "no checkpoint that can be read" in fail("convert", broken, "-o", tmp_path / "out")
    assert "no checkpoint that can be read" in fail("convert", tmp_path, "-o", tmp_path / "out")
    assert "is a file; name a folder" in fail("convert", broken, "-o", broken)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"num_codebooks": "x"}, "num_codebooks"),
        ("config.json", {"num_codebooks": 0}, "num_codebooks must be at least 1, got 0"),
        ("config.json", {"text_config": 3}, "text_config must describe a llama model, got int"),
        ("generation_config.json", {"image_sampling": {"heat": 1}}, "must hold guidance_"),
        ("unitok/config.json", {"drop_path": None}, "drop_path must be from 0"),
        ("unitok/config.json", {"commitment_weight": "x"}, "commitment_weight must be at least 0"),
    ],
)
def test_damaged_settings_are_one_line(model, tmp_path, file, changes, message):
    folder = tmp_path / "damaged"
    shutil.copytree(model, folder)
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | changes))
    assert message in fail("generate", "a", "-o", tmp_path / "a.png", "--model", folder)


def test_damaged_weights_are_named(model, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(model, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    assert f"{weights} is no safetensors file" in fail("info", folder)


def test_debug_shows_the_traceback(tmp_path):
    result = run("--debug", "generate", "a", "-o", tmp_path / "a.jpg")
    assert isinstance(result.exception, ValueError)
