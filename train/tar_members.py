"""How the files of a webdataset tar are named: those that share a name up to its first dot are one
sample, and what follows the dot says what each is."""

import tarfile

PICTURE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
READ_SUFFIXES = (*PICTURE_SUFFIXES, "txt", "json")  # others are left unread


def split_member(member: tarfile.TarInfo) -> tuple[str, str]:
    """The name of a file's sample and the file's own suffix; both empty for what is no sample's."""
    folder, _, name = member.name.rpartition("/")
    stem, _, suffix = name.partition(".")
    if not member.isreg() or not stem or not suffix:
        return "", ""
    return (f"{folder}/{stem}" if folder else stem), suffix.lower()


def is_read(suffix: str) -> bool:
    """Whether a sample's file with this suffix is of use."""
    return suffix.rpartition(".")[2] in READ_SUFFIXES
