"""The `unitok` command. Libraries are imported inside the commands: `--help` answers at once."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from mllm.console import (
    announce,
    progress_bar,
    project_version,
    quiet_libraries,
    say,
    user_errors,
)

if TYPE_CHECKING:
    from mllm.pipeline import Pipeline
    from unitok.model import UniTok


class UserErrorGroup(TyperGroup):
    """Says what a user can cause in one line and exits with 1; `--debug` shows the traceback."""

    def invoke(self, ctx: Any) -> Any:
        with nullcontext() if ctx.params.get("debug") else user_errors():
            return super().invoke(ctx)


app = typer.Typer(
    cls=UserErrorGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)

Model = Annotated[str, typer.Option(help="nano, a folder, or a hub name such as OWNER/NAME.")]
TokenizerModel = Annotated[
    str, typer.Option(help="Image tokenizer: nano, a folder, or a hub name such as OWNER/NAME.")
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")]
Tokenizer = Annotated[
    str | None, typer.Option(help="Image tokenizer, if the model's folder brings none.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Dtype = Annotated[
    str | None,
    typer.Option(help="float32, bfloat16 or float16; by default bfloat16 on cuda, else float32."),
]
TokenizerDtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]
Recipe = Annotated[
    str,
    typer.Option(help="How the picture is fitted: reconstruction (crop), chat (pad) or native."),
]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same output.")]
Temperature = Annotated[float | None, typer.Option(min=0, help="0: always the most likely.")]
TopK = Annotated[int | None, typer.Option(min=1, help="Choose among the k most likely.")]
TopP = Annotated[float | None, typer.Option(min=0, max=1, help="... that add up to p.")]


def print_version(wanted: bool) -> None:
    if wanted:
        say(f"unitok-mllm {project_version()}")
        raise typer.Exit


@app.callback()
def settings(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Chat about pictures and draw them, with one model that reads and writes both."""


@app.command()
def chat(
    question: Annotated[
        str | None, typer.Argument(help="Left out: an interactive session.")
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option("--image", "-i", help="A file or example:NAME; repeatable.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PNG for what the answer draws.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    temperature: Temperature = 0.0,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = 0,
    max_images: Annotated[int, typer.Option(min=1, help="Most pictures in one answer.")] = 4,
    model: Model = "nano",
    revision: Revision = None,
    tokenizer: Tokenizer = None,
    device: Device = "auto",
    dtype: Dtype = None,
    force: Force = False,
) -> None:
    """Ask about pictures, or for one; without a question, talk.

    \b
    unitok chat "what color is the star?" --image example:star
    unitok chat "which picture has more stars?" -i a.png -i b.png
    unitok chat "draw a purple circle" -o circle.png
    unitok chat
    """
    from mllm.answer import TextSettings
    from mllm.session import ChatSession
    from mllm.terminal import answer_question, check_chat, run_session

    check_chat(question, output, force=force)
    chosen = TextSettings(max_new_tokens, temperature or 0.0, top_k, top_p, seed, max_images)
    pipeline = load_pipeline(model, revision, tokenizer=tokenizer, device=device, dtype=dtype)
    session = ChatSession(pipeline, chosen)
    for source in image or []:
        session.add_picture(source)
    if question is None:
        run_session(session)
    else:
        answer_question(session, question, output=output)


@app.command()
def generate(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="PNG to write; with --prompts, a folder.")
    ],
    prompt: Annotated[str | None, typer.Argument(help="What to draw.")] = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="A text file, one prompt per line.")
    ] = None,
    num_images: Annotated[
        int, typer.Option("--num-images", "-n", min=1, help="Several: a grid and single files.")
    ] = 1,
    guidance_scale: Annotated[
        float | None, typer.Option(min=0, help="How closely to follow the prompt; 1: unguided.")
    ] = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = 0,
    model: Model = "nano",
    revision: Revision = None,
    tokenizer: Tokenizer = None,
    device: Device = "auto",
    dtype: Dtype = None,
    force: Force = False,
) -> None:
    """Draw pictures from a prompt; settings that are not given are the model's own.

    \b
    unitok generate "a red circle left of a blue square" -o circle.png
    unitok generate "three green stars" -o stars.png --num-images 4 --seed 7
    unitok generate --prompts prompts.txt -o drawings --guidance-scale 5
    """
    from mllm.drawings import DrawSettings, draw_prompts, plan_drawings

    chosen = DrawSettings(num_images, seed, guidance_scale, temperature, top_k, top_p)
    job = plan_drawings(prompt, prompts, output=output, num_images=num_images, force=force)
    pipeline = load_pipeline(model, revision, tokenizer=tokenizer, device=device, dtype=dtype)
    with progress_bar("drawing") as progress:
        paths = draw_prompts(pipeline, job, settings=chosen, progress=progress)
    say("\n".join(f"wrote {path}" for path in paths))


