r"""Our model for lmms-eval, so that every benchmark there runs on it.

    python -m lmms_eval --model unitok_mllm --model_args pretrained=FOLDER --tasks mme \
        --batch_size 16

lmms-eval (written for 0.7) finds `manifest` through this package's entry point of the group
`lmms_eval.models`. A request's arguments are a tuple; the pictures of its document come from the
task's own `doc_to_visual`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from PIL import Image

from mllm.answer import TextSettings
from mllm.batch_answers import answer_prompts, build_prompt
from mllm.console import progress_bar
from mllm.likelihood import build_answered, measure_answers
from mllm.messages import Message, as_messages
from mllm.pipeline import Pipeline
from mllm.share import process_device

try:
    from lmms_eval.api.model import lmms  # type: ignore[import-not-found]
except ImportError as error:
    raise ImportError(
        f"mllm.lmms is a plug-in of lmms-eval, which cannot be imported ({error}); "
        "pip install lmms-eval"
    ) from error

MODEL_NAME = "unitok_mllm"
DEFAULT_TOKENS = 1024  # as of the models that lmms-eval brings along
KNOWN_KEYS = {"max_new_tokens", "temperature", "top_p", "num_beams", "do_sample", "until"}

logger = logging.getLogger(__name__)


def manifest() -> Any:
    """What lmms-eval's registry of models wants to know."""
    from lmms_eval.models.registry_v2 import ModelManifest  # type: ignore[import-not-found]

    return ModelManifest(
        model_id=MODEL_NAME, simple_class_path=f"{__name__}.{UniTokForLmmsEval.__name__}"
    )


@dataclass(frozen=True)
class AnswerStyle:
    """How a request wants its answer: requests of one style share batches."""

    settings: TextSettings
    until: tuple[str, ...]  # the answer ends before the first of these

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> "AnswerStyle":
        """Of a task's `generation_kwargs`; ValueError for what would change the answers unseen."""
        if (num_beams := arguments.get("num_beams", 1)) not in (1, None):
            raise ValueError(f"num_beams must be 1, got {num_beams}: there is no beam search here")
        if unknown := sorted(arguments.keys() - KNOWN_KEYS):
            logger.warning("generation arguments without effect: %s", ", ".join(unknown))
        temperature = arguments.get("temperature") or 0.0
        is_greedy = not temperature or arguments.get("do_sample") is False
        until = arguments.get("until") or ()
        settings = TextSettings(
            max_new_tokens=arguments.get("max_new_tokens") or DEFAULT_TOKENS,
            temperature=0.0 if is_greedy else temperature,
            top_p=None if is_greedy else arguments.get("top_p"),
        )
        return cls(settings, (until,) if isinstance(until, str) else tuple(filter(None, until)))

    def cut(self, text: str) -> str:
        for end in self.until:
            text = text.partition(end)[0]
        return text.strip()


