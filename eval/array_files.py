"""Arrays in .npz files, mapped where they are stored as they are: one may exceed the memory."""

import struct
import zipfile
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray

LOCAL_HEADER = 26  # bytes of a zip member before the lengths of its name and its extra field


def map_arrays(path: Path) -> dict[str, NDArray]:
    """The arrays of an .npz by name; nothing in it is unpickled."""
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}; expected an .npz of arrays")
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            arrays = {
                Path(member.filename).stem: _map_member(archive, member, file=file, path=path)
                for member in archive.infolist()
                if member.filename.endswith(".npy")
            }
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise ValueError(f"{path} is no .npz of plain arrays ({error}); save it again") from error
    if not arrays:
        raise ValueError(f"{path} holds no array; save it again with numpy.savez")
    return arrays


def _map_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, *, file: IO[bytes], path: Path
) -> NDArray:
    if member.compress_type != zipfile.ZIP_STORED:
        with archive.open(member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    file.seek(member.header_offset + LOCAL_HEADER)
    file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"its arrays have the format version {version}, expected (1, 0)")
    shape, is_fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if 0 in shape or not shape:
        return np.empty(shape, dtype)
    order: Literal["F", "C"] = "F" if is_fortran else "C"
    return np.memmap(path, dtype, mode="r", offset=file.tell(), shape=shape, order=order)
