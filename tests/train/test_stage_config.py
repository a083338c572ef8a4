"""Settings of a stage: what cannot be meant is refused, with what is expected."""

from typing import Any

import pytest

from tests.train.runs import ROOT
from train.config import load_config
from train.stage_config import StageConfig

CONFIG = ROOT / "train" / "configs" / "nano_finetune.yaml"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainable=[llm, projektor]", r"unknown parts \['projektor'\]; expected projection, pro"),
        ("optim.lr_scales={head: 2}", r"unknown parts \['head'\]; expected projection, projector"),
        ("trainable=[]", "trainable: .* at least 1 item"),
        ("optim.warmup_share=1.0", r"optim\.warmup_share: .* less than 1, got 1\.0"),
        ("attention=flash", "attention: .* 'packed_sdpa', 'sdpa', 'eager' or 'flash_attention_2'"),
        (
            "data.validation=[{name: chats, codes: data/more}]",
            r"sources need different names, got \['chats', 'drawings', 'chats'\]",
        ),
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_expected(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(StageConfig, CONFIG, [override])


def test_parts_can_have_rates_of_their_own() -> None:
    """The example of docs/training.md."""
    override = "optim.lr_scales={projector: 2.0, visual_head: 0.5}"
    config: Any = load_config(StageConfig, CONFIG, [override])
    assert config.optim.lr_scales == {"projector": 2.0, "visual_head": 0.5}
