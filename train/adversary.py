"""The discriminator's side of a tokenizer training: when it joins, what it learns, how it judges.

Shapes: B samples of this process, N logits of a sample.
"""

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from train.augment import augment, fading_sigma
from train.discriminator import build_discriminator
from train.losses import consistency_loss, hinge_discriminator_loss, hinge_generator_loss
from train.optimizers import build_adamw
from train.sample_seeds import derive
from train.schedules import cosine_rate, ramp
from train.tokenizer_config import AdversaryConfig


class Adversary:
    """Takes no part before `start`; then learns, and its judgement gains weight over a warm-up."""

    def __init__(
        self, config: AdversaryConfig, accelerator: Accelerator, *, num_steps: int
    ) -> None:
        self.config = config
        self.accelerator = accelerator
        self.num_steps = num_steps
        self.start = round(config.start_share * num_steps)
        self.warmup_steps = round(config.optim.warmup_share * num_steps)
        self.network = build_discriminator(config.network)
        self.wrapped = accelerator.prepare_model(self.network)
        self.optimizer = build_adamw(self.network, config.optim)

    def is_active(self, step: int) -> bool:
        return step >= self.start

    def weight(self, step: int) -> float:
        """How much its judgement counts at a step, up to 1."""
        return ramp(step - self.start, self.warmup_steps)

    def generator_loss(self, rebuilt: Tensor, seeds: Tensor, *, step: int) -> Tensor:
        """What it finds wrong with reconstructions (B, 3, H, W)."""
        seeds = derive(seeds, "generator")
        view = augment(rebuilt, seeds, blur_sigma=self._blur_sigma(rebuilt, step))
        return hinge_generator_loss(self.network(view, seeds))

    def backward(
        self, pixels: Tensor, rebuilt: Tensor, *, seeds: Tensor, step: int, share: float
    ) -> Mapping[str, Tensor]:
        """Add `share` of its own loss' gradients; returns values to log.

        Every picture is augmented twice, and the second view shall be judged like the first.
        """
        pictures = torch.cat([pixels.float(), rebuilt.detach().float()])
        seeds = torch.cat([derive(seeds, "real"), derive(seeds, "fake")])
        view_seeds = [derive(seeds, "view")]
        views = [augment(pictures, view_seeds[0], blur_sigma=self._blur_sigma(pixels, step))]
        if self.config.consistency:
            view_seeds.append(derive(seeds, "second view"))
            views.append(augment(pictures, view_seeds[1]))
        logits = self.wrapped(torch.cat(views), torch.cat(view_seeds)).split(len(pictures))
        real, fake = logits[0].chunk(2)
        loss = hinge_discriminator_loss(real, fake)
        values = {"loss/discriminator": loss}
        if self.config.consistency:
            values["loss/consistency"] = consistency_loss(logits[1], logits[0])
            loss = loss + self.config.consistency * values["loss/consistency"]
        self.accelerator.backward(loss * share)
        values |= {"logits_real": real.float().mean(), "logits_fake": fake.float().mean()}
        return {name: value.detach() for name, value in values.items()}

    def update(self, step: int) -> Tensor:
        """One step of its optimizer; returns the norm of the gradients."""
        optim = self.config.optim
        rate = cosine_rate(
            step - self.start,
            self.num_steps - self.start,
            peak=optim.lr,
            warmup_steps=self.warmup_steps,
            final_ratio=optim.final_lr_share,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), optim.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Without the frozen network, which the config names."""
        return {
            "heads": self.network.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.network.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _blur_sigma(self, pixels: Tensor, step: int) -> float:
        return fading_sigma(pixels.shape[-2], step - self.start, warmup_steps=self.warmup_steps)
