"""MLLMTrainer: Hugging Face's Trainer with one loss denominator for everything in a step.

Packs, accumulation steps and processes share it, so that how a batch was cut changes nothing.
Text and image losses are logged apart, and by source.

Needs no change for DeepSpeed: ZeRO stages come with the settings.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, SequentialSampler
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, IntervalStrategy

from mllm.loss import LossTerms, count_learned
from train.mfu import utilisation
from train.run_log import SKIPPED_FILE, TERMS, LogCounts, RunLog, mean_loss, mean_losses
from train.stage_config import StageOptimConfig
from train.stage_optimizer import build_stage_optimizer
from train.stop_request import leave_signals_to_parent


class ValidateAtEnd(TrainerCallback):
    """Validates the result too, whatever step it comes at."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if args.eval_strategy != IntervalStrategy.NO and state.global_step == state.max_steps:
            control.should_evaluate = True


class MLLMTrainer(Trainer):
    """Trains a `UniTokMLLM` on packed batches in the order of the dataset."""

    # The loss is divided by the denominator of the whole step, not by the accumulation steps.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        run_folder: Path,
        source_names: Sequence[str],
        validation_names: Sequence[str],
        optim: StageOptimConfig,
        **options: Any,
    ) -> None:
        super().__init__(model, args, **options)
        self.validation_names = list(validation_names)
        self.optim = optim
        config = self.accelerator.unwrap_model(self.model).config
        self._counts = {
            "image_token_id": config.image_token_id,
            "num_codebooks": config.num_codebooks,
        }
        self.run_log = RunLog(run_folder, source_names)
        self._num_learned = 0  # of this process, since the run was started or resumed

    # -- loss ------------------------------------------------------------------------------------

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor:
        """Learned text ids, by their weight, and sub-codes of the step, over all processes."""
        own = [count_learned(batch["labels"], **self._counts) for batch in batch_samples]
        weighted = sum(self.optim.text_weight * text + image for text, image in own)
        # A float on each process, also on one without a batch.
        total = self.accelerator.gather(torch.tensor([float(weighted)], device=device)).sum()
        # A step may have nothing to learn; its loss is zero then, whatever it is divided by.
        return torch.where(total > 0, total, 1.0)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The batch's part of the step's loss, times the processes that average gradients."""
        self.run_log.note_skipped(inputs.pop("skipped"), step=self.state.global_step + 1)
        outputs = model(**inputs)
        terms: LossTerms = outputs.loss_terms
        assert terms.by_group is not None
        assert num_items_in_batch is not None
        self._num_learned += terms.num_learned
        self.run_log.add(terms.by_group, num_tokens=inputs["input_ids"].numel())
        total = self.optim.text_weight * terms.text + terms.image
        loss = total / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def check_learned(self) -> None:
        """Raise RuntimeError if no process found a sample to learn from: the model is as before."""
        own = torch.tensor([self._num_learned], device=self.args.device)
        if not self.accelerator.reduce(own, reduction="sum").item():
            raise RuntimeError(
                "nothing was learned: every sample was left out, "
                f"{self.run_log.folder / SKIPPED_FILE} says why"
            )

    # -- order of data and rates -----------------------------------------------------------------

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        # The mixture is shuffled already; a second shuffle would depend on the random state.
        return SequentialSampler(train_dataset or self.train_dataset)  # type: ignore[arg-type]

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader[Any]:
        loader = super()._get_dataloader(*args, **kwargs)
        # Workers stay when a signal comes to the whole process group: the step at hand needs them.
        # accelerate's loader wraps the one that starts them; samples draw from their number alone,
        # so the random seeds that the Trainer gives its workers are not missed.
        wrapped: Any = loader
        wrapped.base_dataloader.worker_init_fn = leave_signals_to_parent
        return loader

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            assert self.model is not None
            self.optimizer = build_stage_optimizer(model or self.model, self.optim)
        return self.optimizer

    # -- logging ---------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add text and image losses, tokens per second and skipped samples since the last log."""
        if "loss" in logs:
            counts = self.run_log.count(self.accelerator)
            self.run_log.clear()
            logs = {**logs, **self._describe(counts)}
        super().log(logs, start_time)
        if self.is_world_process_zero():
            self.run_log.write(self.state.log_history[-1])

    def _describe(self, counts: LogCounts) -> dict[str, float]:
        values = {
            # Of all steps since the last log, each learned text id and sub-code counted once.
            "loss": mean_loss(counts.sums),
            **mean_losses(counts.sums, self.run_log.source_names),
            "tokens_per_second": round(counts.tokens_per_second, 1),
            "skipped_samples": counts.num_skipped,
        }
        if self.args.device.type == "cuda":
            share = utilisation(
                counts.tokens_per_second,
                self.accelerator.unwrap_model(self.model),
                device_name=torch.cuda.get_device_name(self.args.device),
                devices=self.accelerator.num_processes,
            )
            values |= {} if share is None else {"mfu": round(share, 4)}
        return values

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        counts = self.run_log.count(self.accelerator)
        if self.is_world_process_zero():
            name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            self.run_log.save(counts, Path(str(self.args.output_dir)) / name)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Mean losses over the held-out rows, over all processes; not counted as training time."""
        started = time.monotonic()
        sums, num_skipped = self._evaluation_sums(self.get_eval_dataloader(eval_dataset))
        values = {**mean_losses(sums, self.validation_names), "skipped_samples": num_skipped}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in values.items()}
        self.log(metrics)
        self.run_log.leave_out(time.monotonic() - started)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    @torch.no_grad()
    def _evaluation_sums(self, loader: DataLoader[Any]) -> tuple[Tensor, int]:
        """Losses (sources, 4), as in RunLog, and the number of samples that were left out."""
        model = self.model_wrapped
        was_training = model.training
        model.eval()
        sums = torch.zeros(
            len(self.validation_names), len(TERMS), dtype=torch.float64, device=self.args.device
        )
        num_skipped = 0
        for batch in loader:
            skipped = batch.pop("skipped")
            num_skipped += len(skipped)
            step = self.state.global_step
            self.run_log.list_skipped(skipped, names=self.validation_names, step=step)
            with self.compute_loss_context_manager():
                by_group = model(**self._prepare_inputs(batch)).loss_terms.by_group
            sums[: len(by_group)] += by_group.to(sums.device)
        model.train(was_training)
        own = torch.tensor([num_skipped], device=self.args.device)
        reduce = self.accelerator.reduce
        return reduce(sums, reduction="sum"), int(reduce(own, reduction="sum").item())
