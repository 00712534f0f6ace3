"""What each family of image-to-text models in transformers must be asked with.

A family is a small object that writes the text for one photo, and a line in `FAMILIES`. All else
is the same for all: `nanocap.distill.teachers.processors` loads their processors, and
`nanocap.distill.teachers.hf` lets them generate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nanocap.errors import OptionError

ASK = "Describe this image in one short sentence."  # what models that chat are asked
INSTRUCTION = "Write a short description of the image."


@dataclass(frozen=True)
class Family:
    """How a model is spoken to."""

    example: str  # a public model of the family
    prompt: str = ""  # what it is asked when the user says nothing else

    def inputs(self, processor: Any, images: list[Any], prompt: str) -> Any:
        """What `generate` takes; raises OptionError for a prompt where the family takes none."""
        raise NotImplementedError


@dataclass(frozen=True)
class Plain(Family):
    """The prompt as it is, if there is one; the processor adds what stands for the photo."""

    before: str = ""  # what the text must start with, whatever the prompt
    optional: bool = False  # an empty prompt: the model goes on from the photo alone

    def inputs(self, processor: Any, images: list[Any], prompt: str) -> Any:
        if self.optional and not prompt:
            return processor(images=images, return_tensors="pt")
        texts = [self.before + prompt] * len(images)
        return processor(images=images, text=texts, return_tensors="pt", padding=True)


@dataclass(frozen=True)
class Prefix(Family):
    """GIT: the caption goes on after the prompt, which has a start token but no end token."""

    def inputs(self, processor: Any, images: list[Any], prompt: str) -> Any:
        pixels = processor(images=images, return_tensors="pt")
        if prompt:
            tokenizer = processor.tokenizer
            ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            rows = [[tokenizer.cls_token_id, *ids]] * len(images)
            pixels["input_ids"] = pixels["pixel_values"].new_tensor(rows).long()
        return pixels


@dataclass(frozen=True)
class Silent(Family):
    """A vision encoder with a text decoder: there is nothing but the photo."""

    def inputs(self, processor: Any, images: list[Any], prompt: str) -> Any:
        if prompt:
            raise OptionError("vision-encoder-decoder models take no prompt")
        return processor(images=images, return_tensors="pt")


@dataclass(frozen=True)
class Chat(Family):
    """A question with a photo in a chat, as the model's own template spells it."""

    prompt: str = ASK
    spelled: str = ""  # of models without a template: `{prompt}` stands in it

    def inputs(self, processor: Any, images: list[Any], prompt: str) -> Any:
        text = self._text(processor, prompt)
        nested = [[image] for image in images]  # one photo a chat
        return processor(
            images=nested, text=[text] * len(images), return_tensors="pt", padding=True
        )

    def _text(self, processor: Any, prompt: str) -> str:
        template = processor.chat_template or processor.tokenizer.chat_template
        if template is None:
            if not self.spelled:
                raise OptionError(
                    f"a {type(processor).__name__} without a chat template: nothing tells how its"
                    " model is asked; add chat_template.jinja to its folder"
                )
            return self.spelled.replace("{prompt}", prompt)
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        written: str = processor.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
        )
        return written


QWEN = (
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{prompt}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
IDEFICS = "<|im_start|>User:<image>{prompt}<end_of_utterance>\nAssistant:"

FAMILIES: dict[str, Family] = {  # by `model_type` of config.json
    "blip": Plain("Salesforce/blip-image-captioning-base", optional=True),
    "blip-2": Plain("Salesforce/blip2-opt-2.7b", "a photo of"),
    "instructblip": Plain("Salesforce/instructblip-flan-t5-xl", INSTRUCTION),
    "git": Prefix("microsoft/git-base-coco"),
    "vision-encoder-decoder": Silent("nlpconnect/vit-gpt2-image-captioning"),
    "florence2": Plain("florence-community/Florence-2-base", "<CAPTION>"),
    "paligemma": Plain("google/paligemma-3b-mix-224", "caption en", before="<image>"),
    "idefics3": Chat("HuggingFaceTB/SmolVLM-256M-Instruct", spelled=IDEFICS),
    "smolvlm": Chat("HuggingFaceTB/SmolVLM2-500M-Video-Instruct", spelled=IDEFICS),
    "llava": Chat("llava-hf/llava-1.5-7b-hf", spelled="USER: <image>\n{prompt} ASSISTANT:"),
    "llava_onevision": Chat(
        "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
        spelled="<|im_start|>user <image>\n{prompt}<|im_end|><|im_start|>assistant\n",
    ),
    "qwen2_vl": Chat("Qwen/Qwen2-VL-2B-Instruct", spelled=QWEN),
    "qwen2_5_vl": Chat("Qwen/Qwen2.5-VL-3B-Instruct", spelled=QWEN),
}


def family_of(model_type: str) -> Family:
    """The family of a `model_type`; others of transformers chat, or raise OptionError."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    if model_type in FAMILIES:
        return FAMILIES[model_type]
    if model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return Chat(model_type)
    raise OptionError(
        f"{model_type!r} models do not make text of images; some that do: {', '.join(FAMILIES)}"
    )
