"""The Inception network as far as it goes without its weights, and features of whole folders."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from eval.fid_resize import resize_clean, resize_tensorflow
from eval.inception import WEIGHTS, Inception
from eval.picture_features import describe_folder, extract_features, find_pictures
from tests.eval.tiny_extractor import NUM_FEATURES, TinyExtractor


class Unloaded(FeatureExtractorInceptionV3):
    """The layers with the random weights that they start with."""

    def load_state_dict(self, state_dict, **options):
        pass


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    nothing = tmp_path_factory.mktemp("weights") / "nothing.pth"
    torch.save({}, nothing)
    network = Unloaded("random", ["2048"], feature_extractor_weights_path=str(nothing))
    # The usual random weights are so small that nothing of a picture would reach the end.
    for weight in network.parameters():
        if weight.ndim == 4:
            torch.nn.init.kaiming_normal_(weight)
    return network.state_dict()


@pytest.fixture(scope="module")
def extractor(weights):
    return Inception(weights, sha256="0" * 64)


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for number, name in enumerate(["b/2.JPG", "b/1.png", "a.png", "deep/er/c.webp", ".hidden.png"]):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (20, 30 + 10 * (number == 0), 3)
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(path)
    (tmp_path / "notes.txt").touch()
    return tmp_path


def test_features_and_logits_are_those_of_torch_fidelity(extractor):
    picture = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    pixels = torch.from_numpy(resize_tensorflow(picture)).permute(2, 0, 1)[None]
    extracted = extractor.extract(pixels)
    with torch.inference_mode():
        features, logits = extractor.network(torch.from_numpy(picture).permute(2, 0, 1)[None])
    assert extracted.features.shape == (1, 2048)
    assert extracted.logits.shape == (1, 1008)
    # Measured 3e-7 of the largest value: the resize rounds elsewhere.
    assert (extracted.features - features).abs().max() < 1e-4 * features.abs().max()
    assert (extracted.logits - logits).abs().max() < 1e-4 * logits.abs().max()


def test_only_pixels_of_inception_s_size_are_taken(extractor):
    with pytest.raises(ValueError, match=r"float32 \(B, 3, 299, 299\), got torch.uint8 \(1, 3, 9"):
        extractor.extract(torch.zeros(1, 3, 9, 9, dtype=torch.uint8))


def test_weights_are_read_from_a_file_and_none_may_be_missing(weights, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(weights, path)
    assert WEIGHTS.read(path).keys() == weights.keys()
    with pytest.raises(RuntimeError, match=r"Missing key.*fc\.bias"):
        Inception({key: each for key, each in weights.items() if key != "fc.bias"}, sha256="")


def test_missing_weights_say_what_to_get_and_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = WEIGHTS.default_path
    assert path == tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    with pytest.raises(FileNotFoundError, match=f"no Inception weights at {path}; download https"):
        Inception.from_file(device="cpu")


def test_other_weights_are_refused_by_their_hash(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"other")
    sha256 = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(ValueError, match=rf"SHA-256 {sha256[:8]}\.\.\., expected 6726825d"):
        WEIGHTS.check(path)
    assert replace(WEIGHTS, sha256=sha256[:8]).check(path) == sha256
    with pytest.raises(ValueError, match="no tensors that can be read safely"):
        WEIGHTS.read(path)


def test_a_file_that_would_run_code_is_not_unpickled(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"fc.bias": print}, path)
    with pytest.raises(ValueError, match="no tensors that can be read safely"):
        WEIGHTS.read(path)


def test_pictures_are_found_at_any_depth_and_in_any_case(folder):
    names = [path.relative_to(folder).as_posix() for path in find_pictures(folder)]
    assert names == ["a.png", "b/1.png", "b/2.JPG", "deep/er/c.webp"]


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder of pictures at"):
        find_pictures(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no picture"):
        find_pictures(tmp_path)


def test_features_do_not_depend_on_the_batch_and_keep_the_order(folder):
    paths, seen = find_pictures(folder), []
    together = extract_features(paths, TinyExtractor(), resize="clean")
    apart = extract_features(
        paths,
        TinyExtractor(),
        resize="clean",
        batch_size=3,
        progress=lambda *counts: seen.append(counts),
    )
    assert together.features.shape == (4, NUM_FEATURES)
    assert np.allclose(together.features, apart.features, rtol=1e-6)
    assert np.allclose(together.logits, apart.logits, atol=1e-6)  # measured: 3e-7
    assert seen == [(3, 4), (4, 4)]
    picture = resize_clean(np.asarray(Image.open(paths[1])))
    alone = TinyExtractor().extract(torch.from_numpy(picture).permute(2, 0, 1)[None])
    assert np.allclose(together.features[1], alone.features[0], rtol=1e-6)


def test_the_two_resizes_give_other_features(folder):
    paths = find_pictures(folder)
    clean, other = (
        extract_features(paths, TinyExtractor(), resize=name) for name in ("clean", "tensorflow")
    )
    assert np.abs(clean.features - other.features).max() > 1e-3


def test_a_folder_is_described_by_names_formats_and_sizes(folder):
    pictures = extract_features(find_pictures(folder), TinyExtractor(), resize="clean")
    described = describe_folder(folder, pictures)
    names = "a.png\nb/1.png\nb/2.JPG\ndeep/er/c.webp"
    assert described == {
        "folder": str(folder),
        "num_pictures": 4,
        "names_sha256": hashlib.sha256(names.encode()).hexdigest(),
        "formats": {".png": 2, ".jpg": 1, ".webp": 1},
        "sizes": {"30x20": 3, "40x20": 1},
    }


def test_a_broken_picture_is_named(folder):
    (folder / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"cannot read the picture .*a\.png"):
        extract_features(find_pictures(folder), TinyExtractor(), resize="clean")
