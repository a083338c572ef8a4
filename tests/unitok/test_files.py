"""Atomic writes, and the checks made before one."""

import os
import stat
from pathlib import Path

import pytest

from unitok.files import atomic_write, check_output, read_json, write_json


def test_the_file_appears_only_when_the_block_ends(tmp_path):
    target = tmp_path / "a.txt"
    with atomic_write(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".txt"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    temporaries = []

    def write_half():
        with atomic_write(target) as temporary:
            temporaries.append(temporary)
            temporary.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_new_file_has_the_usual_rights_and_a_replaced_one_keeps_its_own(tmp_path):
    plain, target = tmp_path / "plain", tmp_path / "a"
    plain.touch()
    for expected in (stat.S_IMODE(plain.stat().st_mode), 0o640):
        with atomic_write(target) as temporary:
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT, 0o600))
        assert stat.S_IMODE(target.stat().st_mode) == expected
        target.chmod(0o640)


def test_a_link_stays_a_link(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with atomic_write(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_devices_and_folders_are_never_replaced(tmp_path):
    with (
        pytest.raises(ValueError, match="/dev/null is not a regular file"),
        atomic_write("/dev/null"),
    ):
        pass
    with pytest.raises(IsADirectoryError, match="name a file in it"), atomic_write(tmp_path):
        pass


def test_a_free_path_is_returned(tmp_path):
    assert check_output(str(tmp_path / "a.png")) == tmp_path / "a.png"


def test_an_existing_file_needs_force(tmp_path):
    target = tmp_path / "a.png"
    target.touch()
    with pytest.raises(FileExistsError, match=r"a\.png exists already; pass --force"):
        check_output(target)
    assert check_output(target, force=True) == target


def test_a_folder_is_refused_even_with_force(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder; name a file"):
        check_output(tmp_path, force=True)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"create the folder .*missing first"):
        check_output(tmp_path / "missing" / "a.png")


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is a file, not a folder"):
        check_output(tmp_path / "file" / "a.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match=r"a\.png: no file can be made in .* \(Permission denied\)"):
        check_output(tmp_path / "a.png")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder of the kernel's")
def test_a_folder_in_which_no_file_can_be_made_is_refused_even_for_root():
    with pytest.raises(OSError, match=r"cannot write /proc/a\.png: no file can be made in /proc"):
        check_output("/proc/a.png")


def test_the_check_leaves_nothing_behind(tmp_path):
    check_output(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_an_object_is_read_as_it_was_written(tmp_path):
    content = {"name": "é <b>", "numbers": [1, 2.5, None]}
    write_json(content, tmp_path / "a.json")
    assert read_json(tmp_path / "a.json") == content
    assert (tmp_path / "a.json").read_text(encoding="utf-8").startswith('{\n  "name": "é <b>"')
