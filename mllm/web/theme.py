"""The page's look: colours and type for Gradio's own components; the rest is in `page.css`.

Only fonts of the reader's system are used; nothing is asked of another host.
"""

import gradio as gr

SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "SF Mono", "Menlo", "Consolas", "monospace")

PAPER, PAPER_DARK = "#f5f2ec", "#171614"
SURFACE, SURFACE_DARK = "#fffdf9", "#201f1c"
INK, INK_DARK = "#23211d", "#ece8e0"
QUIET, QUIET_DARK = "#67625a", "#a59f94"
LINE, LINE_DARK = "#dcd6cb", "#37342f"
ACCENT, ACCENT_DARK = "#b5452c", "#f0987f"
ON_ACCENT, ON_ACCENT_DARK = "#ffffff", "#2a120a"


def build_theme() -> gr.themes.Base:
    theme = gr.themes.Base(
        primary_hue=gr.themes.colors.orange,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_lg,
        font=SANS,
        font_mono=MONO,
    )
    return theme.set(
        body_background_fill=PAPER,
        body_background_fill_dark=PAPER_DARK,
        body_text_color=INK,
        body_text_color_dark=INK_DARK,
        body_text_color_subdued=QUIET,
        body_text_color_subdued_dark=QUIET_DARK,
        background_fill_primary=SURFACE,
        background_fill_primary_dark=SURFACE_DARK,
        background_fill_secondary=PAPER,
        background_fill_secondary_dark=PAPER_DARK,
        block_background_fill=SURFACE,
        block_background_fill_dark=SURFACE_DARK,
        block_border_width="0px",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_title_text_color=INK,
        block_title_text_color_dark=INK_DARK,
        block_info_text_color=QUIET,
        block_info_text_color_dark=QUIET_DARK,
        border_color_primary=LINE,
        border_color_primary_dark=LINE_DARK,
        border_color_accent=ACCENT,
        border_color_accent_dark=ACCENT_DARK,
        color_accent=ACCENT,
        slider_color=ACCENT,
        slider_color_dark=ACCENT_DARK,
        input_background_fill=SURFACE,
        input_background_fill_dark=SURFACE_DARK,
        input_border_color=LINE,
        input_border_color_dark=LINE_DARK,
        input_placeholder_color=QUIET,
        input_placeholder_color_dark=QUIET_DARK,
        button_primary_background_fill=ACCENT,
        button_primary_background_fill_dark=ACCENT_DARK,
        button_primary_background_fill_hover="#9c3820",
        button_primary_background_fill_hover_dark="#f6ae9a",
        button_primary_text_color=ON_ACCENT,
        button_primary_text_color_dark=ON_ACCENT_DARK,
        button_secondary_background_fill=SURFACE,
        button_secondary_background_fill_dark=SURFACE_DARK,
        button_secondary_background_fill_hover="#efe9df",
        button_secondary_background_fill_hover_dark="#2b2925",
        button_secondary_border_color=LINE,
        button_secondary_border_color_dark=LINE_DARK,
        button_secondary_text_color=INK,
        button_secondary_text_color_dark=INK_DARK,
        shadow_drop="none",
        shadow_drop_lg="none",
    )