@app.command()
def reconstruct(
    image: Annotated[str, typer.Argument(help="A picture file or example:NAME.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="PNG: original left, reconstruction right.")
    ],
    recipe: Recipe = "reconstruction",
    model: TokenizerModel = "nano",
    revision: Revision = None,
    device: Device = "auto",
    dtype: TokenizerDtype = "float32",
    force: Force = False,
) -> None:
    """Encode and decode a picture, show both side by side, print the PSNR.

    \b
    unitok reconstruct example:shapes -o both.png
    unitok reconstruct photo.jpg -o both.png --recipe native --force
    """
    from mllm.codec import reconstruct_file

    tokenizer = load_tokenizer(model, revision, device=device, dtype=dtype)
    value = reconstruct_file(tokenizer, image, output=output, recipe=recipe, force=force)
    say(f"PSNR {value:.2f} dB, wrote {output}")


@app.command()
def encode(
    images: Annotated[list[str], typer.Argument(help="Picture files or example:NAME.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Codes file to write.")],
    recipe: Recipe = "reconstruction",
    model: TokenizerModel = "nano",
    revision: Revision = None,
    device: Device = "auto",
    dtype: TokenizerDtype = "float32",
    force: Force = False,
) -> None:
    """Turn pictures into one codes file.

    \b
    unitok encode example:star example:pair -o codes.safetensors
    unitok encode photos/*.jpg -o codes.safetensors --recipe native
    """
    from mllm.codec import encode_files

    tokenizer = load_tokenizer(model, revision, device=device, dtype=dtype)
    with progress_bar("encoding") as progress:
        coded = encode_files(
            tokenizer, images, output=output, recipe=recipe, force=force, progress=progress
        )
    pictures = "1 picture" if len(coded) == 1 else f"{len(coded)} pictures"
    say(f"wrote {output}: {pictures}, {sum(c.codes.numel() for c in coded)} codes")


@app.command()
def decode(
    codes: Annotated[Path, typer.Argument(help="A codes file of `unitok encode`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")],
    model: TokenizerModel = "nano",
    revision: Revision = None,
    device: Device = "auto",
    dtype: TokenizerDtype = "float32",
    force: Force = False,
) -> None:
    """Turn a codes file back into pictures.

    \b
    unitok decode codes.safetensors -o pictures
    """
    from mllm.codec import decode_file

    tokenizer = load_tokenizer(model, revision, device=device, dtype=dtype)
    with progress_bar("decoding") as progress:
        paths = decode_file(tokenizer, codes, output=output, force=force, progress=progress)
    say("\n".join(f"wrote {path}" for path in paths))


@app.command()
def convert(
    checkpoint: Annotated[
        str, typer.Argument(help="A released .pth file, an MLLM's folder, or a hub name.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    tokenizer: Annotated[
        str | None, typer.Option(help="For an MLLM: the converted tokenizer it was trained on.")
    ] = None,
    revision: Revision = None,
    force: Force = False,
) -> None:
    """Turn released files into a folder that --model takes.

    \b
    unitok convert unitok_tokenizer.pth -o unitok-large
    unitok convert released-mllm -o unitok-mllm-7b --tokenizer unitok-large
    """
    announce(f"converting {checkpoint}")
    from mllm.released import convert_released

    kind = convert_released(checkpoint, output, revision=revision, tokenizer=tokenizer, force=force)
    say(f"wrote the {kind} to {output}")


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's need a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="UNITOK_API_KEY",
            show_envvar=True,
            help="What clients must send; other users of this machine see what is typed here.",
        ),
    ] = None,
    max_waiting: Annotated[
        int, typer.Option(min=1, help="Requests that may wait; others are told to come back.")
    ] = 64,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A name under which others reach the server; repeatable."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="A site whose pages may ask, such as https://example.org; repeatable."),
    ] = None,
    fetch_images: Annotated[
        bool,
        typer.Option("--fetch-images", help="Fetch pictures that are named by their web address."),
    ] = False,
    web: Annotated[bool, typer.Option("--web", help="Serve the web page, too.")] = False,
    model: Model = "nano",
    revision: Revision = None,
    tokenizer: Tokenizer = None,
    device: Device = "auto",
    dtype: Dtype = None,
) -> None:
    """Answer OpenAI's clients over HTTP, until Ctrl-C.

    \b
    unitok serve
    unitok serve --web
    unitok serve --port 9000 --max-waiting 16 --fetch-images
    unitok serve --host 0.0.0.0 --api-key KEY --allow-host gpu.example.org
    """
    from mllm.serving.options import ServerOptions, public_name
    from mllm.serving.packages import load_server

    name, hosts, origins = public_name(model), allow_host or (), allow_origin or ()
    options = ServerOptions(
        *(host, port, name, api_key, max_waiting, hosts, origins),
        fetch_images=fetch_images,
        has_page=web,
    )
    run = load_server(has_page=web)
    pipeline = load_pipeline(model, revision, tokenizer=tokenizer, device=device, dtype=dtype)
    run(pipeline, options, announce)


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="nano, a folder, or a hub name.")] = "nano",
    revision: Revision = None,
) -> None:
    """Show sizes, parameters, codebooks and weights fingerprint of a model.

    \b
    unitok info nano
    """
    announce(f"reading {model}")
    from mllm.model_info import describe_model

    for name, value in describe_model(model, revision=revision):
        say(f"{name:22}{value}")


def load_pipeline(
    model: str,
    revision: str | None,
    *,
    tokenizer: str | None,
    device: str,
    dtype: str | None,
) -> "Pipeline":
    announce(f"loading {model}")
    quiet_libraries()
    from mllm.pipeline import Pipeline

    return Pipeline.from_pretrained(
        model, revision=revision, tokenizer=tokenizer, device=device, dtype=dtype
    )


def load_tokenizer(model: str, revision: str | None, *, device: str, dtype: str) -> "UniTok":
    announce(f"loading {model}")
    from mllm import image_tokenizer

    return image_tokenizer.load_tokenizer(model, revision=revision, device=device, dtype=dtype)


def main() -> None:
    app()
