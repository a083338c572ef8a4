"""The table of tokenizers: a row for each model, published scores only where they compare."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from eval.report import BenchmarkReport, ItemCounts, app, write_report
from eval.tokenizer_table import build_table, collect

SETTINGS = {
    "model_fingerprint": "abc",
    "num_pictures": 50_000,
    "names_sha256": "n",
    "recipe": "rfid",
    "image_size": 256,
    "dtype": "float32",
}


def reconstruction(model: str, *, own: bool = False, **changes: object) -> BenchmarkReport:
    metrics = {
        "rfid": 0.4123,
        "inception_score": 210.5,
        "inception_score_std": 1.0,
        "psnr": 25.1,
        "ssim": 0.7,
        "lpips": None,
        "bits_per_pixel": 0.375,
        "codebook_usage": 99.0,
        "codebook_perplexity": 3000.0,
    }
    return BenchmarkReport(
        "reconstruction-own" if own else "reconstruction",
        metrics,
        ItemCounts(50_000),
        settings={**SETTINGS, "model": model, **changes},
    )


def zeroshot(model: str) -> BenchmarkReport:
    settings = {**SETTINGS, "model": model, "autocast": "bfloat16"}
    metrics = {"top1": 70.75, "top5": 92.0}
    return BenchmarkReport("zeroshot", metrics, ItemCounts(50_000), settings=settings)


def rows_of(*reports: BenchmarkReport) -> dict[str, dict[str, str]]:
    table = build_table(collect(reports))
    return {row[0]: dict(zip(table.heading, row, strict=True)) for row in table.rows}


def test_reports_of_one_model_share_a_row_and_the_paper_s_stand_below() -> None:
    rows = rows_of(
        reconstruction("unitok:a"), zeroshot("unitok:a"), reconstruction("sd-vae:b"),
        zeroshot("clip:c"),
    )  # fmt: skip
    assert list(rows)[:4] == ["unitok:a", "sd-vae:b", "clip:c", "UniTok"]
    assert rows["unitok:a"] == {
        "model": "unitok:a",
        "from": "measured",
        "rFID": "0.4123",
        "IS": "210.50",
        "PSNR": "25.10",
        "SSIM": "0.7000",
        "LPIPS": "-",
        "bits/px": "0.3750",
        "usage %": "99.00",
        "perplexity": "3000.00",
        "zero-shot %": "70.75",
        "top-5 %": "92.00",
    }
    assert rows["sd-vae:b"]["zero-shot %"] == "-"
    assert rows["clip:c"]["rFID"] == "-"
    assert (rows["UniTok"]["rFID"], rows["UniTok"]["zero-shot %"]) == ("0.41", "70.8")
    assert rows["UniTok"]["from"] == "Table 1"
    assert (rows["VQ-GAN"]["rFID"], rows["VQ-GAN"]["zero-shot %"]) == ("4.98", "-")
    assert (rows["SD-VAE"]["rFID"], rows["SD-VAE"]["from"]) == ("0.87", "abstract")
    assert rows["RQ-VAE"]["rFID"] == "1.30"
    assert rows["SigLIP"]["zero-shot %"] == "80.5"


def test_columns_and_published_rows_are_those_of_what_was_measured() -> None:
    rows = rows_of(zeroshot("clip:c"))
    assert list(rows["clip:c"]) == ["model", "from", "zero-shot %", "top-5 %"]
    assert "VQ-GAN" not in rows
    assert "ViTamin" in rows


def test_no_published_score_stands_beside_other_pictures() -> None:
    assert list(rows_of(reconstruction("unitok:a", own=True))) == ["unitok:a"]


def test_rows_about_other_pictures_are_warned_of() -> None:
    first, other = reconstruction("a"), reconstruction("b", names_sha256="other")
    assert build_table(collect([first, other])).warnings == (
        "reconstruction: b was not measured on the pictures of a",
    )
    assert build_table(collect([first, reconstruction("b")])).warnings == ()


def test_notes_name_weights_precision_and_sources() -> None:
    report = replace(reconstruction("a"), notes=("few",))
    notes = build_table(collect([report, zeroshot("a")])).notes
    assert "a (abc): reconstruction on 50000 pictures, float32" in notes
    assert "a (abc): zeroshot on 50000 pictures, bfloat16 autocast" in notes
    assert "a, reconstruction: few" in notes
    assert any("arXiv 2502.20321v3, Table 1: UniTok, " in note for note in notes)


def test_other_reports_and_two_of_one_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="has two reports of reconstruction; leave one of them"):
        collect([reconstruction("a"), reconstruction("a", own=True)])
    with pytest.raises(ValueError, match=r"takes reports of reconstruction, .*, got one of pope"):
        collect([replace(reconstruction("a"), benchmark="pope")])


# -- the command -----------------------------------------------------------------------------------


def test_the_command_writes_and_prints_the_table(tmp_path) -> None:
    write_report(reconstruction("unitok:a"), tmp_path / "a.json")
    write_report(zeroshot("clip:c"), tmp_path / "c.json")
    arguments = [str(tmp_path / name) for name in ("a.json", "c.json")]
    output = tmp_path / "table.md"
    result = CliRunner().invoke(app, [*arguments, "-o", str(output)])
    assert result.exit_code == 0, result.output
    assert result.stdout == output.read_text()
    assert "| unitok:a | measured | 0.4123 |" in result.stdout
    pixels = np.asarray(Image.open(tmp_path / "table.png"))
    assert (pixels < 128).any()
    refused = CliRunner().invoke(app, [*arguments, "-o", str(output)])
    assert refused.exit_code == 1
    assert "pass --force to overwrite it" in refused.stderr


@pytest.mark.parametrize(
    ("name", "content", "output", "message"),
    [
        ("no.json", None, "t.md", "no report at"),
        ("bad.json", "{}", "t.md", "is no whole report of this version"),
        ("bad.json", "{}", "t.txt", "the output must end in .md, got"),
    ],
)
def test_what_cannot_be_read_or_written_is_said(tmp_path, name, content, output, message) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    arguments = [str(tmp_path / name), "-o", str(tmp_path / output)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert message in result.stderr
