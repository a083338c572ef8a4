"""What a server is told: where it listens, who may ask, and how much."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """How much one request may take."""

    body_bytes: int = 32 * MIB
    image_bytes: int = 16 * MIB
    image_pixels: int = 25_000_000
    images: int = 16  # pictures that a conversation shows
    text_characters: int = 100_000  # of a single text
    drawings: int = 10  # pictures that one request for pictures draws
    upload_seconds: float = 30.0  # to hand in a body
    answer_seconds: float = 300.0  # from a request's place in the queue to its end
    send_seconds: float = 30.0  # to take what was sent
    fetch_seconds: float = 10.0  # to get a picture from elsewhere

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"{name} must be above 0, got {value}")


@dataclass(frozen=True)
class ServerOptions:
    """Where a server listens and whom it answers."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any that is free
    model_name: str = "nano"  # what clients call the model
    api_key: str | None = field(default=None, repr=False)
    max_waiting: int = 64  # requests; one more is told to come back later
    allow_hosts: Sequence[str] = ()  # names under which others reach the server
    allow_origins: Sequence[str] = ()  # sites whose pages may ask
    fetch_images: bool = False  # whether a picture may be named by its address
    has_page: bool = False  # whether the web page is served too
    drain_seconds: float = 20.0  # for what is in work when the server is told to stop
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"the port must be 0 to 65535, got {self.port}")
        if self.max_waiting < 1:
            raise ValueError(f"max_waiting must be at least 1, got {self.max_waiting}")
        if self.api_key is not None:
            check_api_key(self.api_key)
        elif not self.is_private:
            raise ValueError(
                f"on the address {self.host} anyone in the network could use the model; set an "
                "API key (UNITOK_API_KEY), or listen on 127.0.0.1"
            )

    @property
    def is_private(self) -> bool:
        """Whether only this machine reaches the server."""
        return is_loopback(self.host)


def public_name(model: str) -> str:
    """What clients call a model; a folder's place on this machine is not theirs to know."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_address(host: str) -> bool:
    """Whether a host is an IP address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def check_api_key(key: str) -> None:
    if not key.isascii() or not key.isprintable() or not key.strip() or key != key.strip():
        raise ValueError(
            "the API key must be printable ASCII without spaces around it, got something else; "
            "make one with python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
