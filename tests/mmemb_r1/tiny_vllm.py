"""The HTTP surface of a vLLM server, as far as rollouts need it, over a tiny Qwen3-VL: its ids and probabilities.

It renders prompts by the checkpoint's chat template and reads them by itself, from the messages alone, and decodes
without a cache. It refuses what vLLM 0.32 refuses, in its words; `python -m tests.real_vllm` asks the real one.
"""

from __future__ import annotations

import base64
import io
import json
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from tokenizers import Tokenizer
from transformers import DynamicCache
from transformers.utils.chat_template_utils import render_jinja_template

from mmeb_harness.adapter.pixels import Patches
from mmemb_r1_model.decoding import states_of
from mmemb_r1_model.model.checkpoint import load_weights, open_checkpoint
from mmemb_r1_model.model.collate import collate
from mmemb_r1_model.model.prompt import IMAGE, IMAGE_PAD, TEXT, VIDEO, VIDEO_PAD, Prompt, extended
from mmemb_r1_model.model.vision import image_patches, video_patches
from mmemb_r1_model.vllm.request import CLOSING_TOKENS
from tests.mmemb_r1.loopback_chat import Asked, Chat, Fail, Raw, Reply

#: A clip's place in a rendered prompt, which becomes frames: with transformers up to 5.9, and from 5.10 on.
TRIPLET, BARE = "<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>"
CHAT, LOAD, UNLOAD, MODELS = "chat/completions", "load_lora_adapter", "unload_lora_adapter", "models"


@dataclass(frozen=True)
class Media:
    """A picture or clip of a request, as text and as patches."""

    place: str
    text: str
    patches: Patches
    pad: str


