"""UniTokMLLM: a LLaMA decoder that reads and draws pictures as codes.

Paper: UniTok, arXiv 2502.20321. A stock `LlamaModel` reads text embeddings and, at placeholder
positions, the visual embedder's output. Text leaves through `lm_head`, pictures through the
visual head, which sees the decoder's normed output at the position before.
Differs from official UniTok: one forward for every task, the placeholders already expanded in
`input_ids`; logits only where something is learned.

Shapes: B rows, T sequence length, P pictures of the batch in reading order, L visual tokens,
K codebooks, D decoder width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    Cache,
    GenerationMixin,
    LlamaModel,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.utils import ModelOutput

from mllm.config import UniTokMLLMConfig
from mllm.loading_bar import hide_short_bar
from mllm.loss import LossTerms, compute_loss
from mllm.packed_attention import packing_arguments
from mllm.visual_embedder import VisualEmbedder
from mllm.visual_head import VisualHead
from unitok.checkpoint import find_weights, load_folder
from unitok.fingerprint import fingerprint, fingerprint_in_memory
from unitok.hub import resolve_model
from unitok.projection import ProjectionAttention
from unitok.quantizer import INIT_SCALE, MultiCodebookQuantizer

NANO_FOLDER = Path(__file__).parent / "nano"


@dataclass
class UniTokMLLMOutput(ModelOutput):
    loss: Tensor | None = None  # of this batch alone; None if no label is learned
    loss_terms: LossTerms | None = None  # sums and counts, for a denominator over several batches
    logits: Tensor | None = None  # (B, T or logits_to_keep, vocabulary); None with labels
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


def check_loading_info(info: Mapping[str, Any], folder: Path) -> None:
    """Refuse weights that did not give every parameter its value."""
    problems = [f"missing {key}" for key in sorted(info["missing_keys"])]
    problems += [f"unknown {key}" for key in sorted(info["unexpected_keys"])]
    problems += [f"misshapen {key}" for key in sorted(map(str, info["mismatched_keys"]))]
    if problems:
        raise ValueError(
            f"the weights in {folder} do not fit its config.json: {'; '.join(problems[:5])}"
            f" ({len(problems)} problems); save the model again or convert it again"
        )


class UniTokMLLM(PreTrainedModel, GenerationMixin):
    """Reads text and pictures, writes text with transformers' `generate`.

    Pictures are drawn by `mllm.generation.generate_codes`.
    """

    config: UniTokMLLMConfig
    config_class = UniTokMLLMConfig
    base_model_prefix = "decoder"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # a trainer takes the denominator from `loss_terms`
    _no_split_modules = ["LlamaDecoderLayer"]  # noqa: RUF012 - transformers' protocol
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: UniTokMLLMConfig) -> None:
        super().__init__(config)
        text_config = config.text_config
        self.visual_embedder = VisualEmbedder(
            config.num_codebooks,
            config.codebook_size,
            codebook_dim=config.codebook_dim,
            projection_dim=config.projection_dim,
            projection_heads=config.projection_heads,
            hidden_size=text_config.hidden_size,
        )
        self.decoder = LlamaModel(text_config)
        self.lm_head = nn.Linear(text_config.hidden_size, text_config.vocab_size, bias=False)
        self.visual_head = VisualHead(
            text_config,
            num_layers=config.head_layers,
            num_codebooks=config.num_codebooks,
            codebook_size=config.codebook_size,
        )
        self._loaded_fingerprint: str | None = None
        self.post_init()  # type: ignore[no-untyped-call]

    @property
    def fingerprint(self) -> str:
        """Name of the weights in memory."""
        return fingerprint_in_memory(self, self.dtype, on_disk=self._loaded_fingerprint)

    @classmethod
    def from_pretrained(  # type: ignore[override] # fewer named arguments, all handed on
        cls, pretrained_model_name_or_path: str | Path = "nano", *args: Any, **kwargs: Any
    ) -> Any:
        """Load `nano`, a folder or a hub name; other arguments are those of transformers.

        Raises ValueError when the weights lack or add anything: nothing starts from fresh weights.
        """
        if kwargs.get("use_safetensors") is False:
            raise ValueError(
                "other weights than safetensors are never unpickled; leave use_safetensors out"
            )
        folder = resolve_model(
            pretrained_model_name_or_path,
            nano_folder=NANO_FOLDER,
            expected_type=UniTokMLLMConfig.model_type,
            revision=kwargs.pop("revision", None),
        )
        weights = find_weights(folder)  # says what to do when there are none
        wants_info = kwargs.pop("output_loading_info", False)
        options = {**kwargs, "use_safetensors": True, "output_loading_info": True}
        with hide_short_bar(weights):
            loaded: Any = super().from_pretrained(folder, *args, **options)
        model, info = loaded
        check_loading_info(info, folder)
        if model.dtype == torch.float16:
            model._loaded_fingerprint = fingerprint(load_folder(folder))
        return (model, info) if wants_info else model

    def adopt_tokenizer(self, quantizer: MultiCodebookQuantizer, *, fingerprint: str) -> None:
        """Take over a tokenizer's codebooks and remember which tokenizer it was."""
        self.visual_embedder.load_codebooks(quantizer.codebooks_KVD)
        self.config.tokenizer_fingerprint = fingerprint

    def embed(self, input_ids: Tensor, codes: Tensor | None = None) -> Tensor:
        """Input ids (B, T) and the codes (P, L, K) of their pictures -> embeddings (B, T, D)."""
        is_visual_BT = input_ids == self.config.image_token_id
        # The placeholder is outside the vocabulary; what is looked up instead gets overwritten.
        embeds_BTD = self.decoder.embed_tokens(input_ids.masked_fill(is_visual_BT, 0))
        self._check_codes(codes, num_placeholders=int(is_visual_BT.sum()))
        if codes is None:
            return embeds_BTD
        visual_PLD = self.visual_embedder(codes).to(embeds_BTD.dtype)
        return embeds_BTD.masked_scatter(is_visual_BT.unsqueeze(-1), visual_PLD)

    def forward(
        self,
        input_ids: Tensor,
        codes: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        sample_lengths: Sequence[int] | None = None,
        groups: Tensor | None = None,
        **kwargs: Any,
    ) -> UniTokMLLMOutput:
        """Loss with labels, text logits without.

        Args:
            input_ids: (B, T), with one `image_token_id` per visual token.
            codes: (P, L, K) int64, the pictures of the batch in reading order.
            attention_mask: (B, T), 0 for padding. Leave it out for packed rows.
            labels: (B, T); -100 is not learned, text ids are, and `image_token_id` at a visual
                position asks for its codes. Mask the first label of each sample in a pack.
            logits_to_keep: text logits of so many last positions only; 0 for all.
            sample_lengths: of a pack: one row of samples that do not see each other. Gives
                `position_ids` and the attention mask.
            groups: (B, T) int64, with labels: what to sum the loss terms by, besides all.
        """
        if codes is None and (self.training or labels is not None):
            # No pictures: in training the embedder runs all the same, because every process of a
            # distributed training has to touch the same parameters.
            codes = input_ids.new_zeros((0, 1, self.config.num_codebooks))
        if labels is not None or sample_lengths is not None:
            # Nothing follows; and transformers looks for packed rows only where there is no cache.
            kwargs["use_cache"] = False
        kwargs |= {"attention_mask": attention_mask, "position_ids": position_ids}
        if sample_lengths is not None:
            kwargs |= packing_arguments(
                sample_lengths,
                implementation=self.config._attn_implementation,
                device=input_ids.device,
            )
        outputs = self.decoder(
            inputs_embeds=self.embed(input_ids, codes), past_key_values=past_key_values, **kwargs
        )
        hidden_BTD = outputs.last_hidden_state
        logits, terms = None, None
        if labels is None:
            is_count = isinstance(logits_to_keep, int)
            kept = slice(-logits_to_keep, None) if is_count else logits_to_keep
            logits = self.lm_head(hidden_BTD[:, kept])
        else:
            assert codes is not None
            terms = self._loss_terms(hidden_BTD, labels, input_ids, codes=codes, groups=groups)
        return UniTokMLLMOutput(
            loss=terms.total if terms is not None and terms.num_learned else None,
            loss_terms=terms,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def prepare_inputs_for_generation(
        self,
        *args: Any,
        codes: Tensor | None = None,
        is_first_iteration: bool | None = False,
        use_cache: bool = True,
        **kwargs: Any,
    ) -> Any:
        """transformers' `generate` hands codes over with the prompt, not with each new token."""
        inputs = super().prepare_inputs_for_generation(  # type: ignore[misc]
            *args, is_first_iteration=is_first_iteration, use_cache=use_cache, **kwargs
        )
        inputs["codes"] = codes if is_first_iteration or not use_cache else None
        return inputs

    def _expand_inputs_for_generation(  # type: ignore[override]
        self, expand_size: int = 1, *, codes: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """Several answers per row: the pictures of a row stay together in each copy of it."""
        if codes is not None and expand_size > 1:
            num_tokens_B = (kwargs["input_ids"] == self.config.image_token_id).sum(dim=1)
            rows = codes.split((num_tokens_B // codes.shape[1]).tolist())
            codes = torch.cat([row for row in rows for _ in range(expand_size)])
        input_ids, kwargs = super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size, **kwargs
        )
        return input_ids, {**kwargs, "codes": codes}

    def _loss_terms(
        self,
        hidden_BTD: Tensor,
        labels_BT: Tensor,
        input_ids_BT: Tensor,
        *,
        codes: Tensor,
        groups: Tensor | None,
    ) -> LossTerms:
        return compute_loss(
            hidden_BTD,
            labels_BT,
            input_ids_BT=input_ids_BT,
            codes_PLK=codes,
            image_token_id=self.config.image_token_id,
            lm_head=self.lm_head,
            visual_head=self.visual_head,
            groups_BT=groups,
        )

    def _check_codes(self, codes: Tensor | None, *, num_placeholders: int) -> None:
        if codes is not None and codes.numel():
            self.visual_embedder.quantizer.check_codes(codes)
        num_tokens = 0 if codes is None else codes.shape[:-1].numel()
        if num_tokens != num_placeholders:
            raise ValueError(
                f"input_ids hold {num_placeholders} visual tokens, codes hold {num_tokens}; "
                "expected one placeholder for every visual token of every picture"
            )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Fresh values also for what transformers does not know, buffers included."""
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, MultiCodebookQuantizer):
            bound = module.codebooks_KVD.shape[-1] ** -0.5 / INIT_SCALE
            init.uniform_(module.codebooks_KVD, -bound, bound)
            init.zeros_(module.vocab_usage_KV)
            init.zeros_(module.num_updates)
        elif isinstance(module, ProjectionAttention):
            init.zeros_(module.q_bias)
            init.zeros_(module.v_bias)


AutoModelForImageTextToText.register(UniTokMLLMConfig, UniTokMLLM)
