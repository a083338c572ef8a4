"""One loss for text and pictures: the mean over learned text tokens and learned sub-codes.

loss = (sum of text CE + sum over sub-codes of (CE + 5e-5 * max_logit^2)) / (N_text + N_image),
where N_text counts text labels after the shift and N_image = K * L * pictures drawn. Sums and
counts are kept apart, so that packs, accumulation steps and processes can share one denominator.

Shapes: B rows, T sequence length, N learned positions, D decoder width, P pictures,
L visual tokens, K codebooks, V vocabulary or codebook size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mllm.lockstep import calls_in_step

IGNORE_ID = -100  # label of a position that is not learned, as in transformers
MAX_LOGIT_WEIGHT = 5e-5  # keeps the visual head's logits from drifting (official value)
TEXT_CHUNK = 1024  # positions whose logits exist at the same time: 131 MB in fp32 at V = 32000
IMAGE_CHUNK = 512  # the same for K = 8 sub-codes each: 67 MB at V = 4096


@dataclass
class LossTerms:
    """Sums and counts over one batch; `text` and `image` are differentiable scalars."""

    text: Tensor  # sum of CE over learned text tokens
    image: Tensor  # sum of CE + max-logit penalty over learned sub-codes
    num_text: int
    num_image: int
    by_group: Tensor | None = None  # (G, 4) float64: text, image, num_text, num_image of each group

    @property
    def num_learned(self) -> int:
        return self.num_text + self.num_image

    @property
    def total(self) -> Tensor:
        """The loss of this batch alone."""
        if self.num_learned == 0:
            raise ValueError(
                "the labels leave nothing to learn; expected at least one that is not "
                f"{IGNORE_ID} after the first position of a row"
            )
        return (self.text + self.image) / self.num_learned

    def check_finite(self) -> None:
        """Raise RuntimeError that names the term which is NaN or infinite."""
        values = torch.stack([self.text.detach().float(), self.image.detach().float()]).tolist()
        for name, value in zip(("text", "image"), values, strict=True):
            if not abs(value) < float("inf"):
                raise RuntimeError(
                    f"the {name} loss is {value}, expected a finite number; lower the learning "
                    "rate, clip gradients, or look for broken inputs"
                )


def count_learned(labels_BT: Tensor, *, image_token_id: int, num_codebooks: int) -> tuple[int, int]:
    """N_text and N_image of labels (B, T): for the denominator that several batches share."""
    targets = labels_BT[:, 1:]
    num_drawn = int((targets == image_token_id).sum())
    return int((targets != IGNORE_ID).sum()) - num_drawn, num_drawn * num_codebooks


def text_loss(hidden_ND: Tensor, labels_N: Tensor, lm_head: Callable[[Tensor], Tensor]) -> Tensor:
    """Cross entropies (N,) of text labels given the hidden states before them."""

    def chunk_loss(hidden: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(lm_head(hidden).float(), labels, reduction="none")

    return losses_in_chunks(chunk_loss, hidden_ND, labels_N, chunk_size=TEXT_CHUNK)


def image_loss(
    hidden_ND: Tensor, codes_NK: Tensor, visual_head: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Cross entropy and max-logit penalty (N,), summed over the sub-codes of each position."""

    def chunk_loss(hidden: Tensor, codes: Tensor) -> Tensor:
        logits_NKV = visual_head(hidden, codes).float()
        cross_entropy_NK = F.cross_entropy(logits_NKV.mT, codes, reduction="none")
        return (cross_entropy_NK + MAX_LOGIT_WEIGHT * logits_NKV.amax(dim=-1).square()).sum(dim=-1)

    return losses_in_chunks(chunk_loss, hidden_ND, codes_NK, chunk_size=IMAGE_CHUNK)


