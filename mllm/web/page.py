"""The page: its tabs, and how a server takes it up."""

import gradio as gr
from fastapi import FastAPI
from starlette.middleware import Middleware

from mllm.engine import Engine
from mllm.pipeline import Pipeline
from mllm.web import markup
from mllm.web.components import build_html
from mllm.web.conversation_tab import ConversationTab
from mllm.web.guard import InterfaceGuard
from mllm.web.theme import build_theme
from mllm.web.tokenization_tab import TokenizationTab

TITLE = "UniTok"


def build_page(engine: Engine, pipeline: Pipeline) -> gr.Blocks:
    """The page as Gradio blocks; `mount_page` gives it its look and puts it into a server."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        build_html(markup.render_header(pipeline), elem_id="header")
        with gr.Tab("Conversation"):
            conversation = ConversationTab(engine, pipeline)
        with gr.Tab("Tokenization"):
            TokenizationTab(pipeline)
        page.unload(conversation.stop)
    return page


def mount_page(app: FastAPI, engine: Engine, pipeline: Pipeline, *, path: str = "/") -> FastAPI:
    """Serve the page at `path` of `app`."""
    # The innermost: whatever the server checks itself comes first.
    app.user_middleware.append(Middleware(InterfaceGuard, path=path))
    return gr.mount_gradio_app(
        app,
        build_page(engine, pipeline),
        path,
        theme=build_theme(),
        css=markup.read_asset("page.css"),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        max_file_size=0,
        show_error=False,
    )