class TinyVllm:
    """Serves a checkpoint as "base", and adapters that are loaded.

    Attributes:
        trusts_requests: as with --trust-request-mm-kwargs.
        processed: as with --logprobs-mode processed_logprobs.
        clip: what of a rendered prompt its processor replaces by frames.
    """

    def __init__(self, folder: Path, max_model_len: int = 400) -> None:
        self.trusts_requests, self.processed, self.clip = True, True, BARE
        template = folder / "chat_template.jinja"
        self.template = template.read_text() if template.exists() else None
        self._checkpoint = open_checkpoint(str(folder), None)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._base = load_weights(self._checkpoint, torch.device("cpu"), torch.float32, "sdpa", False).eval()
        self._max_model_len, self._lock = max_model_len, threading.Lock()
        self.adapters: dict[str, Any] = {}
        self.chat = Chat(self.answer, paths=frozenset({CHAT, LOAD, UNLOAD, MODELS}))

    def asked(self, path: str) -> list[Asked]:
        return [one for one in self.chat.asked if one.path == path]

    @property
    def written(self) -> list[Asked]:
        """Chats but for probes."""
        return [asked for asked in self.asked(CHAT) if not is_probe(asked)]

    def answer(self, asked: Asked) -> Reply:
        with torch.no_grad():
            match asked.path:
                case "models":
                    return self._models()
                case "load_lora_adapter":
                    return self._load(asked.body["lora_name"], Path(asked.body["lora_path"]))
                case "unload_lora_adapter":
                    found = self.adapters.pop(asked.body["lora_name"], None)
                    return Raw(b"Success: removed") if found else Fail(404, "the adapter cannot be found")
            return self._completion(asked.body)

    def _models(self) -> Reply:
        base = {"id": "base", "parent": None, "max_model_len": self._max_model_len}
        adapters = [{"id": name, "parent": "base", "max_model_len": None} for name in self.adapters]
        return Raw(json.dumps({"object": "list", "data": [base, *adapters]}).encode())

    def _load(self, name: str, folder: Path) -> Reply:
        from peft import LoraConfig, PeftModel
        from safetensors.torch import load_file

        if name == "base":
            return Fail(400, "The lora adapter 'base' conflicts with a served base model.")
        if name in self.adapters:
            return Fail(400, f"The lora adapter '{name}' has already been loaded")
        if not (folder / "adapter_config.json").is_file():
            return Fail(404, f"No adapter found for {folder}")
        for tensor in load_file(folder / "adapter_model.safetensors"):
            if not re.search(r"\.lora_[AB]\.weight$", tensor):
                return Fail(400, f"{tensor} is unsupported LoRA weight")
        assert LoraConfig.from_pretrained(str(folder)).trainable_token_indices is None
        base = load_weights(self._checkpoint, torch.device("cpu"), torch.float32, "sdpa", False)
        self.adapters[name] = PeftModel.from_pretrained(base, str(folder)).merge_and_unload().eval()
        return Raw(b"Success: LoRA adapter added")

    def _completion(self, body: dict[str, Any]) -> Reply:
        model = {"base": self._base, **self.adapters}.get(body["model"])
        if model is None:
            return Fail(404, f"The model `{body['model']}` does not exist.")
        if body["add_generation_prompt"] == body["continue_final_message"]:
            return Fail(400, "Cannot set both")
        if not body["temperature"] and body["n"] > 1:
            return Fail(400, "n must be 1 when using greedy sampling")
        vocabulary = len(model.lm_head.weight)
        if any(int(token) >= vocabulary for token in body["logit_bias"]):
            return Fail(400, f"logit_bias contains out-of-vocab token ids. Vocabulary size: {vocabulary}")
        if (reason := self._refusal(body)) is not None:
            return Fail(400, reason)
        prompt = self._prompt(body)
        if len(prompt) > self._max_model_len:
            return Fail(
                400,
                f"This model's maximum context length is {self._max_model_len} tokens. However, your prompt contains "
                f"{len(prompt)} input tokens, which exceeds this limit even without any output tokens. Please reduce "
                "the length of the input prompt.",
            )
        # What the context has no room for isn't written, and nothing is said.
        body = body | {"max_tokens": min(body["max_tokens"], self._max_model_len - len(prompt))}
        choices = [self._choice(model, prompt, body, index) for index in range(body["n"])]
        usage = {"prompt_tokens": len(prompt)}
        return Raw(json.dumps({"choices": choices, "usage": usage, "prompt_token_ids": prompt.ids.tolist()}).encode())

    def _refusal(self, body: dict[str, Any]) -> str | None:
        for name in ("mm_processor_kwargs", "media_io_kwargs"):
            if name in body and not self.trusts_requests:
                return (
                    f"Per-request {name} are disabled by default because they can change multimodal preprocessing "
                    "resource usage. Start the server with --trust-request-mm-kwargs only when clients are trusted."
                )
        if self.template is None:
            return (
                "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat "
                "template if the tokenizer does not define one."
            )
        if body["max_tokens"] > self._max_model_len:
            return (
                f"max_tokens={body['max_tokens']} cannot be greater than max_model_len={self._max_model_len}. Please "
                "request fewer output tokens."
            )
        return None

    def _choice(self, model: Any, prompt: Prompt, body: dict[str, Any], index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(body.get("seed", 0) + index)
        ids: list[int] = []
        content = []
        while len(ids) < body["max_tokens"] and (not ids or ids[-1] not in body["stop_token_ids"]):
            batch = collate([extended(prompt, ids)], 0).tensors()
            cache = DynamicCache(config=model.config.get_text_config())
            states = states_of(model, batch.mask_BL, batch.positions_3BL, cache, **batch.inputs)
            logits = model.lm_head(states[:, -1]).float()[0]
            raw = torch.log_softmax(logits, dim=-1)
            for token, bias in body["logit_bias"].items():
                logits[int(token)] += bias
            log_probs = torch.log_softmax(logits, dim=-1)
            drawn = torch.multinomial(log_probs.exp(), 1, generator=generator)
            ids.append(int(drawn if body["temperature"] else log_probs.argmax()))
            reported = log_probs if self.processed else raw
            content.append({"token": "", "logprob": float(reported[ids[-1]]), "top_logprobs": []})
        ended = "stop" if ids and ids[-1] in body["stop_token_ids"] else "length"
        message = {"role": "assistant", "content": ""}
        choice: dict[str, Any] = {"index": index, "message": message, "finish_reason": ended}
        return choice | {"logprobs": {"content": content}, "token_ids": ids if body["return_token_ids"] else None}

    def _prompt(self, body: dict[str, Any]) -> Prompt:
        """As the template and the processor lay it out."""
        media = [one for part in body["messages"][1]["content"] if (one := self._media(part, body)) is not None]
        (text,), _ = render_jinja_template(
            [_typed(body["messages"])],
            chat_template=self.template,
            continue_final_message=True,
            **body.get("chat_template_kwargs", {}),
        )
        told = ""
        for medium in media:
            before, place, text = text.partition(medium.place)
            told += before + (medium.text if place else "")
        ids = np.array(self._tokenizer.encode(told + text, add_special_tokens=False).ids, dtype=np.int64)
        return self._positioned(ids, media)

    def _media(self, part: dict[str, Any], body: dict[str, Any]) -> Media | None:
        vision = self._checkpoint.vision
        if part["type"] == "text":
            return None
        size = body["mm_processor_kwargs"]["size"]
        bounds = size["shortest_edge"], size["longest_edge"]
        if part["type"] == "image_url":
            patches = image_patches(_pictures(part["image_url"]["url"])[0], vision, *bounds)
            return Media(
                "<|vision_start|><|image_pad|><|vision_end|>", self._run(patches, IMAGE_PAD), patches, IMAGE_PAD
            )
        pictures = _pictures(part["video_url"]["url"])
        clip = body["media_io_kwargs"]["video"]
        assert len(pictures) == len(clip["frames_indices"]) == clip["total_num_frames"]
        patches = video_patches(pictures, vision, *bounds)
        times = np.array(clip["frames_indices"]).reshape(-1, 2).mean(axis=1) / clip["fps"]
        text = "".join(f"<{time:.1f} seconds>{self._run(patches, VIDEO_PAD)}" for time in times)
        return Media(self.clip, text, patches, VIDEO_PAD)

    def _run(self, patches: Patches, pad: str) -> str:
        rows, columns = self._grid(patches)
        return f"<|vision_start|>{pad * (rows * columns)}<|vision_end|>"

    def _grid(self, patches: Patches) -> tuple[int, int]:
        merge = self._checkpoint.vision.merge
        return patches.grid[1] // merge, patches.grid[2] // merge

    def _positioned(self, ids: np.ndarray[Any, Any], media: Sequence[Media]) -> Prompt:
        """M-RoPE: a run of visual tokens counts as its longer side."""
        pad = self._tokenizer.token_to_id(media[0].pad) if media else -1
        grids = iter([self._grid(medium.patches) for medium in media for _ in range(medium.patches.grid[0])])
        positions, place, following = np.zeros((3, len(ids)), dtype=np.int64), 0, 0
        while place < len(ids):
            rows, columns = next(grids) if ids[place] == pad else (1, 1)
            width = rows * columns
            grid = np.stack([np.zeros(width, int), *np.divmod(np.arange(width), columns)])
            positions[:, place : place + width] = following + grid
            following += max(rows, columns)
            place += width
        kind = VIDEO if media and media[0].pad == VIDEO_PAD else IMAGE
        types = np.where(ids == pad, kind, TEXT).astype(np.int64)
        return Prompt(ids, types, positions, following, tuple(medium.patches for medium in media))


def _typed(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages as a template gets them: a text is a list, too, and media are their kind alone."""

    def part(given: dict[str, Any]) -> dict[str, Any]:
        return given if given["type"] == "text" else {"type": given["type"].removesuffix("_url")}

    def parts(content: Any) -> list[dict[str, Any]]:
        return [{"type": "text", "text": content}] if isinstance(content, str) else [part(given) for given in content]

    return [{"role": message["role"], "content": parts(message["content"])} for message in messages]


def is_probe(asked: Asked) -> bool:
    """A chat that a client asks for only to see what the server does; of one token and what closes it."""
    return asked.path == CHAT and asked.body["max_tokens"] == 1 + CLOSING_TOKENS


def changed(vllm: TinyVllm, change: Callable[[dict[str, Any]], object]) -> Callable[[Asked], Reply]:
    """The server's answers, with something done to their JSON; not to those to probes."""

    def reply(asked: Asked) -> Reply:
        told = vllm.answer(asked)
        if asked.path != CHAT or is_probe(asked) or not isinstance(told, Raw):
            return told
        content = json.loads(told.body)
        change(content)
        return Raw(json.dumps(content).encode())

    return reply


def _pictures(url: str) -> list[Image.Image]:
    head, _, contents = url.partition(",")
    assert head.startswith("data:")
    return [_picture(base64.b64decode(one)) for one in contents.split(",")]


def _picture(content: bytes) -> Image.Image:
    """As servers do: turned upright, transparent ones on white."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    white = Image.new("RGB", picture.size, "white")
    white.paste(picture, mask=picture.split()[3])
    return white
