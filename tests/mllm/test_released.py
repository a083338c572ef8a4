import pytest
from huggingface_hub.errors import HTTPError

from mllm.released import find_released


@pytest.fixture
def failing_download(monkeypatch):
    """Lets a download from the hub end with an error of a test's choice."""

    def fail_with(error):
        def fail(name, **options):
            raise error

        monkeypatch.setattr("mllm.released.snapshot_download", fail)

    return fail_with


def test_a_failing_network_is_one_sentence(failing_download):
    failing_download(HTTPError("connection reset"))
    message = "no reachable hub model called 'owner/model' at revision 'v2' .*a released .pth file"
    with pytest.raises(FileNotFoundError, match=message):
        find_released("owner/model", "v2")


def test_a_full_disk_is_not_taken_for_missing_files(failing_download):
    failing_download(OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space left on device"):
        find_released("owner/model")


def test_several_checkpoints_are_not_chosen_from(tmp_path):
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"several checkpoints; name one of a\.pth, b\.pth"):
        find_released(tmp_path)
    (tmp_path / "a.pth").unlink()
    assert find_released(tmp_path) == tmp_path / "b.pth"
