"""The training loop of the tokenizer, on one process or many (DDP through accelerate).

All chance in a step belongs to the samples, and whatever compares samples or losses looks at those
of all processes. So the loss curve depends on the batch alone, not on how many processes share it.

A run folder holds config.yaml, log.jsonl, checkpoints/step_000500.pt, samples/, the trackers' files
and in the end model/, and model_ema/ where weights are averaged.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, reduce
from torch import Tensor, nn
from torch.distributed.optim import ZeroRedundancyOptimizer

from train.adversary import Adversary
from train.block_settings import compile_blocks, recompute_blocks
from train.contrastive_cache import ContrastiveCache, cache_contrastive
from train.generator_losses import GeneratorLosses, freeze_idle
from train.optimizers import build_tokenizer_optimizers
from train.schedules import cosine_rate
from train.step_checkpoints import StepCheckpoints, passing_buffers, restore_passing_buffers
from train.step_log import StepClock, StepLog
from train.stop_request import StopRequest
from train.tokenizer_config import TokenizerConfig
from train.tokenizer_data import TokenizerBatch, TokenizerData
from train.tokenizer_forward import TokenizerForward
from train.tokenizer_preview import Preview, judged, usage_values
from train.tokenizer_scores import HeldOutScores
from train.weight_average import WeightAverage
from unitok.model import MAX_LOGIT_SCALE, UniTok

logger = logging.getLogger(__name__)


class TokenizerTrainer:
    """Trains a `UniTok` by its config."""

    def __init__(
        self,
        config: TokenizerConfig,
        model: UniTok,
        *,
        accelerator: Accelerator,
        data: TokenizerData,
        preview: Preview | None,
        scores: HeldOutScores | None = None,
    ) -> None:
        """`preview` is the main process's; scores are measured by all."""
        self.config = config
        self.model = model
        self.accelerator = accelerator
        self.data = data
        self.preview = preview
        self.scores = scores
        self.folder = Path(config.output)
        freeze_idle(model, config.weights)
        self.forward = TokenizerForward(
            model,
            decode_every=config.batch.decode_every if config.weights.reconstructs else None,
            use_texts=config.weights.clip > 0,
        )
        if config.gradient_checkpointing:
            recompute_blocks(model)
        model.to(accelerator.device)
        self.average = None if config.ema_decay is None else WeightAverage(model, config.ema_decay)
        if config.compile:
            compile_blocks(model)
        self.wrapped = accelerator.prepare_model(self.forward)
        self.optimizers = build_tokenizer_optimizers(model, config.optim, zero1=config.zero1)
        self.adversary = (
            Adversary(config.adversary, accelerator, num_steps=config.steps)
            if config.weights.gan
            else None
        )
        self.losses = GeneratorLosses(
            config.weights, model, perceptual=config.perceptual, adversary=self.adversary
        )
        self.checkpoints = StepCheckpoints(self.folder, keep=config.watch.keep_checkpoints)
        self.log = StepLog(self.folder, accelerator)
        self.step = 0

    def run(self) -> bool:
        """Train to the end; returns False when a signal stopped it before (state is saved)."""
        saved_at = self.step
        self.clock = StepClock(self.step, device=self.accelerator.device)
        with StopRequest() as stop:
            batches = self.data.batches(self.step)
            while self.step < self.config.steps:
                values = self._train_step(self._parts(next(batches)))
                self.step += 1
                self._report(values)
                stopped = stop.received_anywhere(self.accelerator.device)
                if stopped or self.step % self.config.watch.save_every == 0:
                    self.save()
                    saved_at = self.step
                if stopped:
                    break
        if self.step == self.config.steps and saved_at < self.step:
            self.save()
        return self.step == self.config.steps

    # -- one step --------------------------------------------------------------------------------

    def _parts(self, batch: TokenizerBatch) -> list[TokenizerBatch]:
        """This process's share of a step, cut for accumulation."""
        batch = batch.to(self.accelerator.device)
        size = len(batch.pixels) // self.config.batch.accumulation
        cut = (each.split(size) for each in (batch.pixels, batch.text_ids, batch.seeds))
        return [TokenizerBatch(*tensors) for tensors in zip(*cut, strict=True)]

    def _train_step(self, parts: list[TokenizerBatch]) -> dict[str, float]:
        rate = self._set_rate()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        self.forward.train()
        cache = self._cache(parts) if len(parts) > 1 and self.config.weights.clip else None
        sums: dict[str, Tensor] = {}
        for number, part in enumerate(parts):
            # Gradients are averaged over the processes once, with those of the last part.
            with nullcontext() if number == len(parts) - 1 else self._without_averaging():
                values = self._backward(
                    part, share=1 / len(parts), cache=None if cache is None else (cache, number)
                )
            for name, value in values.items():
                sums[name] = sums.get(name, 0) + value / len(parts)
        sums["skipped_samples"] = torch.tensor(
            float(self.data.num_skipped * self.accelerator.num_processes),
            device=self.accelerator.device,
        )
        found = self._mean_over_processes(sums)
        self._check_finite(found)
        norms = self._update()
        self._check_finite(norms)
        if self.average is not None:
            self.average.update(self.model, self.step)
        return {**found, **norms, "lr": rate}

    def _backward(
        self, part: TokenizerBatch, *, share: float, cache: tuple[ContrastiveCache, int] | None
    ) -> dict[str, Tensor]:
        """Add gradients of tokenizer and discriminator; returns values to log."""
        output = self.wrapped(part.pixels, part.text_ids, part.seeds)
        surrogate, values = self.losses.surrogate(
            output, part, step=self.step, share=share, cache=cache
        )
        self.accelerator.backward(surrogate)
        values |= {"usage": output.usage, "logit_scale": output.logit_scale.detach()}
        if self.adversary is not None and self.adversary.is_active(self.step):
            assert output.reconstruction is not None  # gan needs a reconstruction loss
            every = self.config.batch.decode_every
            values |= self.adversary.backward(
                part.pixels[::every],
                output.reconstruction,
                seeds=part.seeds[::every],
                step=self.step,
                share=share,
            )
        return values

    def _cache(self, parts: list[TokenizerBatch]) -> ContrastiveCache:
        def features(part: TokenizerBatch) -> tuple[Tensor, Tensor]:
            with self.accelerator.autocast():
                return self.forward.features(part.pixels, part.text_ids, part.seeds)

        return cache_contrastive(parts, features, self.model.logit_scale.exp())

    @contextmanager
    def _without_averaging(self) -> Iterator[None]:
        """Gradients stay with each process."""
        with ExitStack() as stack:
            for wrapped in (self.wrapped, getattr(self.adversary, "wrapped", None)):
                if wrapped is not None:
                    stack.enter_context(self.accelerator.no_sync(wrapped))
            yield

    def _mean_over_processes(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        mean = reduce(torch.stack([value.float() for value in values.values()]), reduction="mean")
        return dict(zip(values, mean.tolist(), strict=True))

    def _check_finite(self, values: Mapping[str, float]) -> None:
        """Raise RuntimeError, in all processes, that names what is not a number."""
        bad = {name: value for name, value in values.items() if not math.isfinite(value)}
        if bad:
            named = ", ".join(f"{name} is {value}" for name, value in bad.items())
            raise RuntimeError(
                f"step {self.step}: {named}; --resume goes on from the last checkpoint, a new run "
                "may need a lower optim.lr or precision=fp32"
            )

    def _set_rate(self) -> float:
        optim, steps = self.config.optim, self.config.steps
        rate = cosine_rate(
            self.step,
            steps,
            peak=optim.lr,
            warmup_steps=round(optim.warmup_share * steps),
            final_ratio=optim.final_lr_share,
        )
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        return rate

    def _update(self) -> dict[str, float]:
        """One step of each optimizer; returns the norms of their gradients."""
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optim.clip_grad)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        norms = {"grad_norm": norm.item()}
        if self.adversary is not None and self.adversary.is_active(self.step):
            norms["grad_norm/discriminator"] = self.adversary.update(self.step).item()
        return norms

    # -- looking ---------------------------------------------------------------------------------

    def _report(self, values: dict[str, float]) -> None:
        watch = self.config.watch
        looked: dict[str, float] = {}
        with self.clock.stopped():
            if self.scores is not None and watch.scores and self._is_due(watch.scores.every):
                looked |= self._score(self.scores)
            if self.preview is not None and self._is_due(watch.sample_every):
                looked |= self._sample(self.preview)
        if self.accelerator.is_main_process and (looked or self._is_due(watch.log_every)):
            values |= looked
            values |= usage_values(self.model)
            values |= self.clock.rates(
                self.step, self.config.steps, per_step=self.config.batch.size
            )
            self.log.write(values, step=self.step, num_steps=self.config.steps)

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def _watched(self) -> dict[str, UniTok]:
        """What is looked at, by the names that its values begin with."""
        averaged = {} if self.average is None else {"ema": self.average.model}
        return {"eval": self.model, **averaged}

    def _sample(self, preview: Preview) -> dict[str, float]:
        values: dict[str, float] = {}
        for name, model in self._watched().items():
            with judged(model):
                grid, measured = preview.measure(model, name=name)
            preview.save(grid, name=name, step=self.step)
            self.log.show(grid, name=name, step=self.step)
            values |= measured
        return values

    def _score(self, scores: HeldOutScores) -> dict[str, float]:
        """All processes measure; the values are the main process's."""
        if self.accelerator.is_main_process:
            scores.clear(self.step)
        self.accelerator.wait_for_everyone()
        for name, model in self._watched().items():
            with judged(model):
                scores.measure(model, self.step, name=name)
        self.accelerator.wait_for_everyone()
        values: dict[str, float] = {}
        if self.accelerator.is_main_process:
            for name, model in self._watched().items():
                with judged(model):
                    values |= scores.report(model, self.step, name=name)
        return values

    # -- state -----------------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint; all processes take part, the first one writes."""
        for optimizer in self.optimizers:
            if isinstance(optimizer, ZeroRedundancyOptimizer):
                optimizer.consolidate_state_dict(to=0)
        processes = gather_object([self._process_state()])
        if self.accelerator.is_main_process:
            self.checkpoints.save({**self._shared_state(), "processes": processes}, self.step)
        self.accelerator.wait_for_everyone()

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        state = self.checkpoints.load_newest()
        if state is not None:
            self._restore(state)
        self.log.cut_back(self.step)

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        restore_passing_buffers(self.model, state["passing_buffers"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if self.adversary is not None:
            self.adversary.load_state_dict(state["adversary"])
        if self.average is not None:
            self.average.model.load_state_dict(state["average"])
        processes = state["processes"]  # of another number, data that are streamed refuse
        index = self.accelerator.process_index
        own = processes[index % len(processes)]
        self.data.load_state_dict(own["data"])
        if len(processes) != self.accelerator.num_processes:
            skipped = sum(each["data"]["num_skipped"] for each in processes)
            self.data.num_skipped = skipped if index == 0 else 0
        torch.set_rng_state(own["random"])

    def _shared_state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "passing_buffers": passing_buffers(self.model),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "adversary": None if self.adversary is None else self.adversary.state_dict(),
            "average": None if self.average is None else self.average.model.state_dict(),
        }

    def _process_state(self) -> dict[str, Any]:
        return {"data": self.data.state_dict(), "random": torch.get_rng_state()}
