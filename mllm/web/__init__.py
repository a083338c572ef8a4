"""The web page: one conversation that reads and draws pictures, and a look at their codes."""

from mllm.web.page import build_page, mount_page

__all__ = ["build_page", "mount_page"]