class UniTokForLmmsEval(lmms):  # type: ignore[misc]
    """A `Pipeline` that answers the requests of lmms-eval."""

    is_simple = True  # questions come as text beside pictures, not as messages

    def __init__(
        self,
        pretrained: str = "nano",
        *,
        tokenizer: str | None = None,
        batch_size: int | str = 16,
        device: str | None = None,
        dtype: str | None = None,
        max_batch_size: None = None,
    ) -> None:
        """`pretrained` and `tokenizer` as in `Pipeline.from_pretrained`.

        lmms-eval also passes its `max_batch_size`, which means nothing without automatic sizes.
        """
        super().__init__()
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
        self.batch_size = int(batch_size)
        self.pipeline = Pipeline.from_pretrained(
            pretrained, tokenizer=tokenizer, device=process_device(device or "auto"), dtype=dtype
        )

    @property
    def device(self) -> Any:
        """Asked for by lmms-eval when several processes gather their results."""
        return self.pipeline.device

    # -- requests --------------------------------------------------------------------------------

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answers to (context, generation arguments, doc_to_visual, document, task, split)."""
        asked = [request.args for request in requests]
        styles = [AnswerStyle.from_arguments(arguments) for _, arguments, *_ in asked]
        conversations = [
            self._conversation(context, doc_to_visual, place)
            for context, _, doc_to_visual, *place in asked
        ]
        names = [name_of(place) for _, _, _, *place in asked]
        texts = [""] * len(asked)
        for style in dict.fromkeys(styles):
            numbers = [number for number, other in enumerate(styles) if other == style]
            answers = self._answer(
                [conversations[number] for number in numbers],
                style,
                names=[names[number] for number in numbers],
            )
            for number, text in zip(numbers, answers, strict=True):
                texts[number] = text
                self.cache_hook.add_partial("generate_until", asked[number][:2], text)
        return texts

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[list[str]]:
        """The answers of all rounds; a round's question may depend on the answers before it.

        Arguments: (context, generation arguments, doc_to_visual, doc_to_text, document, task,
        split). Later rounds come from `doc_to_text`, which also says when there are no more.
        """
        return [self._answer_rounds(*request.args) for request in requests]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """(loss, is greedy) of (context, answer, doc_to_visual, document, task, split).

        The loss is the mean over the answer's tokens: lmms-eval takes the option with the lowest
        value, whatever the name of this method says.
        """
        rows = []
        for context, target, doc_to_visual, *place in (request.args for request in requests):
            answer = target if isinstance(target, str) else target(self._document(place))
            messages = self._conversation(context, doc_to_visual, place)
            rows.append(
                build_answered(self.pipeline.processor, messages, answer, name=name_of(place))
            )
        measured = measure_answers(self.pipeline, rows, batch_size=self.batch_size)
        return [(each.mean_loss, each.is_greedy) for each in measured]

    # -- inside ----------------------------------------------------------------------------------

    def _document(self, place: Sequence[Any]) -> Any:
        doc_id, task, split = place
        return self.task_dict[task][split][doc_id]

    def _conversation(
        self, context: str, doc_to_visual: Callable[[Any], Any], place: Sequence[Any]
    ) -> list[Message]:
        return as_messages(context, check_pictures(doc_to_visual(self._document(place)), place))

    def _answer(
        self, conversations: Sequence[list[Message]], style: AnswerStyle, *, names: Sequence[str]
    ) -> list[str]:
        """Greedy answers in batches, sampled ones one by one."""
        if style.settings.temperature:
            chats = [self.pipeline.chat(each, settings=style.settings) for each in conversations]
            return [style.cut(chat.text) for chat in chats]
        prompts = [
            build_prompt(self.pipeline.processor, messages, name=name)
            for messages, name in zip(conversations, names, strict=True)
        ]
        with progress_bar("answers") if self.rank == 0 else nullcontext(None) as report:
            texts = answer_prompts(
                self.pipeline,
                prompts,
                max_new_tokens=style.settings.max_new_tokens,
                batch_size=self.batch_size,
                progress=report,
            )
        return [style.cut(text) for text in texts]

    def _answer_rounds(
        self,
        context: str,
        arguments: Mapping[str, Any],
        doc_to_visual: Callable[[Any], Any],
        doc_to_text: Callable[..., Any],
        *place: Any,
    ) -> list[str]:
        style, document = AnswerStyle.from_arguments(arguments), self._document(place)
        visuals, outputs, info = doc_to_visual(document), [], None
        while True:
            messages = as_messages(context, check_pictures(visuals, place))
            outputs += self._answer([messages], style, names=[name_of(place)])
            visuals, context, is_over, outputs, info = doc_to_text(
                document, previous_output=outputs, round_idx=len(outputs), previous_round_info=info
            )
            outputs = list(outputs)
            if is_over:
                return outputs


def check_pictures(visuals: Any, place: Sequence[Any]) -> list[Image.Image]:
    """The pictures of a document; ValueError for videos and sounds."""
    pictures = list(visuals or ())
    for each in pictures:
        if not isinstance(each, Image.Image):
            raise ValueError(
                f"{name_of(place)} shows a {type(each).__name__}, but this model reads pictures "
                "only; choose a task about pictures"
            )
    return pictures


def name_of(place: Sequence[Any]) -> str:
    """What errors call a document."""
    doc_id, task, _ = place
    return f"document {doc_id} of {task}"