def losses_in_chunks(
    chunk_loss: Callable[[Tensor, Tensor], Tensor],
    rows: Tensor,
    targets: Tensor,
    *,
    chunk_size: int,
) -> Tensor:
    """`chunk_loss` of all rows, (N,); only one chunk's logits exist at a time.

    The backward pass computes each chunk again instead of keeping its logits. Without rows the
    layers still run, on one row that counts nothing, (1,): every process of a distributed training
    has to touch the same parameters. So they do for each chunk that another process has more.
    """
    num_own = -(-len(rows) // chunk_size)
    num_calls = calls_in_step(max(1, num_own), rows.device)
    # One call is not computed again, in any process: that would be a call that the others lack.
    call = chunk_loss if num_calls == 1 else partial(_recomputed, chunk_loss)
    chunks = zip(rows.split(chunk_size)[:num_own], targets.split(chunk_size)[:num_own], strict=True)
    losses = [call(*chunk) for chunk in chunks]
    if len(losses) == num_calls:
        return torch.cat(losses)
    # With a gradient like the others, or ZeRO-3 would treat the layers' parameters differently.
    one_row = rows.new_zeros(1, *rows.shape[1:]).requires_grad_(rows.requires_grad)
    one_target = targets.new_zeros(1, *targets.shape[1:])
    fillers = [call(one_row, one_target) for _ in range(num_calls - num_own)]
    nothing = 0 * torch.cat(fillers).sum(dim=0, keepdim=True)
    if not losses:
        return nothing + rows.sum()  # 0, and reaches what made the rows
    return torch.cat(losses) + nothing


def _recomputed(
    chunk_loss: Callable[[Tensor, Tensor], Tensor], rows: Tensor, targets: Tensor
) -> Tensor:
    losses: Tensor = checkpoint(chunk_loss, rows, targets, use_reentrant=False)
    return losses


def compute_loss(
    hidden_BTD: Tensor,
    labels_BT: Tensor,
    *,
    input_ids_BT: Tensor,
    codes_PLK: Tensor,
    image_token_id: int,
    lm_head: Callable[[Tensor], Tensor],
    visual_head: Callable[[Tensor, Tensor], Tensor],
    groups_BT: Tensor | None = None,
) -> LossTerms:
    """Loss terms of a batch; the hidden state at t - 1 predicts what stands at t.

    A label of `image_token_id` at a visual position asks to learn its codes. Codes hold the
    pictures of all rows in reading order. Positions that are not learned cost no logits.
    `groups_BT` numbers what each position belongs to, such as its source of data: the terms are
    then also summed by group.
    """
    is_drawn_BT = labels_BT == image_token_id
    check_labels(labels_BT, input_ids_BT, image_token_id=image_token_id)
    is_text_BT = (labels_BT != IGNORE_ID) & ~is_drawn_BT
    before_BTD = hidden_BTD[:, :-1]
    text_hidden_ND = before_BTD[is_text_BT[:, 1:]]
    text_labels_N = labels_BT[:, 1:][is_text_BT[:, 1:]]
    image_hidden_ND = before_BTD[is_drawn_BT[:, 1:]]
    is_visual_BT = input_ids_BT == image_token_id
    codes_NK = codes_PLK.flatten(0, 1)[is_drawn_BT[is_visual_BT]]
    text_N = text_loss(text_hidden_ND, text_labels_N, lm_head)
    image_N = image_loss(image_hidden_ND, codes_NK, visual_head)
    terms = LossTerms(
        text=text_N.sum(),
        image=image_N.sum(),
        num_text=len(text_labels_N),
        num_image=codes_NK.numel(),
    )
    terms.check_finite()
    if groups_BT is not None:
        text_groups_N, image_groups_N = (
            groups_BT[:, 1:][is_learned_BT[:, 1:]] for is_learned_BT in (is_text_BT, is_drawn_BT)
        )
        terms.by_group = sum_by_group(
            (text_N, text_groups_N, 1),
            (image_N, image_groups_N, codes_PLK.shape[-1]),
            num_groups=int(groups_BT.max()) + 1,
        )
    return terms


def sum_by_group(*kinds: tuple[Tensor, Tensor, int], num_groups: int) -> Tensor:
    """Losses (N,), their groups (N,) and labels per loss, of text and image -> (G, 4) float64."""
    sums_G4 = torch.zeros(num_groups, 4, dtype=torch.float64, device=kinds[0][0].device)
    for column, (losses_N, groups_N, labels_per_loss) in enumerate(kinds):
        if len(groups_N):
            sums_G4[:, column].index_add_(0, groups_N, losses_N.detach().double())
            counts_G = torch.bincount(groups_N, minlength=num_groups) * labels_per_loss
            sums_G4[:, 2 + column] = counts_G
    return sums_G4


def check_labels(labels_BT: Tensor, input_ids_BT: Tensor, *, image_token_id: int) -> None:
    """Raise ValueError for labels that do not fit the input."""
    if labels_BT.shape != input_ids_BT.shape:
        raise ValueError(
            f"labels must have the shape of input_ids {tuple(input_ids_BT.shape)}, "
            f"got {tuple(labels_BT.shape)}"
        )
    is_drawn_BT = labels_BT == image_token_id
    if (is_drawn_BT & (input_ids_BT != image_token_id)).any():
        raise ValueError(
            f"labels ask for codes (label {image_token_id}) where input_ids hold no visual token; "
            "label text positions with their own ids"
        )
    if is_drawn_BT[:, 0].any():
        raise ValueError(
            "a row starts with a drawn picture, but its first visual token is predicted from the "
            "position before it; put begin-of-image first"
        )
